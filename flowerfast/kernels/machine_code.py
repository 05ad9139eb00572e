"""Machine code on the disk: one file per compiled function and signature, checked before anything runs it.

numba's own files have no checksum: what a power loss leaves of them, or a flipped bit, is unpickled and
executed. Its index of them is one file too, which two processes that compile at once take from each other.
"""

import hashlib
import io
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.environment import Environment, _rebuild_env, lookup_environment
from numba.core.serialize import dumps

from flowerfast.files import read_bytes, replacing
from flowerfast.kernels.place import SUFFIX
from flowerfast.machine import logger

_DIGEST = hashlib.sha256().digest_size  # bytes: a file begins with the digest of what follows
_thread = threading.local()


class Missing(Exception):
    """Nothing whole is kept of a function, and this thread is not to compile it."""


@contextmanager
def only_loading() -> Iterator[None]:
    """In this thread, what would be compiled raises Missing instead."""
    _thread.only_loads = True
    try:
        yield
    finally:
        _thread.only_loads = False


class MachineCode:
    """What numba's cache of one function keeps its results in; takes the place of its `IndexDataCacheFile`.

    Args:
        folder: of the files.
        name: of the function, as a file's name may be.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def load(self, key: Any) -> Any:
        """What was saved for a signature, CPU and bytecode; None: nothing whole. Raises OSError, and Missing
        within `only_loading`.
        """
        only_loads = getattr(_thread, "only_loads", False)
        try:
            data = self._read(key)
        except OSError as error:
            if only_loads:
                raise Missing(self._name) from error
            raise
        if data is None and only_loads:
            raise Missing(self._name)
        return data

    def _read(self, key: Any) -> Any:
        file = self._file(key)
        try:
            content = read_bytes(file)
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            _say_damaged(self._folder)
            return None
        kept, data = _Unpickler(io.BytesIO(content[_DIGEST:])).load()
        return data if kept == key else None

    def save(self, key: Any, data: Any) -> None:
        """Keep what was compiled. Raises OSError."""
        content = dumps((key, data))
        # On the disk before it has its name, and whole: another process may compile the same meanwhile.
        with replacing(self._file(key), durable=True, shared=True) as fresh:
            fresh.write_bytes(hashlib.sha256(content).digest() + content)

    def flush(self) -> None:
        """Forget what is kept of the function."""
        for file in self._folder.glob(f"{self._name}.*{SUFFIX}"):
            file.unlink(missing_ok=True)

    def _file(self, key: Any) -> Path:
        text = repr((numba.__version__, llvmlite.__version__, key))
        return self._folder / f"{self._name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}{SUFFIX}"


class _Unpickler(pickle.Unpickler):
    """Imports no module for the sake of its globals, for which machine code does not ask.

    Those of numba import scipy's linear algebra, and more: a second in all, and memory for good.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        return _environment if found is _rebuild_env else found


def _environment(module: str, constants: list[Any], name: str) -> Any:
    found = lookup_environment(name)
    if found is not None or module in sys.modules:
        return _rebuild_env(module, constants, name)
    made = Environment({"__name__": module})  # by which numba can keep it again
    made.consts[:] = constants
    made.env_name = name
    Environment._memo[name] = made
    return made


@cache
def _say_damaged(folder: Path) -> None:
    logger.warning("flowerfast: %s: compiled loops are damaged, and are compiled anew", folder)
