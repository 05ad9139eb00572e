"""Plans: every random parameter of a sample, computed before any pixel is touched. The only random code.

A plan is a pure function of (seed, epoch, sample index, photo size, settings). Numbers come from
`numpy.random.Philox`, a counter-based generator: the key is (seed, purpose and epoch), and each sample owns a
fixed block of the counter, so that neither batch size, order of calls, backend nor number of workers matters.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from flowerfast.config import AugmentConfig
from flowerfast.data.order import Order
from flowerfast.data.philox import philox

_PURPOSES = {"augment": 0, "order": 1, "split": 2, "pack": 3}
_ATTEMPTS = 10  # torchvision's RandomResizedCrop tries ten windows, then takes the central fallback
_BLOCKS = 8  # counter steps per sample; each yields four uint64
_DRAWS = 4 * _BLOCKS  # 2 x 10 attempts and 9 more are used


class End(IntEnum):
    """The step after which an executor stops. Only measurements stop before the last."""

    read = 0
    decode = 1
    resize = 2
    """Crop and resize."""
    turn = 3
    """Flip and rotation."""
    jitter = 4
    """Brightness and contrast."""
    all = 5
    """Shift: the pixels are in their batch."""


@dataclass(frozen=True)
class Plan:
    """Random parameters of n samples, as arrays of length n.

    Attributes:
        indices: int64, sample indices into the manifest.
        top, left, height, width: int32, crop window in pixels of the stored photo.
        flip: bool, mirror horizontally.
        angle: float32, degrees, counter-clockwise.
        brightness, contrast: float32, factors around 1.
        contrast_first: bool, contrast before brightness.
        shift_x, shift_y: int32, pixels to the right and down.
        size: side of the output, in pixels.
    """

    indices: np.ndarray
    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray
    angle: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    contrast_first: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class EvalPlan:
    """Resize the whole photo, then cut the centre; no randomness. Arrays of length n.

    Attributes:
        indices: int64, sample indices into the manifest.
        resize_height, resize_width: int32, size of the resized photo, in pixels.
        top, left: int32, corner of the size x size window in the resized photo.
        size: side of the output, in pixels.
    """

    indices: np.ndarray
    resize_height: np.ndarray
    resize_width: np.ndarray
    top: np.ndarray
    left: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.indices)


def generator(purpose: str, seed: int, stream: int) -> np.random.Generator:
    """Random generator of one purpose (augment, order, split or pack) and stream (an epoch, a class)."""
    return np.random.Generator(np.random.Philox(key=_key(purpose, seed, stream)))


def _key(purpose: str, seed: int, stream: int) -> np.ndarray:
    return np.array([seed, (_PURPOSES[purpose] << 48) | stream], np.uint64)


def epoch_order(seed: int, epoch: int, count: int) -> Order:
    """Permutation of range(count) for an epoch; slices of it are int64 arrays."""
    return Order(count, generator("order", seed, epoch))


def make_plan(
    seed: int,
    epoch: int,
    indices: np.ndarray,
    sizes: tuple[np.ndarray, np.ndarray],
    settings: AugmentConfig,
    image_size: int,
) -> Plan:
    """Plan of the samples `indices` (int64, n) in an epoch.

    `sizes` is (width, height) of those photos in pixels, each (n,). The distributions are torchvision's:
    RandomResizedCrop, RandomHorizontalFlip, RandomRotation, ColorJitter(brightness, contrast) with a random
    order of the two, RandomAffine(translate) with its rounding to whole pixels.
    """
    u = _uniforms(seed, epoch, indices)
    top, left, height, width = _crop(u, sizes, settings)
    reach = settings.translate * image_size
    low_b, low_c = 1 - settings.brightness, 1 - settings.contrast
    return Plan(
        indices=np.asarray(indices, np.int64),
        top=top,
        left=left,
        height=height,
        width=width,
        flip=u[:, 22] < settings.flip,
        angle=((2 * u[:, 23] - 1) * settings.rotate).astype(np.float32),
        brightness=(low_b + 2 * settings.brightness * u[:, 24]).astype(np.float32),
        contrast=(low_c + 2 * settings.contrast * u[:, 25]).astype(np.float32),
        contrast_first=u[:, 26] < 0.5,
        shift_x=np.rint((2 * u[:, 27] - 1) * reach).astype(np.int32),
        shift_y=np.rint((2 * u[:, 28] - 1) * reach).astype(np.int32),
        size=image_size,
    )


def _uniforms(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Uniform draws in [0, 1), one row per sample: float64 (n, 32)."""
    first = np.asarray(indices).astype(np.uint64) * np.uint64(_BLOCKS)
    counters = first[:, None] + np.arange(1, _BLOCKS + 1, dtype=np.uint64)
    raw = philox(_key("augment", seed, epoch), counters.reshape(-1)).reshape(len(first), _DRAWS)
    return (raw >> np.uint64(11)) * 2.0**-53


