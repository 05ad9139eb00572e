"""Plans to pixels where decoded photos lie in the GPU's memory, by the Triton kernels of `kernels.gpu`.

The pixels are those of the reference, bit by bit. A batch takes four launches and one copy of a few numbers
per sample, queued on the current stream; the host waits for nothing. With TRITON_INTERPRET=1 in the
environment before Triton is imported, the same kernels run on tensors of the CPU, very slowly: so they are
tested where there is no GPU.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch

from flowerfast.errors import one_line
from flowerfast.kernels.gpu import COLUMNS
from flowerfast.pixels.reference import augment
from flowerfast.plans.plan import Plan, still_plan

_BLOCK = 512  # bytes or pixels per program: four or so for each of its threads
_TAPS_BLOCK = 256  # output pixels per program
_FIXED = 65536.0
_ALIGNED = 16  # bytes; of addresses that are not, Triton would compile other kernels than the trial's
_OPTIONS = {"enable_fp_fusion": False}  # of the compiler: sums and products are rounded one by one


class Windows(NamedTuple):
    """Where the windows of a plan lie, uint8 RGB, on one device, each int64 (n,).

    Attributes:
        address: of the first pixel of each.
        pitch: bytes from a row to the next.
        step: bytes from a pixel to the next one in its row.
    """

    address: np.ndarray
    pitch: np.ndarray
    step: np.ndarray


@cache
def kernel_problem(device: torch.device, size: int) -> str | None:
    """Why the kernels cannot be used on a device, in one line; None when they give the reference's pixels.

    Compiles them for images of `size` pixels a side (seconds, then kept in Triton's cache folder), and waits
    for the device.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        wrong = _trial(device, size)
    except Exception as error:  # a compiler, a driver, a library: whatever it is, DALI can stand in
        return f"Triton's kernels do not run here ({type(error).__name__}: {one_line(error)})"
    return f"in a trial {wrong} of the kernels' bytes were not the reference's" if wrong else None


def _trial(device: torch.device, size: int) -> int:
    """Bytes that differ from the reference's: an enlarged window, a shrunk one, and one of a single pixel."""
    sides = np.array([[size // 2 + 3, 5 * size // 4 + 5, 9], [size // 3 + 2, 3 * size // 2 + 1, 7]])
    plan = replace(
        still_plan(np.arange(3), (sides[1], sides[0]), size),
        top=np.array([1, 2, 4]),
        left=np.array([2, 0, 3]),
        height=np.array([size // 2, 5 * size // 4, 1]),
        width=np.array([size // 3, 3 * size // 2, 1]),
        flip=np.array([True, False, True]),
        angle=np.array([14.5, -171.25, 0.0], np.float32),
        brightness=np.array([1.17, 0.83, 1.0], np.float32),
        contrast=np.array([0.81, 1.19, 1.1], np.float32),
        contrast_first=np.array([True, False, False]),
        shift_x=np.array([size // 9, -size // 7, 0]),
        shift_y=np.array([-3, 2, 0]),
        augmented=True,
    )
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sides.T]
    expected = np.empty((3, size, size, 3), np.uint8)
    for row, photo in enumerate(photos):
        augment(photo, plan, row, expected[row])
    there = [torch.from_numpy(photo).to(device) for photo in photos]
    found = run_plan(plan, windows_of(plan, np.array([photo.data_ptr() for photo in there])), device)
    return int((found.cpu().numpy() != expected).sum())


def windows_of(plan: Plan, photos: np.ndarray) -> Windows:
    """The plan's windows in photos that begin at the addresses `photos`, int64 (n,)."""
    pitch = 3 * plan.photo_width
    return Windows(photos + plan.top * pitch + plan.left * 3, pitch, np.full_like(pitch, 3))


def stored_windows(plan: Plan, address: np.ndarray, orientation: np.ndarray) -> Windows:
    """The plan's windows, each by itself and as it is stored, seen upright: see `photos.orientation`.

    `address` is that of the first byte of each, `orientation` how it is to be turned, each int64 (n,).
    """
    swapped, upside_down, mirrored = orientation > 4, ((orientation - 1) & 2) != 0, (orientation & 2) != 0
    row = 3 * np.where(swapped, plan.height, plan.width)
    pitch, step = np.where(swapped, 3, row), np.where(swapped, row, 3)
    first = address + np.where(upside_down, (plan.height - 1) * pitch, 0)
    first += np.where(mirrored, (plan.width - 1) * step, 0)
    return Windows(first, np.where(upside_down, -pitch, pitch), np.where(mirrored, -step, step))


def run_plan(plan: Plan, windows: Windows, device: torch.device) -> torch.Tensor:
    """Pixels of a plan: uint8 (n, S, S, 3) on the device, ready in the order of the current stream.

    The photos must stay where they are until the stream has come that far.
    """
    from flowerfast.kernels.gpu import points, resize  # Triton: when used

    count, side = len(plan), plan.size
    images = torch.empty((count, side, side, 3), dtype=torch.uint8, device=device)
    if not count:
        return images
    columns = plan_columns(plan, windows)
    most = int(columns[:, [COLUMNS.index("taps_down"), COLUMNS.index("taps_across")]].max())
    blocks, parts = -(-3 * side * side // _BLOCK), -(-side * side // _BLOCK)
    with _on(device):
        photos, told = _send(windows.address, columns, device)
        integers: dict[str, Any] = {"dtype": torch.int32, "device": device}
        starts, bits = torch.empty((count, 2, side), **integers), torch.empty((count, 2), **integers)
        taps = told, starts, torch.empty((count, 2, most, side), **integers), bits, most
        _launch(resize.make_taps, (count, 2, -(-side // _TAPS_BLOCK)), *taps, SIDE=side, BLOCK=_TAPS_BLOCK)
        _launch(resize.resize, (count, blocks), photos, *taps, images, SIDE=side, BLOCK=_BLOCK)
        if not plan.augmented:
            return images
        sums, out = torch.empty((count, parts), **integers), torch.empty_like(images)
        _launch(points.add_grey, (count, parts), told, images, sums, SIDE=side, BLOCK=_BLOCK)
        room = {"PARTS": parts, "ROOM": 1 << (parts - 1).bit_length()}
        _launch(points.finish, (count, blocks), told, images, sums, out, SIDE=side, BLOCK=_BLOCK, **room)
    return out


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: int) -> None:
    kernel[grid](*arguments, **constants, **_OPTIONS)


def _send(
    address: np.ndarray, columns: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Addresses, int64, and columns, int32, on their way to the device in one copy from pinned memory."""
    size = 8 * len(address)
    start = -(-size // _ALIGNED) * _ALIGNED
    held = torch.empty(start + columns.nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    held[:size].view(torch.int64).numpy()[:] = address
    held[start:].view(torch.int32).numpy()[:] = columns.reshape(-1)
    there = held.to(device, non_blocking=True)
    return there[:size].view(torch.int64), there[start:].view(torch.int32)


def plan_columns(plan: Plan, windows: Windows) -> np.ndarray:
    """What the kernels are told: int32 (n, COLUMNS)."""
    one = np.ones_like(plan.brightness)
    values = {
        "pitch": windows.pitch,
        "step": windows.step,
        "taps_down": _most_taps(plan.height, plan.out_height),
        "taps_across": _most_taps(plan.width, plan.out_width),
        "before": _bits(np.where(plan.contrast_first, one, plan.brightness)),
        "contrast": _bits(plan.contrast),
        "after": _bits(np.where(plan.contrast_first, plan.brightness, one)),
        **_turn(plan.angle, plan.size),
    }
    columns = [values[name] if name in values else getattr(plan, name) for name in COLUMNS]
    return np.stack(columns, axis=1, dtype=np.int32, casting="unsafe")


def _bits(values: np.ndarray) -> np.ndarray:
    bits: np.ndarray = values.astype(np.float32).view(np.int32)
    return bits


def _most_taps(size: np.ndarray, out_size: np.ndarray) -> np.ndarray:
    """Neighbours that one output pixel is mixed from, at most, as `kernels.resize` has it."""
    support = np.ceil(np.maximum(size / out_size, 1.0)).astype(np.int64)
    taps: np.ndarray = np.minimum(2 * support + 1, size)
    return taps


def _turn(angle: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Rotations in 16.16 fixed-point numbers, as Pillow's `rotate` makes them (Image.py, Geometry.c)."""
    turned = -np.radians(angle.astype(np.float64) % 360.0)
    cos, sin, centre = np.cos(turned), np.sin(turned), side / 2.0
    start_x, start_y = centre - cos * centre - sin * centre, centre + sin * centre - cos * centre
    values = {
        "turn_x": start_x + cos * 0.5 + sin * 0.5,
        "turn_y": start_y - sin * 0.5 + cos * 0.5,
        "right_x": cos,
        "right_y": -sin,
        "down_x": sin,
        "down_y": cos,
    }
    return {name: np.floor(value * _FIXED + 0.5) for name, value in values.items()}
