"""How this package's functions are compiled, and where their machine code is kept."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit

from flowerfast.kernels.machine_code import SUFFIX, MachineCode
from flowerfast.machine import folder_problem, logger, user_cache_dir


def _sources() -> str:
    """Digest of this package's sources: numba sees a change of one file only where the function itself is."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


_numba: Any = config  # its settings are made when it is imported: type checkers do not see them


def _folder() -> Path:
    """Where machine code is kept: $NUMBA_CACHE_DIR, else the user's cache folder, if it can be written."""
    named = _numba.CACHE_DIR
    problem = folder_problem(Path(named)) if named else None
    if problem is not None:
        logger.warning("flowerfast: NUMBA_CACHE_DIR: %s; the cache folder is used instead", problem)
    return Path(named if named and problem is None else user_cache_dir() / "kernels") / _sources()


_CODE = _folder()
_KEEP = folder_problem(_CODE) is None


def is_compiled() -> bool:
    """Whether an earlier run has left machine code of these very functions."""
    return any(_CODE.glob(f"*/chain.run-*{SUFFIX}"))  # numba makes the folders when it is imported


def part(function: Callable[..., Any]) -> Any:
    """A piece of one kernel, compiled with it alone: every level of calls costs seconds to compile."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called (seconds, then kept in the user's cache folder).

    It does not hold the interpreter lock, checks no bounds and divides as numpy does, without a test for 0.
    """
    before, _numba.CACHE_DIR = _numba.CACHE_DIR, str(_CODE)
    try:
        compiled: Any = njit(nogil=True, cache=_KEEP, error_model="numpy")(function)
    finally:
        _numba.CACHE_DIR = before
    if _KEEP:
        kept = compiled._cache
        kept._cache_file = MachineCode(Path(kept.cache_path), kept._impl.filename_base)
        kept._guard_against_spurious_io_errors = _going_on  # numba's own has none but for Windows
    return compiled


@contextmanager
def _going_on() -> Iterator[None]:
    """What cannot be read is compiled, and what cannot be kept (a full disk) is not: neither ends a run."""
    try:
        yield
    except OSError as error:
        _say_not_kept(error.strerror or str(error))


@cache
def _say_not_kept(why: str) -> None:
    logger.warning("flowerfast: %s: compiled loops are neither read nor kept (%s)", _CODE, why)