def _crop(
    u: np.ndarray, sizes: tuple[np.ndarray, np.ndarray], settings: AugmentConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Window of torchvision's RandomResizedCrop.get_params: (top, left, height, width), int32 each."""
    photo_w, photo_h = (np.asarray(s, np.int64) for s in sizes)
    (scale_low, scale_high), (ratio_low, ratio_high) = settings.crop_scale, settings.crop_ratio
    area = (photo_w * photo_h)[:, None] * (scale_low + (scale_high - scale_low) * u[:, 0 : 2 * _ATTEMPTS : 2])
    log_low, log_high = np.log(ratio_low), np.log(ratio_high)
    ratio = np.exp(log_low + (log_high - log_low) * u[:, 1 : 2 * _ATTEMPTS : 2])
    tries_w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    tries_h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (tries_w > 0) & (tries_w <= photo_w[:, None]) & (tries_h > 0) & (tries_h <= photo_h[:, None])
    rows, first, found = np.arange(len(u)), fits.argmax(axis=1), fits.any(axis=1)
    width, height = tries_w[rows, first], tries_h[rows, first]
    left = np.floor(u[:, 20] * (photo_w - width + 1)).astype(np.int64)
    top = np.floor(u[:, 21] * (photo_h - height + 1)).astype(np.int64)
    # Fallback: the largest central window whose aspect ratio lies in bounds.
    shape = photo_w / photo_h
    central_w = np.where(shape > ratio_high, np.rint(photo_h * ratio_high), photo_w).astype(np.int64)
    central_h = np.where(shape < ratio_low, np.rint(photo_w / ratio_low), photo_h).astype(np.int64)
    central_w, central_h = np.maximum(central_w, 1), np.maximum(central_h, 1)  # 1 px high, crop_ratio 0.3
    height, width = np.where(found, height, central_h), np.where(found, width, central_w)
    top = np.where(found, top, (photo_h - central_h) // 2)
    left = np.where(found, left, (photo_w - central_w) // 2)
    return top.astype(np.int32), left.astype(np.int32), height.astype(np.int32), width.astype(np.int32)


def make_eval_plan(
    indices: np.ndarray, sizes: tuple[np.ndarray, np.ndarray], image_size: int, crop_pct: float
) -> EvalPlan:
    """Plan of torchvision's Resize(round(image_size / crop_pct)) and CenterCrop(image_size).

    `sizes` is (width, height) of the photos in pixels. The short side becomes round(image_size / crop_pct),
    the long side is truncated to whole pixels, as torchvision does.
    """
    width, height = (np.asarray(s, np.int64) for s in sizes)
    short = round(image_size / crop_pct)
    tall = height > width
    long = (short * np.maximum(width, height) / np.minimum(width, height)).astype(np.int64)
    resize_h, resize_w = np.where(tall, long, short), np.where(tall, short, long)
    return EvalPlan(
        indices=np.asarray(indices, np.int64),
        resize_height=resize_h.astype(np.int32),
        resize_width=resize_w.astype(np.int32),
        top=np.rint((resize_h - image_size) / 2).astype(np.int32),
        left=np.rint((resize_w - image_size) / 2).astype(np.int32),
        size=image_size,
    )
