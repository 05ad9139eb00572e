"""How this package's functions are compiled, and where their machine code is kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.runtime import rtsys

from flowerfast.kernels.machine_code import MachineCode
from flowerfast.kernels.place import CODE, KEEP
from flowerfast.machine import logger

_numba: Any = config  # its settings are made when it is imported: type checkers do not see them


def part(function: Callable[..., Any]) -> Any:
    """A piece of one kernel, compiled with it alone: every level of calls costs seconds to compile."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called (seconds, then kept in the user's cache folder).

    It does not hold the interpreter lock, checks no bounds and divides as numpy does, without a test for 0.
    """
    before, _numba.CACHE_DIR = _numba.CACHE_DIR, str(CODE)
    try:
        compiled: Any = njit(nogil=True, cache=KEEP, error_model="numpy")(function)
    finally:
        _numba.CACHE_DIR = before
    if KEEP:
        kept = compiled._cache
        kept._cache_file = MachineCode(Path(kept.cache_path), kept._impl.filename_base)
        kept._guard_against_spurious_io_errors = _going_on  # numba's own has none but for Windows
        kept.load_overload = partial(_loaded, kept)
    return compiled


def _loaded(kept: Any, signature: Any, context: Any) -> Any:
    """What is kept of a function for a signature, or None: numba's `Cache.load_overload` without a refresh.

    That would import all that numba can compile, which takes longer than loading. Compiling does it itself.
    """
    rtsys.initialize(context)
    with _going_on():
        return kept._load_overload(signature, context)


@contextmanager
def _going_on() -> Iterator[None]:
    """What cannot be read is compiled, and what cannot be kept (a full disk) is not: neither ends a run."""
    try:
        yield
    except OSError as error:
        _say_not_kept(error.strerror or str(error))


@cache
def _say_not_kept(why: str) -> None:
    logger.warning("flowerfast: %s: compiled loops are neither read nor kept (%s)", CODE, why)
