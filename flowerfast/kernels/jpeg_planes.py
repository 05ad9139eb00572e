"""A JPEG to planes of samples: baseline or progressive, as its header says."""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_blocks import coefficient_count
from flowerfast.kernels.jpeg_codes import stream_size
from flowerfast.kernels.jpeg_progressive import mask_count, read_progressive
from flowerfast.kernels.jpeg_scan import read_baseline

BEYOND = 32
"""Bytes behind the planes that may be read by who makes rows of them."""


class Room(NamedTuple):
    """Memory for one file at a time.

    Attributes:
        coefficients: int16, of a row of MCUs of the region; of a progressive file of all its rows.
        planes: uint8, samples of luma, then of both chroma planes, see `Region`, and BEYOND bytes. None: all
            that is asked for are the coefficients, of all rows.
        stream: uint8, see `jpeg_codes.plain_bytes`.
        masks: uint64, of a progressive file, see `jpeg_progressive`.
    """

    coefficients: np.ndarray
    planes: np.ndarray
    stream: np.ndarray
    masks: np.ndarray


@kernel
def make_room(data, frame, region):
    """Room for this part of this file and for no more."""
    rows = region.bottom - region.top if frame.progressive else 1
    return Room(
        np.empty(coefficient_count(frame, region) * rows, np.int16),
        np.empty(region.size + BEYOND, np.uint8),
        np.empty(stream_size(len(data)), np.uint8),
        np.empty(mask_count(frame, region) if frame.progressive else 0, np.uint64),
    )


@kernel
def read_planes(data, tables, region, room):
    """Samples of the region into room.planes. False: the data are not in order, take another decoder.

    `data` is a file, uint8 (bytes,), of which `read_header` has read the header; `room` at least that of
    `make_room`.
    """
    coefficients, planes, stream = room.coefficients, room.planes, room.stream
    if tables.frame[0].progressive:
        return read_progressive(data, tables, region, coefficients, planes, stream, room.masks)
    return read_baseline(data, tables, region, coefficients, planes, stream)
