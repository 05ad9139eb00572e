"""Markers amid the entropy-coded data of a JPEG (ITU-T T.81, B.1.1.5)."""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.vectors import address_of, load_big_endian

END = 0xD9
"""Ends a picture, and all that decoders read of a file."""
_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)


@kernel
def two(data, at):
    """Whole number of two bytes."""
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@kernel
def has_marker(word):
    """Whether one of the eight bytes of a uint64 is FF, with which every marker begins."""
    return (~word - _ONES) & word & _TOPS != 0


@kernel
def data_end(data, at, interval, restart):
    """Where the first marker stands behind entropy-coded data at `at`; -1: there is none.

    Restart markers do not count while each has its number, `restart` the first; there are none without an
    `interval`.
    """
    end = len(data)
    while True:
        while at + 8 <= end and not has_marker(load_big_endian(address_of(data) + at)):
            at += 8
        while at < end and data[at] != 0xFF:
            at += 1
        if at + 2 > end:
            return -1
        following = data[at + 1]
        if interval and following == 0xD0 + restart:
            restart = (restart + 1) & 7
        elif following != 0:
            return at
        at += 2
