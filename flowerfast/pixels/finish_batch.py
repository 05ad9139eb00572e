"""What is done to finished squares, for whole batches in torch's operations, on any device.

For each step the pictures that it is for are taken out, changed and put back: a few launches each, whatever
the size of the batch. All numbers go to the device in one copy, and the host waits for nothing. Arithmetic
that decides a level is in whole numbers, or in single steps of floating point in the reference's order.
On CUDA torch multiplies by the reciprocal where a number is divided by: so divisors are tensors here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from flowerfast.kernels.operations import Operation
from flowerfast.kernels.ready import loops_usable
from flowerfast.pixels.finish import amounts, blur_taps, finish_rows, hue_shift, paths
from flowerfast.plans.finish import Finish

_ALIGNED = 16  # bytes, for any dtype
_LEVELS = np.arange(256)
# Which of the largest level, the falling one, the smallest and the rising one is red, green, blue, by sector.
_CHOICES = np.array([[0, 3, 2], [1, 0, 2], [2, 0, 3], [2, 1, 0], [3, 2, 0], [0, 2, 1]], np.int64)

_Task = tuple[Callable[..., None], dict[str, np.ndarray]]


def finish_images(images: torch.Tensor, finish: Finish | None) -> torch.Tensor:
    """The batch, uint8 (n, S, S, 3), finished in place where it lies: in loops on the host, else by torch."""
    if finish is not None and len(images):
        if images.device.type == "cpu" and loops_usable():
            finish_rows(images.numpy(), finish, np.arange(len(images)))
        else:
            finish_batch(images, finish)
    return images


def finish_batch(images: torch.Tensor, finish: Finish) -> None:
    """Finish a batch, uint8 (n, S, S, 3), in place; on CUDA queued on the current stream."""
    tasks = _tasks(finish, images.shape[1])
    named = {(i, name): array for i, (_, arrays) in enumerate(tasks) for name, array in arrays.items()}
    sent = _send(named, images.device)
    for i, (function, arrays) in enumerate(tasks):
        function(images, **{name: sent[i, name] for name in arrays})


def _tasks(finish: Finish, side: int) -> list[_Task]:
    """The steps that there is a picture for, in order, each with the rows and numbers of its pictures."""
    tasks: list[_Task] = []

    def add(function: Callable[..., None], wanted: np.ndarray, **columns: np.ndarray) -> None:
        rows = np.flatnonzero(wanted)
        if len(rows):
            tasks.append((function, {"rows": rows} | {name: of[rows] for name, of in columns.items()}))

    add(_flip, finish.vflip)
    add(_saturate, finish.saturation != 1, factor=finish.saturation)
    shift = hue_shift(finish)
    add(_turn_hue, shift >= 0, shift=shift)
    add(_drop_colours, finish.grey)
    amount, path = amounts(finish), paths(finish, side)
    for k, operation in enumerate(finish.operation.T):
        factor = amount[:, k].astype(np.float32)
        add(_warp, (operation > 0) & (operation <= Operation.rotate), path=path[:, k])
        add(_saturate, operation == Operation.colour, factor=factor)
        add(_sharpen, operation == Operation.sharpness, factor=factor)
        add(_contrast, operation == Operation.contrast, factor=factor)
        add(_stretch, operation == Operation.auto_contrast)
        add(_equalize, operation == Operation.equalize)
        known = [Operation.brightness, Operation.posterize, Operation.solarize]
        add(_look_up, np.isin(operation, known), tables=_known_tables(operation, amount[:, k]))
    add(_blur, finish.sigma > 0, taps=blur_taps(finish.sigma, side).astype(np.float64))
    top, left = finish.erase_top, finish.erase_left
    bottom, right = top + finish.erase_height, left + finish.erase_width
    add(_erase, bottom > top, box=np.stack([top, bottom, left, right], axis=1))
    return tasks


def _known_tables(operation: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """What becomes of each level where that hangs on no pixel: uint8 (n, 1, 256)."""
    one = amount[:, None]
    brighter = np.clip(one.astype(np.float32) * _LEVELS.astype(np.float32), 0, 255).astype(np.uint8)
    dropped = 8 - np.clip(one, 0, 8).astype(np.int64)
    kept = _LEVELS >> dropped << dropped
    table = np.where(operation[:, None] == Operation.posterize, kept, brighter)
    inverted = np.where(one > _LEVELS, _LEVELS, 255 - _LEVELS)
    table = np.where(operation[:, None] == Operation.solarize, inverted, table)
    return table.astype(np.uint8)[:, None]


def _send(arrays: Mapping[Any, np.ndarray], device: torch.device) -> dict[Any, torch.Tensor]:
    """Arrays on their way to the device, in one copy from pinned memory."""
    starts = np.cumsum([0, *(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays.values())]).tolist()
    held = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, array in zip(starts, arrays.values(), strict=False):
        held[start : start + array.nbytes].numpy()[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    there = held.to(device, non_blocking=True)
    sent = {}
    for start, (name, array) in zip(starts, arrays.items(), strict=False):
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        sent[name] = there[start : start + array.nbytes].view(kind).reshape(array.shape)
    return sent


def _grey(pixels: torch.Tensor) -> torch.Tensor:
    """Grey levels, int32 (..., 1), of int32 (..., 3)."""
    red, green, blue = pixels.split(1, dim=-1)
    weighted: torch.Tensor = red * 19595 + green * 38470 + blue * 7471 + 32768
    return weighted >> 16


def _blend(base: torch.Tensor, factor: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Pillow's blend from `base` to `level` and beyond, both float32; `factor` is float32 (m,)."""
    factor = factor.reshape(-1, *[1] * (level.ndim - 1))
    return (base + factor * (level - base)).clamp(0, 255).to(torch.uint8)


