"""The file behind the decoded cache on disk: shared between processes, kept from run to run.

Layout: a header, a check value per photo (CRC-32, 0 where there is none), then the pixels of all photos of a
folder one after another. The file is sparse: photos that were never written take no room.

Written with `pwrite` and read through a shared mapping, which show each other's bytes at once. A store
through the mapping would be shorter, but on a full disk it kills the process (SIGBUS); `pwrite` fails with an
error, and the photo is then not cached. Reserving the room up front would also do, but takes it for photos
that may never be used, and minutes on file systems that must write zeros.

What is promised: a photo's check value is written after its pixels, and each process compares them when it
first uses the photo. So a process killed at any moment, two that write at once, a machine that lost power
(where the disk may have the check value and not the pixels) or a damaged file cost a decode and never give
wrong pixels. Only a file that somebody shortens while it is in use is beyond help.
"""

import hashlib
import mmap
import os
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from weakref import finalize

import numpy as np

from flowerfast.errors import WriteFailed
from flowerfast.files import open_regular, replacing, writing
from flowerfast.locks import fcntl
from flowerfast.photos.photos import Photos

PIXELS_VERSION = 1
"""To be raised when `decode` or `resize` give other pixels, or the layout changes."""
_PAGE = 4096
_SUFFIX = ".photos"
_MARK = b"flowerfast decoded photos "
"""Begins every cache file: nothing else is ever overwritten or deleted."""


def disk_problem(folder: Path) -> str | None:
    """Why no cache file can be kept in `folder`, which is made if need be; None: it can.

    Raises WriteFailed when its disk is why.
    """
    if fcntl is None or not hasattr(os, "pwrite"):
        return "this system lacks the file locks that a shared cache needs"
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except WriteFailed:
        raise
    except OSError as error:
        return f"{folder} cannot be made ({error.strerror})"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written to"


def cache_key(photos: Photos, side: int) -> str:
    """Name of the cache file of a folder: changes with any photo and how it is turned, with `side`, and with
    who makes pixels.

    It holds for all samples, so that another split of the same photos finds them decoded.
    """
    makers, table = [version(name) for name in ("simplejpeg", "pillow", "torch")], photos.table
    about = PIXELS_VERSION, makers, side, photos.fingerprint, str(table.root.resolve()), len(table)
    digest = hashlib.sha256(repr(about).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(table.width).data)
    digest.update(np.ascontiguousarray(table.height).data)
    return digest.hexdigest()[:32]


def held_bytes(folder: Path) -> int:
    """Disk space that the cache files in `folder` take."""
    return sum(map(_usage, _ours(folder, _SUFFIX)))


class CacheFile:
    """Pixels of photos in one file, open and locked as in use for as long as this object lives.

    Use `open_cache_file`. Safe for threads, for forked processes and for other processes.

    Args:
        path: the file, which exists.
        count: photos.
        total: bytes of their pixels.
        budget: most bytes of `pixels` that may be written.
        notes: what had to be done to open it, one line each.

    Attributes:
        pixels: uint8 (total,), to be read alone, and of photos alone that are known to be there.
        notes: the lines given, and why writing was given up (the disk is full, say).
    """

    def __init__(self, path: Path, count: int, total: int, budget: int, notes: list[str]) -> None:
        self.budget, self.notes, self._start = budget, notes, pixels_start(count)
        self._file = os.open(path, os.O_RDWR)
        finalize(self, os.close, self._file)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        mapping = mmap.mmap(self._file, self._start + total)
        self.pixels = np.frombuffer(mapping, np.uint8, total, self._start)
        self._checks = np.frombuffer(mapping, np.uint32, count, _PAGE)
        self._full = False

    def holds(self, slot: int, pixels: np.ndarray) -> bool:
        """Whether a photo is there whole: `pixels` is its part of the file, uint8 (bytes,)."""
        value = int(self._checks[slot])
        return value != 0 and value == _check(pixels)

    def write(self, slot: int, start: int, pixels: np.ndarray) -> bool:
        """Put a photo, contiguous uint8, at `start` of `pixels`; whether that went well."""
        if self._full:
            return False
        try:
            _write(self._file, pixels.reshape(-1).data, self._start + start)
            mark = np.array(_check(pixels), np.uint32).tobytes()
            _write(self._file, memoryview(mark), _PAGE + 4 * slot)
        except OSError as error:
            if not self._full:
                self._full = True
                self.notes.append(f"disk cache: no more photos are added ({error.strerror or error})")
            return False
        return True


