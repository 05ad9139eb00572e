"""Markers amid the entropy-coded data of a JPEG (ITU-T T.81, B.1.1.5)."""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.vectors import address_of, count_trailing_zeros, find_ones

END = 0xD9
"""Ends a picture, and all that decoders read of a file."""


@kernel
def two(data, at):
    """Whole number of two bytes."""
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@kernel
def next_marker(data, at):
    """Where the first byte FF from `at` on stands that no 00 follows; -1: there is none."""
    begin, end = address_of(data), len(data)
    while at + 32 < end:
        ones = find_ones(begin + at)
        if ones == 0:
            at += 32
            continue
        at += np.int64(count_trailing_zeros(ones))
        if data[at + 1] != 0:
            return at
        at += 2
    while at + 1 < end:
        if data[at] == 0xFF and data[at + 1] != 0:
            return at
        at += 1
    return -1


@kernel
def pass_restarts(data, at, restart, count):
    """Where the data begin behind `count` more restart markers; -1: not all are there, each with its number.

    `restart` is the number of the first.
    """
    for _ in range(count):
        at = next_marker(data, at)
        if at < 0 or data[at + 1] != 0xD0 + restart:
            return -1
        restart = (restart + 1) & 7
        at += 2
    return at


@kernel
def data_end(data, at, interval, restart):
    """Where the first marker stands behind entropy-coded data at `at`; -1: there is none.

    Restart markers do not count while each has its number, `restart` the first; there are none without an
    `interval`.
    """
    while True:
        at = next_marker(data, at)
        if at < 0 or interval == 0 or data[at + 1] != 0xD0 + restart:
            return at
        restart = (restart + 1) & 7
        at += 2
