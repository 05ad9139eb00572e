"""Compiled loops on plain arrays: by numba, without the interpreter lock, and by Triton for the GPU.

Importing this package alone imports neither.
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