def _flip(images: torch.Tensor, rows: torch.Tensor) -> None:
    images[rows] = images[rows].flip(1)


def _saturate(images: torch.Tensor, rows: torch.Tensor, factor: torch.Tensor) -> None:
    chosen = images[rows]
    images[rows] = _blend(_grey(chosen.int()).float(), factor, chosen.float())


def _drop_colours(images: torch.Tensor, rows: torch.Tensor) -> None:
    images[rows] = _grey(images[rows].int()).to(torch.uint8).expand(-1, -1, -1, 3)


def _turn_hue(images: torch.Tensor, rows: torch.Tensor, shift: torch.Tensor) -> None:
    """By way of Pillow's HSV, step by step as `kernels.finish_levels.turn_hue`."""

    def number(value: float) -> torch.Tensor:
        return torch.full((), value, dtype=torch.float64, device=images.device)

    pixels = images[rows].int()
    red, green, _ = pixels.unbind(-1)
    most, least = pixels.amax(-1), pixels.amin(-1)
    spread = (most - least).clamp(min=1).float()
    away = (most[..., None] - pixels).float() / spread[..., None]
    to_red, to_green, to_blue = away.double().unbind(-1)
    by_green, by_blue = 2.0 + to_red - to_blue, 4.0 + to_green - to_red
    hue = torch.where(red == most, to_blue - to_green, torch.where(green == most, by_green, by_blue)).float()
    hue = torch.fmod(hue.double() / number(6) + 1.0, 1.0).float()
    hue = torch.where(most == least, 0, (hue.double() * 255.0).long())
    parts = ((most - least).float() / most.clamp(min=1).float()).double()
    saturation = (parts * 255.0).long()
    place = ((hue + shift[:, None, None]) & 255).double() * 6.0 / number(255)
    sector = place.floor()
    rest, share, value = (place - sector).float(), (saturation.double() / number(255)).float(), most.double()
    low = value * (1.0 - share.double())
    falling = value * (1.0 - (share * rest).double())
    rising = value * (1.0 - share.double() * (1.0 - rest.double()))
    levels = torch.stack([value, falling, low, rising], dim=-1).add(0.5).to(torch.uint8)
    choices = _send({"choices": _CHOICES}, images.device)["choices"]
    turned = levels.gather(-1, choices[sector.long() % 6])
    images[rows] = torch.where(saturation[..., None] == 0, most[..., None].to(torch.uint8), turned)


def _warp(images: torch.Tensor, rows: torch.Tensor, path: torch.Tensor) -> None:
    side = images.shape[1]
    place = torch.arange(side, device=images.device)
    down, across = place[:, None], place
    x, y, right_x, right_y, down_x, down_y = (one[:, None, None] for one in path.unbind(-1))
    at_x = (x + right_x * across + down_x * down) >> 16
    at_y = (y + right_y * across + down_y * down) >> 16
    inside = (at_x >= 0) & (at_x < side) & (at_y >= 0) & (at_y < side)
    source = (at_y.clamp(0, side - 1) * side + at_x.clamp(0, side - 1)).reshape(len(rows), -1, 1)
    moved = images[rows].reshape(len(rows), -1, 3).gather(1, source.expand(-1, -1, 3))
    images[rows] = moved.reshape(-1, side, side, 3) * inside[..., None]


