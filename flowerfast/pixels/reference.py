"""The reference: plans to pixels in torchvision's and Pillow's operations, one photo at a time."""

import threading

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from flowerfast.kernels import End
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos
from flowerfast.pixels.finish_reference import finish_square
from flowerfast.pixels.source import Source
from flowerfast.plans.plan import Plan


class PlainExecutor:
    """Executes plans on the calling thread; threads may share it. See `Executor` for the contract.

    Args:
        photos: the set that plans speak of.
        source: gives the photos.
    """

    def __init__(self, photos: Photos, source: Source) -> None:
        self.source, self._photos = source, photos
        self._local = threading.local()

    def fill(self, plan: Plan, rows: np.ndarray, span: range, until: End = End.all) -> dict[int, str]:
        """Pixels of some samples into `rows`, uint8 (n, S, S, 3); why rows failed."""
        failed: dict[int, str] = {}
        if until is End.read and self.source.is_decoded:
            return failed
        for row in span:
            (photo,) = self.source.fetch(plan.indices[row : row + 1])
            if isinstance(photo, str):
                failed[row] = photo
                continue
            try:
                if photo.ndim == 1 and until > End.read:
                    photo = self._decode(plan, row, photo)
            except (OSError, DecodeError) as error:
                failed[row] = str(error)
                continue
            if until > End.decode:
                augment(photo, plan, row, rows[row], until)
            if until is End.all and plan.finish is not None:
                finish_square(rows[row], plan.finish, row)
        return failed

    def _decode(self, plan: Plan, row: int, encoded: np.ndarray) -> np.ndarray:
        """The photo in the size that the plan expects."""
        index = int(plan.indices[row])
        width, height = (int(side[0]) for side in self._photos.sizes(plan.indices[row : row + 1]))
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < width * height * 3:
            buffer = self._local.buffer = np.empty(width * height * 3, np.uint8)
        photo = self._photos.decode(index, encoded, buffer, int(plan.shrink[row]))
        return resize(photo, int(plan.photo_height[row]), int(plan.photo_width[row]))


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize with antialias, as torchvision does on uint8 tensors.

    uint8 (h, w, 3) to uint8 (height, width, 3). Pillow's result differs by one level where the two round
    differently; the tensor path is the faster one.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    out = F.interpolate(photo, size=(height, width), mode="bilinear", antialias=True)
    return out[0].permute(1, 2, 0).contiguous().numpy()


def augment(photo: np.ndarray, plan: Plan, row: int, out: np.ndarray, until: End = End.all) -> None:
    """Plan of one sample: uint8 (h, w, 3) photo into `out`, uint8 (S, S, 3), in torchvision's order.

    With an earlier end `out` is left alone.
    """
    top, left = int(plan.top[row]), int(plan.left[row])
    window = photo[top : top + int(plan.height[row]), left : left + int(plan.width[row])]
    pixels = resize(window, int(plan.out_height[row]), int(plan.out_width[row]))
    pixels = _cut(pixels, int(plan.from_row[row]), int(plan.from_column[row]), plan.size)
    if until is End.resize:
        return
    if plan.flip[row]:
        pixels = pixels[:, ::-1]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if plan.angle[row]:
        image = image.rotate(float(plan.angle[row]), Image.Resampling.NEAREST, fillcolor=(0, 0, 0))
    if until is End.turn:
        return
    steps = [(float(plan.brightness[row]), False), (float(plan.contrast[row]), True)]
    for factor, towards_mean in reversed(steps) if plan.contrast_first[row] else steps:
        if factor != 1:
            image = image.point(_blend_table(factor, _grey_mean(image) if towards_mean else 0) * 3)
    if until is End.all:
        _paste(np.asarray(image), int(plan.shift_x[row]), int(plan.shift_y[row]), out)


def _grey_mean(image: Image.Image) -> int:
    """Mean of the grey image, rounded to a whole level as Pillow's contrast does."""
    return int(np.asarray(image.convert("L")).mean() + 0.5)


def _blend_table(factor: float, level: int) -> list[int]:
    """256 values of clamp(level + factor * (x - level)), truncated: Pillow's blend, in float32 as there."""
    x = np.arange(256, dtype=np.float32)
    blended = np.float32(level) + np.float32(factor) * (x - np.float32(level))
    table: list[int] = np.clip(blended, 0, 255).astype(np.uint8).tolist()
    return table


def _cut(pixels: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """The square of `size` pixels whose corner is at (row, column) of (h, w, 3).

    crop_pct can be 1 and rounding can leave a margin of a pixel: what lies outside is black.
    """
    if (row, column, *pixels.shape[:2]) == (0, 0, size, size):
        return pixels
    square = np.empty((size, size, 3), np.uint8)
    _paste(pixels, -column, -row, square)
    return square


def _paste(pixels: np.ndarray, x: int, y: int, out: np.ndarray) -> None:
    """Copy (h, w, 3) into (S, S, 3) with its corner at column x, row y; the rest is 0."""
    side, (height, width) = len(out), pixels.shape[:2]
    top, bottom, left, right = max(y, 0), min(y + height, side), max(x, 0), min(x + width, side)
    if (top, bottom, left, right) != (0, side, 0, side):
        out[:] = 0
    if top < bottom and left < right:
        out[top:bottom, left:right] = pixels[top - y : bottom - y, left - x : right - x]
