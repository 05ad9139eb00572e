"""Compiled loops on plain arrays: by numba, without the interpreter lock, and by Triton for the GPU.

Importing this package alone imports neither.
"""

from enum import IntEnum
from functools import cache
from importlib import import_module

from flowerfast.errors import one_line


@cache
def numba_problem() -> str | None:
    """Why numba cannot be used, in a line that says what to do; None: it can. Imports it: half a second."""
    try:
        import_module("numba")
    except ModuleNotFoundError:
        return "numba is not installed; pip install numba"
    except ImportError as error:  # such as of a numpy that is newer than it knows
        return f"numba cannot be loaded ({one_line(error)}); pip install -U numba"
    return None


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
