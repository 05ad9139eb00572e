"""What the DALI graph is fed: a plan as arrays, pieces of the photo cache, and a file format for pixels."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from flowerfast.plans.geometry import stored
from flowerfast.plans.plan import Plan, still_plan


class DeviceArray:
    """A piece of a flat CUDA tensor, for libraries that read `__cuda_array_interface__`.

    A torch view has that too, but works it out anew each time it is asked, three times per photo.

    Args:
        store: uint8 (bytes,), lives as long as this piece.
        start: where the piece begins in it.
        shape: of the piece, which is contiguous.
    """

    def __init__(self, store: torch.Tensor, start: int, shape: tuple[int, ...]) -> None:
        self.shape, self.store = shape, store
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "|u1",
            "data": (store.data_ptr() + start, False),
            "version": 2,
        }


Piece = np.ndarray | DeviceArray
"""What a graph takes per photo: its file's bytes, uint8 (n,), or pixels, uint8 (h, w, 3), where it runs."""


def arguments(plan: Plan, orientation: np.ndarray) -> dict[str, np.ndarray]:
    """The plan as the graph's inputs: arrays whose first axis is the sample.

    Photos come as they are stored; `orientation`, int64 (n,), says how they are to be turned. Mirroring is
    the resize's, by a negative size, and swapping the axes the rotation's: neither costs anything. In a plan
    that does not augment the corner comes before the rotation, so its axes are swapped too.
    """
    first, swapped = plan.contrast_first, orientation > 4
    upright = plan.top, plan.left, plan.height, plan.width
    top, left, height, width = stored(upright, (plan.photo_width, plan.photo_height), orientation)
    high = np.where((orientation - 1) & 2, -plan.out_height, plan.out_height)
    wide = np.where(((orientation & 2) != 0) ^ plan.flip, -plan.out_width, plan.out_width)
    matrix = rotation(plan.angle, plan.size)
    matrix[swapped] = matrix[swapped, ::-1]
    from_row, from_column = _swap(plan.from_row, plan.from_column, swapped)
    return {
        "start": _pairs(top, left, np.int32),
        "window": _pairs(height, width, np.int32),
        "size": _pairs(*_swap(high, wide, swapped), np.float32),
        "matrix": matrix,
        "factor_1": np.where(first, plan.contrast, plan.brightness).astype(np.float32),
        "factor_2": np.where(first, plan.brightness, plan.contrast).astype(np.float32),
        "towards_mean_1": first.astype(np.float32),
        "towards_mean_2": (~first).astype(np.float32),
        "corner": _pairs(from_row - plan.shift_y, from_column - plan.shift_x, np.int32),
    }


def _swap(one: np.ndarray, other: np.ndarray, swapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(swapped, other, one), np.where(swapped, one, other)


def rotation(angle: np.ndarray, side: int) -> np.ndarray:
    """Maps from output to input of counter-clockwise rotations about the centre: float32 (n, 2, 3).

    `angle` is in degrees, (n,). DALI's origin is the corner of the first pixel: the centre is (side / 2,
    side / 2).
    """
    radians = np.deg2rad(angle.astype(np.float64))
    cos, sin, centre = np.cos(radians), np.sin(radians), side / 2
    rows = [
        [cos, -sin, centre * (1 - cos + sin)],
        [sin, cos, centre * (1 - sin - cos)],
    ]
    return np.ascontiguousarray(np.array(rows).transpose(2, 0, 1), np.float32)


def _pairs(first: np.ndarray, second: np.ndarray, dtype: Any) -> np.ndarray:
    return np.stack([first, second], axis=1).astype(dtype)


def tiny_photo(device: torch.device | None, pixels: bool) -> Piece:
    """A black photo of 8 x 8, as a file's bytes or as pixels; on a CUDA device, or on the CPU (None)."""
    if not pixels:
        return as_ppm(np.zeros((8, 8, 3), np.uint8))
    if device is None:
        return np.zeros((8, 8, 3), np.uint8)
    return DeviceArray(torch.zeros(8 * 8 * 3, dtype=torch.uint8, device=device), 0, (8, 8, 3))


def tiny_plan(augmented: bool, size: int) -> Plan:
    """A plan for one such photo."""
    side = np.full(1, 8)
    return replace(still_plan(np.zeros(1), (side, side), size), augmented=augmented)


def as_ppm(pixels: np.ndarray) -> np.ndarray:
    """Pixels in the plainest file that DALI decodes: uint8 (h, w, 3) to uint8 (bytes,), lossless."""
    height, width = pixels.shape[:2]
    header = np.frombuffer(f"P6\n{width} {height}\n255\n".encode(), np.uint8)
    return np.concatenate([header, pixels.reshape(-1)])
