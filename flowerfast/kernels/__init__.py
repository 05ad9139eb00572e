"""Loops compiled by numba that hold no interpreter lock: plain arrays in, plain arrays out.

Importing this package alone does not import numba.
"""

from enum import IntEnum


class End(IntEnum):
    """The step after which an executor stops. Only measurements stop before the last."""

    read = 0
    decode = 1
    resize = 2
    """Crop and resize."""
    turn = 3
    """Flip and rotation."""
    jitter = 4
    """Brightness and contrast."""
    all = 5
    """Shift: the pixels are in their batch."""
