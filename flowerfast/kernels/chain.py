"""Photos and plans to pixels, several samples in one call that does not hold the interpreter lock.

The steps and their order are the reference's, and so are the pixels: decode, crop and resize, flip, rotate,
brightness and contrast, shift. A photo goes through row by row: of a JPEG no more is made than the rows and
columns that the resize asks for, and no whole photo is ever laid out in memory.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np
from numba import carray

from flowerfast.kernels import End
from flowerfast.kernels.colour import jitter_table, rotate, shift_into
from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.jpeg_blocks import region_of
from flowerfast.kernels.jpeg_codes import stream_size
from flowerfast.kernels.jpeg_header import read_header
from flowerfast.kernels.jpeg_planes import BEYOND, Room, read_planes
from flowerfast.kernels.jpeg_rows import BAND, rgb_row, turned_rows
from flowerfast.kernels.jpeg_tables import Tables, make_tables
from flowerfast.kernels.jpeg_transform import LANES
from flowerfast.kernels.resize import BLOCK, OVER, make_taps, resize_columns, resize_row, room_for, widen
from flowerfast.kernels.vectors import address_of, pointer_to

# Compiled loops compare plain numbers.
_DECODE, _RESIZE, _TURN, _JITTER = map(int, (End.decode, End.resize, End.turn, End.jitter))


Steps = namedtuple(
    "Steps",
    "shrink photo_height photo_width top left height width out_height out_width from_row from_column "
    "flip angle brightness contrast contrast_first shift_x shift_y",
)
"""The columns of a `Plan` that the loops read, see there; counts and positions of pixels are int64."""


class Scratch(NamedTuple):
    """Memory for one sample at a time; one for each thread.

    Attributes:
        tables: of the JPEG.
        room: of the JPEG.
        pixels: uint32, a row of the photo.
        band, window: uint32, some rows and a whole window of a photo that is to be turned.
        chroma: uint8 (3, ...), see `jpeg_rows.rgb_row`.
        rows: uint8, the rows after they were resized.
        starts, weights, wide: int64, int16, int32: taps of both axes, see `resize`.
        image, turned: uint32 (S, S).
        lookup: uint32 (3, 256).
    """

    tables: Tables
    room: Room
    pixels: np.ndarray
    band: np.ndarray
    window: np.ndarray
    chroma: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    wide: np.ndarray
    image: np.ndarray
    turned: np.ndarray
    lookup: np.ndarray


class Need(NamedTuple):
    """What samples ask of scratch, of each the most: follows from their windows, not from whole photos.

    Attributes:
        width: of the part of a photo that is decoded, as it is stored, in pixels.
        area: samples of a plane of that part.
        coded: its coefficients, those of a progressive photo all at once.
        masks: blocks of a whole photo.
        turned: its pixels, if they are to be turned upright.
        high: its rows when they are upright.
        taps: neighbours that one output pixel is mixed from.
        side: of the squares that are made.
        bytes: of a file.
    """

    width: int
    area: int
    coded: int
    masks: int
    turned: int
    high: int
    taps: int
    side: int
    bytes: int


_STEP = 8 * LANES
_MORE = 64
"""Pixels along each axis by which what is decoded may exceed what is asked for: MCUs are whole, and chroma is
mixed with its neighbours."""


def need_of(steps: Steps, length: np.ndarray, orientation: np.ndarray, side: int) -> Need:
    """What samples need: `steps` are their columns alone, `length` and `orientation` as for `run`.

    No more than the part that the output takes of each window is decoded: of a photo 60,000 pixels long whose
    central square is wanted, that square.
    """
    (wide, taps_x), (high, taps_y) = (
        _part(length, out, side)
        for length, out in ((steps.width, steps.out_width), (steps.height, steps.out_height))
    )
    swapped = orientation > 4
    width, height = np.where(swapped, high, wide) + _MORE, np.where(swapped, wide, high) + _MORE
    columns = {
        "width": width,
        "area": (-(-width // _STEP) * _STEP) * height,
        "coded": 3 * (-(-width * steps.shrink // _STEP) * _STEP) * (height * steps.shrink + _STEP),
        "masks": 3
        * (steps.photo_width * steps.shrink // 8 + 3)
        * (steps.photo_height * steps.shrink // 8 + 3),
        "turned": np.where(orientation > 1, wide * high, 0),
        "high": high,
        "taps": np.maximum(taps_x, taps_y),
        "bytes": np.maximum(length, 0),
    }
    return Need(**{name: int(column.max()) for name, column in columns.items()}, side=side)


def _part(length: np.ndarray, out: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, taps) that `side` pixels need at most of an axis of `length` pixels resized to `out`."""
    scale = length / out
    wide = np.maximum(scale, 1)
    pixels = np.ceil(np.minimum(side, out) * scale + 2 * wide).astype(np.int64) + 3
    taps = 2 * np.ceil(wide).astype(np.int64) + 1
    return np.minimum(pixels, length), np.minimum(taps, length)