def _sharpen(images: torch.Tensor, rows: torch.Tensor, factor: torch.Tensor) -> None:
    chosen = images[rows]
    pixels = chosen.int()
    inner = pixels[:, 1:-1, 1:-1]
    lines = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:] + 4 * inner
    smooth = torch.div(2 * total + 13, 26, rounding_mode="floor")
    chosen[:, 1:-1, 1:-1] = _blend(smooth.float(), factor, inner.float())
    images[rows] = chosen


def _look_up(images: torch.Tensor, rows: torch.Tensor, tables: torch.Tensor) -> None:
    """`tables`, uint8 (m, 1 or 3, 256): what becomes of each level, in all channels or in each."""
    places = _places(images[rows])
    images[rows] = tables.expand(-1, 3, -1).reshape(-1)[places]


def _places(pixels: torch.Tensor) -> torch.Tensor:
    """Where the level of each pixel stands in a flat table (m, 3, 256): int64 (m, S, S, 3)."""
    start = 256 * torch.arange(3 * len(pixels), device=pixels.device)
    return pixels.long() + start.reshape(-1, 1, 1, 3)


def _contrast(images: torch.Tensor, rows: torch.Tensor, factor: torch.Tensor) -> None:
    grey = _grey(images[rows].int()).flatten(1)
    count = grey.shape[1]
    mean = torch.div(2 * grey.sum(1) + count, 2 * count, rounding_mode="floor")
    levels = torch.arange(256, device=images.device, dtype=torch.float32)
    _look_up(images, rows, _blend(mean.float()[:, None], factor, levels.expand(len(rows), -1))[:, None])


def _stretch(images: torch.Tensor, rows: torch.Tensor) -> None:
    """Pillow's autocontrast."""
    pixels = images[rows].flatten(1, 2)
    low, high = pixels.amin(1).double()[..., None], pixels.amax(1).double()[..., None]
    scale = torch.full_like(low, 255.0) / (high - low).clamp(min=1)
    levels = torch.arange(256, device=images.device, dtype=torch.float64)
    stretched = (levels * scale + -low * scale).clamp(0, 255)
    _look_up(images, rows, torch.where(high > low, stretched, levels).to(torch.uint8))


def _equalize(images: torch.Tensor, rows: torch.Tensor) -> None:
    places = _places(images[rows]).flatten()
    counts = torch.zeros(len(rows) * 3 * 256, dtype=torch.int64, device=images.device)
    counts = counts.scatter_add_(0, places, torch.ones_like(places)).reshape(-1, 3, 256)
    levels = torch.arange(256, device=images.device)
    last = counts.gather(-1, torch.where(counts > 0, levels, -1).argmax(-1, keepdim=True))
    total = counts.sum(-1, keepdim=True)
    step = torch.div(total - last, 255, rounding_mode="floor")
    reached = torch.div(step, 2, rounding_mode="floor") + counts.cumsum(-1) - counts
    equal = torch.div(reached, step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    _look_up(images, rows, torch.where(step > 0, equal, levels).to(torch.uint8))


def _blur(images: torch.Tensor, rows: torch.Tensor, taps: torch.Tensor) -> None:
    """In float64, which holds sums of these whole numbers exactly, in whatever order they are made."""
    count, reach, side = 3 * len(rows), taps.shape[1] // 2, images.shape[1]
    weights = taps.repeat_interleave(3, dim=0)
    summed = images[rows].permute(0, 3, 1, 2).reshape(1, count, side, side).double()
    for shape, pad, parts in (((1, -1), (reach, reach, 0, 0), 2**7), ((-1, 1), (0, 0, reach, reach), 2**21)):
        padded = F.pad(summed, pad, mode="reflect")
        summed = F.conv2d(padded, weights.reshape(count, 1, *shape), groups=count).round()
        summed = ((summed + parts // 2) / parts).floor()
    images[rows] = summed.reshape(-1, 3, side, side).permute(0, 2, 3, 1).to(torch.uint8)


def _erase(images: torch.Tensor, rows: torch.Tensor, box: torch.Tensor) -> None:
    """Rows and columns of `box`, int64 (m, 4): first and end, first and end."""
    place = torch.arange(images.shape[1], device=images.device)
    top, bottom, left, right = (one[:, None] for one in box.unbind(-1))
    inside = ((place >= top) & (place < bottom))[:, :, None] & ((place >= left) & (place < right))[:, None]
    images[rows] = images[rows].masked_fill(inside[..., None], 0)