def open_cache_file(folder: Path, key: str, count: int, total: int, budget: int) -> CacheFile:
    """The cache file named `key` in `folder`, made anew when it is absent, damaged or over the budget.

    All cache files of the folder together stay within `budget` bytes: those used longest ago are deleted
    first, none that a process has open; what these may grow to is taken off what this file may hold.
    What bears its name without being a cache file is given another name. Raises OSError when the folder
    cannot be used.
    """
    header = _MARK + f"{PIXELS_VERSION}\n{key}\n{count} {total}\n".encode().ljust(_PAGE - len(_MARK))
    path, notes = folder / f"{key}{_SUFFIX}", []
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / "lock"):
        for left in _ours(folder, f"{_SUFFIX}.partial"):
            left.unlink()  # of a process that was killed while it held the lock
        if os.path.lexists(path) and not _is_ours(path):
            aside = path.with_name(f"{path.name}.not-ours-{time.time_ns()}")
            path.rename(aside)
            notes.append(f"disk cache: {path.name} was no cache file, and is {aside.name} now")
        wanted = min(pixels_start(count) + total, budget)
        taken, deleted = _make_room(folder, path, budget - wanted)
        if deleted:
            notes.append(f"disk cache: deleted {deleted} file(s) of {folder} to stay within the budget")
        allowed = max(budget - taken, 0)
        valid = _is_valid(path, header, pixels_start(count) + total)
        if (not valid or _usage(path) > max(allowed, pixels_start(count) + _PAGE)) and path.exists():
            why = "is over the budget" if valid else "is damaged"
            if not valid or not _in_use(path):
                notes.append(f"disk cache: {path.name} {why}; made anew")
                path.unlink()
        if not path.exists():
            _create(path, header, count, total)
        os.utime(path)  # the time of last use
        room = max(allowed // _PAGE * _PAGE - pixels_start(count), 0)
        return CacheFile(path, count, total, room, notes)


def pixels_start(count: int) -> int:
    """Bytes before the pixels in the file of so many photos, whole pages."""
    return _PAGE + -(-4 * count // _PAGE) * _PAGE


def _make_room(folder: Path, mine: Path, limit: int) -> tuple[int, int]:
    """Delete other cache files until they take `limit` bytes: (bytes they take, files deleted)."""
    others = [file for file in _ours(folder, _SUFFIX) if file != mine]
    others.sort(key=lambda file: file.stat().st_mtime_ns)
    # A file in use may yet grow to its full size.
    sizes = {file: file.stat().st_size if _in_use(file) else _usage(file) for file in others}
    taken, deleted = sum(sizes.values()), 0
    for file in others:
        if taken <= limit:
            break
        if not _in_use(file):
            file.unlink()
            taken, deleted = taken - sizes[file], deleted + 1
    return taken, deleted


def _ours(folder: Path, suffix: str) -> list[Path]:
    return [file for file in folder.glob(f"*{suffix}") if _is_ours(file)]


def _is_ours(path: Path) -> bool:
    """Whether this is a cache file, whose whole mark is there; no link to one."""
    with suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with os.fdopen(open_regular(path), "rb") as file:
                return file.read(len(_MARK)) == _MARK
    return False


def _in_use(path: Path) -> bool:
    """Whether a process has the cache file open. Its lock cannot come in between: the folder is locked."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _is_valid(path: Path, header: bytes, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_PAGE) == header and os.fstat(file.fileno()).st_size == size
    except OSError:
        return False


def _create(path: Path, header: bytes, count: int, total: int) -> None:
    with replacing(path, durable=True) as fresh, fresh.open("wb") as file:
        file.write(header)
        file.truncate(pixels_start(count) + total)


def _usage(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_blocks * 512
    return 0


def _check(pixels: np.ndarray) -> int:
    """CRC-32, but never 0. 0.1 ms for a photo of 260 kB, whose decoding takes ten times as long."""
    return zlib.crc32(pixels.reshape(-1).data) or 1


def _write(file: int, data: memoryview, at: int) -> None:
    while len(data):
        done = os.pwrite(file, data, at)
        data, at = data[done:], at + done


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the lock of a folder: one process at a time makes and deletes cache files in it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)  # waits for no pipe of that name
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