def make_scratch(need: Need) -> Scratch:
    """Scratch for what is needed. What no sample touches takes address space alone."""
    across, wide = room_for(need.side, need.taps)
    return Scratch(
        make_tables(),
        Room(
            np.empty(need.coded, np.int16),
            np.empty(3 * need.area + _STEP + BEYOND, np.uint8),
            np.empty(stream_size(need.bytes), np.uint8),
            np.empty(need.masks, np.uint64),
        ),
        np.empty(need.width, np.uint32),
        np.empty((BAND, need.width), np.uint32),
        np.empty(need.turned + OVER, np.uint32),
        np.empty((3, need.width + BEYOND), np.uint8),
        np.empty((need.high + 1) * across * 4, np.uint8),
        np.empty((3, across + BLOCK), np.int64),
        np.empty((2, across * (need.taps + 1)), np.int16),
        np.empty(wide, np.int32),
        np.empty((need.side, need.side), np.uint32),
        np.empty((need.side, need.side), np.uint32),
        np.empty((3, 256), np.uint32),
    )


@kernel
def run(address, length, orientation, which, steps, scratch, out, until):
    """Pixels of the samples `which`, int64 (n,), of a batch.

    Args:
        address: int64 (n,), of a sample's first byte: of a whole JPEG file, or of RGB pixels, three bytes
            each, row after row.
        length: int64 (n,), bytes of the file; -1 for pixels.
        orientation: int64 (n,), by which a file's photo is to be turned, see `photos.orientation`.
        steps, out: of the whole batch; `out` is uint8 (batch, S, S, 3).
        until: an `End`, as a plain number. Before `all` rows of `out` are left alone.

    Returns bool (n,): False for a file that another decoder must take; its row is left alone.
    """
    done = np.empty(len(which), np.bool_)
    for i in range(len(which)):
        data = carray(pointer_to(address[i]), max(length[i], 0))
        done[i] = _resized(data, address[i], length[i], orientation[i], steps, which[i], scratch, until)
        if done[i] and until > _RESIZE:
            _coloured(steps, which[i], scratch, out[which[i]], until)
    return done


