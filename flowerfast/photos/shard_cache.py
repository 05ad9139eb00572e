"""Photos of remote shards kept on the local disk, for all processes of a machine, within a budget.

FOLDER/DIGEST/flowerfast-index.npz    the index; the digest is its own
FOLDER/DIGEST/shard-000000.tar, ...   sparse files as long as the shards: what was never fetched takes no room

A photo counts as there when its checksum says so, at each reading. So a process that is killed at any moment,
two that write at once, a full disk or a damaged one cost another fetch and never give wrong bytes, and no
file needs to be complete before it is of use.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from flowerfast.errors import RunFailed, UserError, one_line, write_failure
from flowerfast.locks import fcntl  # None on Windows: what other data sets have left is not deleted there
from flowerfast.machine import free_disk, logger, user_cache_dir
from flowerfast.photos.remote import NotServed, Remote
from flowerfast.photos.shard_index import INDEX, STATE, Shard

_SHARE = 3
"""Without data.cache_gb the cache takes at most one part in so many of what is free."""
_GRANT = 64 << 20
"""Bytes written before it is looked again at what all processes have written: so much may each be over."""
_PAGES = 8192
"""Bytes that a piece of a sparse file may take beyond its own, in pages that it shares."""


@dataclass(frozen=True)
class Mirror:
    """A folder of remote shards, of which the index is here.

    Attributes:
        url: where the shards are.
        folder: the local folder: its index, and of its shards what has been fetched.
        budget: most bytes of all shards kept beside it, of all data sets.
    """

    url: str
    folder: Path
    budget: int


def mirror(url: str, cache_dir: str | None, cache_gb: float | None) -> Mirror:
    """Fetch the index at a URL. Raises UserError, and RunFailed when the URL or the disk fails."""
    base = Path(cache_dir, "flowerfast-shards") if cache_dir is not None else user_cache_dir() / "shards"
    remote = Remote(url)
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _temporary(base) as fresh:
            remote.fetch(INDEX, fresh)
            with fresh.open("rb") as file:
                folder = base / hashlib.file_digest(file, "sha256").hexdigest()[:24]
            with _held(base):
                folder.mkdir(exist_ok=True)
                os.replace(fresh, folder / INDEX)
    except NotServed as error:
        with suppress(RunFailed):
            remote.size(STATE)
            raise UserError(f"{url}: packing was not finished; run the same command again") from error
        raise UserError(
            f"{error}; give what `flowerfast pack DATA URL` has written to: a folder of shards with {INDEX}"
        ) from error
    except OSError as error:
        failed = write_failure(error, base, 0)
        if failed is not None:
            raise RunFailed(failed.line("try again, or set data.cache_dir")) from error
        raise UserError(f"{base}: cannot be written ({one_line(error)}); set data.cache_dir") from error
    budget = int(cache_gb * 1e9) if cache_gb is not None else (free_disk(base) + _taken(base)) // _SHARE
    return Mirror(url, folder, budget)


class ShardCache:
    """The shards of one data set, marked as in use for as long as this object lives. Safe for threads.

    Args:
        place: says where they are kept, and how much may be.

    Attributes:
        is_full: nothing is kept any more.
    """

    def __init__(self, place: Mirror) -> None:
        self._folder, self._base, self._budget = place.folder, place.folder.parent, place.budget
        self._lock, self._spare, self._writing = threading.RLock(), 0, 0
        self.is_full, self._told = False, False
        with _held(self._base):
            self._folder.mkdir(exist_ok=True)
            os.utime(self._folder)  # the time of last use
            lock = _locked(self._folder, "SH")
        if lock is not None:
            finalize(self, os.close, lock)

    def look_again(self) -> None:
        """Try anew whether there is room."""
        self.is_full = False

    def delete(self, shard: Shard) -> None:
        """Give up what is here of a shard."""
        with suppress(FileNotFoundError):
            (self._folder / shard.name).unlink()
        with self._lock:
            self._spare, self.is_full = 0, False

    def keep(self, shard: Shard, offset: int, content: bytes) -> bool:
        """Write bytes of a shard where they belong; False: there is no room for them."""
        size = len(content) + _PAGES
        with self._lock:
            self.is_full = self.is_full or not self.has_room(size)
            if self.is_full:
                return False
            self._spare -= size
            self._writing += size
        file = self._folder / shard.name
        try:
            file.parent.mkdir(exist_ok=True)  # of shards packed in parts
            with os.fdopen(os.open(file, _WRITE, 0o666), "r+b", buffering=0) as out:
                if os.fstat(out.fileno()).st_size != shard.size:
                    out.truncate(shard.size)
                out.seek(offset)
                left = memoryview(content)
                while len(left):
                    left = left[out.write(left) :]
            return True
        except OSError as error:
            if not self._told:
                self._told = True
                logger.warning(
                    "flowerfast: %s: photos are kept there no more (%s), and are fetched again when they are "
                    "needed; make room, or set data.cache_dir",
                    self._base,
                    one_line(error),
                )
            self.is_full = True
            return False
        finally:
            with self._lock:
                self._writing -= size

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may be written."""
        with self._lock:
            if self._spare < size:
                # What other threads are writing may not be on the disk yet.
                left = self._budget - self._writing - _taken(self._base)
                if left < size:
                    left += _make_room(self._base, self._folder, size - left)
                self._spare = min(left, max(_GRANT, size))
            return self._spare >= size


_WRITE = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _taken(folder: Path) -> int:
    """Bytes on the disk of all that lies in a folder, from which others may be deleting."""
    taken = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(place, name))
                taken += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
    return taken


def _make_room(base: Path, mine: Path, wanted: int) -> int:
    """Delete other data sets that nobody uses, the longest unused first: bytes that were freed."""
    freed = 0
    with _held(base):
        others = [folder for folder in base.iterdir() if folder != mine and (folder / INDEX).is_file()]
        for folder in sorted(others, key=lambda folder: folder.stat().st_mtime_ns):
            if freed >= wanted or fcntl is None:
                break
            with suppress(BlockingIOError), _held(folder, wait=False):
                taken = _taken(folder)
                shutil.rmtree(folder)
                freed += taken
    return freed


@contextmanager
def _held(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold a folder against other processes. Raises BlockingIOError when it is held and `wait` is False."""
    lock = _locked(folder, "EX", wait)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _locked(folder: Path, kind: str, wait: bool = True) -> int | None:
    """Descriptor by which a folder is locked, SH or EX; None: this system has no such locks."""
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if kind == "EX" else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise
        return None  # a file system without locks
    return lock


@contextmanager
def _temporary(base: Path) -> Iterator[Path]:
    """Path of a file that is gone after the block, unless it has got another name."""
    fresh = base / f"{INDEX}.{os.getpid()}-{threading.get_ident()}.partial"
    try:
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)
