"""What is done to finished squares, as data: flip, colours, a policy's operations, blur, a rectangle erased.

All of it follows from (seed, epoch, sample index) alone, by a stream of its own: whatever is turned on here,
the rest of a plan stays as it was. Distributions are those of torchvision's RandomVerticalFlip, ColorJitter,
RandomGrayscale, TrivialAugmentWide, RandAugment, GaussianBlur and RandomErasing.
"""

from dataclasses import dataclass, fields

import numpy as np

from flowerfast.augment import Augment
from flowerfast.kernels.operations import Operation
from flowerfast.philox import stream_key, uniforms

_BLOCKS = 14  # of four draws each per sample; 29 and 3 per operation are used, of which there are 8 at most
_ATTEMPTS = 10  # torchvision's RandomErasing tries ten rectangles, then leaves the picture as it is
_ERASED, _RATIO = (0.02, 0.33), (0.3, 3.3)  # share of the area, height / width: torchvision's defaults
_SIGMA = (0.1, 2.0)
_BINS = 30  # of strengths above 0
_POLICY = 29  # the first draw of the policy
_ENHANCERS = (Operation.brightness, Operation.colour, Operation.contrast, Operation.sharpness)


@dataclass(frozen=True)
class Finish:
    """What is done to n finished squares, in this order; arrays of length n, but for the operations.

    Attributes:
        vflip: bool, mirror vertically.
        saturation: float32, factor around 1.
        hue: float32, part of the colour circle by which hues are turned; 0: as they are.
        grey: bool, without colours.
        operation: int64 (n, K), `Operation`s one after the other.
        magnitude: float32 (n, K), what each operation makes of it.
        sigma: float32, of the blur, in pixels; 0: none.
        erase_top, erase_left, erase_height, erase_width: int64, pixels that become black.
    """

    vflip: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    grey: np.ndarray
    operation: np.ndarray
    magnitude: np.ndarray
    sigma: np.ndarray
    erase_top: np.ndarray
    erase_left: np.ndarray
    erase_height: np.ndarray
    erase_width: np.ndarray

    def select(self, rows: np.ndarray) -> "Finish":
        """Of some samples: `rows` are positions, int64 (m,), or a mask, bool (n,)."""
        return Finish(*(getattr(self, field.name)[rows] for field in fields(self)))


def make_finish(seed: int, epoch: int, indices: np.ndarray, augment: Augment, size: int) -> Finish | None:
    """For the samples `indices`, int64 (n,), in an epoch; None when all of it is off.

    Pictures have `size` pixels a side.
    """
    a = augment
    if a.policy == "none" and not any((a.vflip, a.saturation, a.hue, a.grey, a.blur, a.erase)):
        return None
    u = uniforms(stream_key("finish", seed, epoch), indices, _BLOCKS)
    operation, magnitude = _policy(u[:, _POLICY:], a, size)
    sigma = _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * u[:, 5]
    return Finish(
        u[:, 0] < a.vflip,
        (1 - a.saturation + 2 * a.saturation * u[:, 1]).astype(np.float32),
        ((2 * u[:, 2] - 1) * a.hue).astype(np.float32),
        u[:, 3] < a.grey,
        operation,
        magnitude.astype(np.float32),
        np.where(u[:, 4] < a.blur, sigma, 0).astype(np.float32),
        *_rectangles(u[:, 7:_POLICY], u[:, 6] < a.erase, size),
    )


def _rectangles(u: np.ndarray, wanted: np.ndarray, size: int) -> list[np.ndarray]:
    """(top, left, height, width) as of RandomErasing.get_params; all 0 where not wanted, bool (n,)."""
    area = size * size * (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * u[:, 2 : 2 + 2 * _ATTEMPTS : 2])
    low, high = np.log(_RATIO)
    ratio = np.exp(low + (high - low) * u[:, 3 : 3 + 2 * _ATTEMPTS : 2])
    heights = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    widths = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (heights < size) & (widths < size)
    rows, first = np.arange(len(u)), fits.argmax(axis=1)
    height, width = heights[rows, first], widths[rows, first]
    top = np.floor(u[:, 0] * (size - height + 1)).astype(np.int64)
    left = np.floor(u[:, 1] * (size - width + 1)).astype(np.int64)
    wanted = wanted & fits.any(axis=1)
    return [np.where(wanted, part, 0) for part in (top, left, height, width)]


def _policy(u: np.ndarray, augment: Augment, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(operations, magnitudes), int64 and float64 (n, K), by uniform draws, (n, 3 K or more)."""
    count = {"none": 0, "trivial": 1, "rand": augment.policy_ops}[augment.policy]
    u = u[:, : 3 * count].reshape(len(u), count, 3)
    operation = np.floor(u[..., 0] * len(Operation)).astype(np.int64)
    if augment.policy == "trivial":
        strength = np.floor(u[..., 1] * (_BINS + 1))
        most, bits = _most(0.99, 32.0, 135.0, 0.99), 6
    else:
        strength = np.full(operation.shape, float(augment.policy_magnitude))
        most, bits = _most(0.3, 150 / 331 * size, 30.0, 0.9), 4
    signed = most[operation] * strength / _BINS * np.where(u[..., 2] < 0.5, -1, 1)
    kept = np.where(operation == Operation.posterize, np.rint(8 - strength / _BINS * bits), signed)
    return operation, np.where(operation == Operation.solarize, 1 - strength / _BINS, kept)


def _most(shear: float, shift: float, turn: float, change: float) -> np.ndarray:
    """The strongest magnitude of each operation that goes either way; 0 for the others."""
    most = np.zeros(len(Operation))
    most[[Operation.shear_x, Operation.shear_y]] = shear
    most[[Operation.translate_x, Operation.translate_y]] = shift
    most[Operation.rotate] = turn
    most[[*_ENHANCERS]] = change
    return most
