"""How this package's functions are compiled, and where their machine code is kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

from flowerfast.machine import user_cache_dir


def _sources() -> str:
    """Digest of this package's sources: numba sees a change of one file only where the function itself is."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


_numba: Any = config  # its settings are made when it is imported: type checkers do not see them
_CODE = Path(_numba.CACHE_DIR or user_cache_dir() / "kernels") / _sources()  # the former: $NUMBA_CACHE_DIR


def is_compiled() -> bool:
    """Whether an earlier run has left machine code of these very functions."""
    return any(_CODE.glob("*/chain.run-*.nbi"))  # numba makes the folders when it is imported


def part(function: Callable[..., Any]) -> Any:
    """A piece of one kernel, compiled with it alone: every level of calls costs seconds to compile."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called (seconds, then kept in the user's cache folder).

    It does not hold the interpreter lock, checks no bounds and divides as numpy does, without a test for 0.
    """
    before, _numba.CACHE_DIR = _numba.CACHE_DIR, str(_CODE)
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        _numba.CACHE_DIR = before