@part
def _resized(data, address, length, orientation, steps, n, scratch, until):
    """Crop, resize and flip of sample n into scratch.image; False when the file is not for this decoder."""
    side, size = len(scratch.image), (steps.photo_width[n], steps.photo_height[n], steps.shrink[n])
    x, y = max(steps.from_column[n], 0), max(steps.from_row[n], 0)
    end_x = min(steps.from_column[n] + side, steps.out_width[n])
    end_y = min(steps.from_row[n] + side, steps.out_height[n])
    starts_x, starts_y = scratch.starts[0, : end_x - x], scratch.starts[1, : end_y - y]
    weights_x, weights_y = scratch.weights[0], scratch.weights[1]
    taps_x, bits_x = make_taps(steps.width[n], steps.out_width[n], x, starts_x, weights_x)
    taps_y, bits_y = make_taps(steps.height[n], steps.out_height[n], y, starts_y, weights_y)
    left, top = starts_x[0], starts_y[0]
    width, height = starts_x[-1] + taps_x - left, starts_y[-1] + taps_y - top
    starts_x -= left
    starts_y -= top
    left += steps.left[n]
    top += steps.top[n]
    across = max(-(-len(starts_x) // 4) * 4, BLOCK)
    offsets, wide = scratch.starts[2, : -(-across // BLOCK) * BLOCK], scratch.wide
    encoded = length >= 0
    widen(taps_x, 4 if encoded else 3, steps.flip[n], starts_x, weights_x, offsets, wide)
    rows = scratch.rows[: height * across * 4].reshape(height, across * 4)
    if encoded:
        window, taps = (top, left, height, width), (taps_x, bits_x)
        if not _rows_of_jpeg(data, size, window, orientation, scratch, taps, offsets, rows, until):
            return False
    elif until > _DECODE:
        for row in range(height):
            at = ((top + row) * size[0] + left) * 3
            pixels = address + at
            if (
                at + width * 3 + OVER > size[0] * size[1] * 3
            ):  # what `resize_row` reads behind may be nobody's
                copy = scratch.pixels[:width].view(np.uint8)
                last = carray(pointer_to(pixels), width * 3)
                for i in range(len(last)):  # numba takes seconds to compile an assignment of slices
                    copy[i] = last[i]
                pixels = address_of(copy)
            resize_row(pixels, 3, taps_x, bits_x, offsets, wide, address_of(rows) + row * across * 4)
    if until > _DECODE:
        corner = y - steps.from_row[n], x - steps.from_column[n]
        _columns(rows, taps_y, bits_y, starts_y, scratch, corner)
    return True


@part
def _rows_of_jpeg(data, size, window, orientation, scratch, taps, offsets, rows, until):
    top, left, height, width = window
    tall, wide = size[1], size[0]
    # The window as it lies in the photo as it is stored: what `orientation.turn` does, undone.
    if (orientation - 1) & 2:
        top = tall - top - height
    if orientation & 2:
        left = wide - left - width
    if orientation > 4:
        top, left, height, width, tall, wide = left, top, width, height, wide, tall
    tables = scratch.tables
    if not read_header(data, tables):
        return False
    frame = tables.frame[0]
    region = region_of(frame, size[2], top, left, height, width)
    if region.width != wide or region.height != tall:
        return False  # not the photo that the plan is for
    if size[2] > 1 and (frame.across != frame.down or not frame.usual):
        return False
    if not read_planes(data, tables, region, scratch.room):
        return False
    pixels, pitch = scratch.pixels[:width], 0  # every row in the same place, or in one of its own
    if orientation > 1:
        stored, pixels, pitch = (top, left, height, width), scratch.window, 4 * window[3]
        turned_rows(scratch.room.planes, region, stored, orientation, scratch.chroma, scratch.band, pixels)
    for row in range(window[2]):
        if orientation == 1:
            rgb_row(scratch.room.planes, region, top + row, left, scratch.chroma, pixels)
        if until > _DECODE:
            source, target = address_of(pixels) + row * pitch, address_of(rows) + row * rows.shape[1]
            resize_row(source, 4, taps[0], taps[1], offsets, scratch.wide, target)
    return True


@part
def _columns(rows, taps, bits, starts, scratch, corner):
    """Resized rows into scratch.image, from (row, column) `corner` on; black where they do not reach."""
    image, side = scratch.image, len(scratch.image)
    row, column = corner
    height, across = len(starts), rows.shape[1]
    if row == 0 and column == 0 and height == side and across == 4 * side:
        resize_columns(rows, taps, bits, starts, scratch.weights[1], image.view(np.uint8))
        return
    whole = np.empty((height, across), np.uint8)
    resize_columns(rows, taps, bits, starts, scratch.weights[1], whole)
    image[:] = 0
    wide, pixels = min(side - column, across // 4), whole.view(np.uint32)
    for y in range(height):
        for i in range(wide):
            image[row + y, column + i] = pixels[y, i]


@part
def _coloured(steps, n, scratch, out, until):
    """Rotation, jitter and shift of scratch.image into `out`, uint8 (S, S, 3)."""
    image = scratch.image
    if steps.angle[n] != 0:
        rotate(image, steps.angle[n], scratch.turned)
        image = scratch.turned
    if until > _TURN:
        jitter_table(image, steps.brightness[n], steps.contrast[n], steps.contrast_first[n], scratch.lookup)
    if until > _JITTER:
        shift_into(image, scratch.lookup, steps.shift_x[n], steps.shift_y[n], out)
