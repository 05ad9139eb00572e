"""What the DALI graph is fed: a plan as arrays, pieces of the photo cache, and a file format for pixels."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

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


def arguments(plan: Plan) -> dict[str, np.ndarray]:
    """The plan as the graph's inputs: arrays whose first axis is the sample."""
    first = plan.contrast_first
    wide = np.where(plan.flip, -plan.out_width, plan.out_width)
    corner = plan.from_row - plan.shift_y, plan.from_column - plan.shift_x
    return {
        "start": _pairs(plan.top, plan.left, np.int32),
        "window": _pairs(plan.height, plan.width, np.int32),
        "size": _pairs(plan.out_height, wide, np.float32),
        "matrix": rotation(plan.angle, plan.size),
        "factor_1": np.where(first, plan.contrast, plan.brightness).astype(np.float32),
        "factor_2": np.where(first, plan.brightness, plan.contrast).astype(np.float32),
        "towards_mean_1": first.astype(np.float32),
        "towards_mean_2": (~first).astype(np.float32),
        "corner": _pairs(*corner, np.int32),
    }


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
