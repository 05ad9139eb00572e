"""Arithmetic of windows: where torchvision crops, how sizes follow, and windows of a photo at other sizes."""

import numpy as np

from flowerfast.augment import Augment

Sizes = tuple[np.ndarray, np.ndarray]
"""(width, height) of photos in pixels, each int (n,)."""
Windows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""(top, left, height, width) in pixels, each int64 (n,)."""
ATTEMPTS = 10
"""torchvision's RandomResizedCrop tries ten windows, then takes the central fallback."""


def random_windows(u: np.ndarray, sizes: Sizes, augment: Augment) -> Windows:
    """Window of torchvision's RandomResizedCrop.get_params, by uniform draws, float64 (n, 22 or more)."""
    photo_w, photo_h = (np.asarray(s, np.int64) for s in sizes)
    (scale_low, scale_high), (ratio_low, ratio_high) = augment.crop_scale, augment.crop_ratio
    area = (photo_w * photo_h)[:, None] * (scale_low + (scale_high - scale_low) * u[:, 0 : 2 * ATTEMPTS : 2])
    log_low, log_high = np.log(ratio_low), np.log(ratio_high)
    ratio = np.exp(log_low + (log_high - log_low) * u[:, 1 : 2 * ATTEMPTS : 2])
    tries_w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    tries_h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (tries_w > 0) & (tries_w <= photo_w[:, None]) & (tries_h > 0) & (tries_h <= photo_h[:, None])
    rows, first, fitting = np.arange(len(u)), fits.argmax(axis=1), fits.any(axis=1)
    width, height = tries_w[rows, first], tries_h[rows, first]
    left = np.floor(u[:, 20] * (photo_w - width + 1)).astype(np.int64)
    top = np.floor(u[:, 21] * (photo_h - height + 1)).astype(np.int64)
    # Fallback: the largest central window whose aspect ratio lies in bounds.
    shape = photo_w / photo_h
    central_w = np.where(shape > ratio_high, np.rint(photo_h * ratio_high), photo_w).astype(np.int64)
    central_h = np.where(shape < ratio_low, np.rint(photo_w / ratio_low), photo_h).astype(np.int64)
    central_w, central_h = np.maximum(central_w, 1), np.maximum(central_h, 1)  # 1 px high, crop_ratio 0.3
    height, width = np.where(fitting, height, central_h), np.where(fitting, width, central_w)
    top = np.where(fitting, top, (photo_h - central_h) // 2)
    left = np.where(fitting, left, (photo_w - central_w) // 2)
    return top, left, height, width


def resized(sizes: Sizes, size: int, crop_pct: float) -> Sizes:
    """(width, height) after torchvision's Resize(round(size / crop_pct)), each int64 (n,).

    The short side becomes round(size / crop_pct), the long side is truncated to whole pixels.
    """
    width, height = (np.asarray(s, np.int64) for s in sizes)
    short, tall = round(size / crop_pct), height > width
    long = (short * np.maximum(width, height) / np.minimum(width, height)).astype(np.int64)
    return np.where(tall, short, long), np.where(tall, long, short)


def around(length: np.ndarray, out: np.ndarray, first: np.ndarray, size: int) -> Windows:
    """What `size` pixels from `first` on need of an axis of `length` pixels that is resized to `out`.

    Returns (start, length, out, first) of that part, int64: the same pixels but for a shift of less than one,
    since what lies before it need not be whole pixels of the result.
    """
    scale = length / out
    margin = np.ceil(np.maximum(scale, 1)) + 2  # the filter's reach, and the rounding of both ends
    start = np.maximum(np.floor(first * scale) - margin, 0)
    end = np.minimum(np.ceil((first + size) * scale) + margin, length)
    parts = start, end - start, np.rint((end - start) / scale), first - np.rint(start / scale)
    start, part, part_out, part_first = (each.astype(np.int64) for each in parts)
    return start, part, part_out, part_first


def limited(sizes: Sizes, side: int) -> Sizes:
    """(width, height), int64, of photos whose short side is made `side` pixels at most, never enlarged."""
    scale = np.minimum(1.0, side / np.minimum(*sizes))
    width, height = (np.maximum(np.rint(edge * scale), 1).astype(np.int64) for edge in sizes)
    return width, height


def stored(windows: Windows, sizes: Sizes, orientation: np.ndarray) -> Windows:
    """Windows of photos that are turned upright, as they lie in the photos as stored.

    `sizes` are (width, height) of the upright photos, `orientation` says how they are turned, int (n,): see
    `photos.orientation`.
    """
    top, left, height, width = windows
    top = np.where((orientation - 1) & 2, sizes[1] - top - height, top)
    left = np.where(orientation & 2, sizes[0] - left - width, left)
    swapped = orientation > 4
    first, second = (top, left, height, width), (left, top, width, height)
    top, left, height, width = (np.where(swapped, b, a) for a, b in zip(first, second, strict=True))
    return top, left, height, width


def moved(start: np.ndarray, length: np.ndarray, old: np.ndarray, new: np.ndarray) -> Sizes:
    """(start, length) of windows along one axis of photos that are `new` pixels long instead of `old`.

    Edges are rounded to whole pixels; a window keeps at least one. Where the lengths are equal, so are they.
    """
    ratio = new / old
    first = np.minimum(np.rint(start * ratio), new - 1)
    last = np.maximum(np.rint((start + length) * ratio), first + 1)
    return first.astype(np.int64), (last - first).astype(np.int64)
