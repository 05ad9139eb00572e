"""Packed photos: WebDataset tar shards, and the index by which any one of them is found without unpacking.

A tar member lies in its archive uncompressed and in one piece, so a shard number, an offset and a length are
all that it takes to read a photo in any order. The index is one .npz file of arrays, a row per photo in the
order of the folder that was packed, so that split, order and plans are those of the folder.

Shards are read, not mapped into memory: whoever touches a mapping beyond the end of its file, which somebody
has cut meanwhile, is killed.
"""

import errno
import os
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from flowerfast.errors import UserError, one_line
from flowerfast.files import open_regular
from flowerfast.photos.shard_index import BRING_BACK, TAR_BLOCK, Shard

_NAME_BYTES = 100  # of a member, with which its header begins


class OpenFile:
    """A shard opened to be read, closed when nobody holds this object any more. Raises OSError.

    Attributes:
        file: its descriptor.
        state: by which another file of that name, or a changed one, is told from it.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.file, self._path = open_regular(path), path
        finalize(self, os.close, self.file)
        status = os.fstat(self.file)
        if problem := _size_problem(path, status.st_size, size):
            raise OSError(problem)
        self.state = status.st_dev, status.st_ino, status.st_mtime_ns

    def read(self, size: int, offset: int) -> bytes:
        """Bytes from there on; fewer where the file ends."""
        if hasattr(os, "pread"):
            return os.pread(self.file, size, offset)  # Linux reads up to 2 GB in one call
        with self._path.open("rb") as own:  # Windows: one of its own, for threads would share the position
            own.seek(offset)
            return own.read(size)


@dataclass(frozen=True)
class Shards:
    """Bytes of packed photos, by row of the index. Threads and forked processes may share it.

    A photo is compared with its checksum when it is first read of a file. Some shards stay open once they
    are used, as many as a process can afford; others are opened for each photo.

    Attributes:
        folder: where the tar files are.
        files: the tar files.
        shard: int32 (n,), which of them holds the photo.
        offset: int64 (n,), where in it the photo's bytes begin.
        crc32: uint32 (n,), checksums of the photos.
    """

    folder: Path
    files: tuple[Shard, ...]
    shard: np.ndarray
    offset: np.ndarray
    crc32: np.ndarray
    _open: dict[int, OpenFile] = field(default_factory=dict, init=False, repr=False, compare=False)
    _checked: dict[int, tuple[Any, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Of a shard the state of the file last opened, and which rows have been read well of it."""

    def __post_init__(self) -> None:
        """Check that the tar files are there and whole, as far as their size tells. Raises UserError.

        Their modification times are no criterion: shards are made to be copied.
        """
        self._check_there()
        fresh = np.zeros(len(self.shard), np.bool_)
        self._checked.update(dict.fromkeys(range(len(self.files)), (None, fresh)))

    def _check_there(self) -> None:
        for file in self.files:
            problem = shard_problem(self.folder, file)
            if problem is not None:
                raise UserError(f"{problem}; {BRING_BACK}")

    def __getstate__(self) -> dict[str, Any]:
        """For another process, in which the descriptors of this one are other files."""
        return {**vars(self), "_open": {}}

    def read(self, index: int, size: int) -> np.ndarray:
        """The `size` encoded bytes of a photo: uint8 (size,), read-only.

        Raises OSError when the shard cannot be opened or has changed, or the bytes are not those packed.
        """
        shard = int(self.shard[index])
        opened = self._opened(shard)
        encoded = np.frombuffer(opened.read(size, int(self.offset[index])), np.uint8)
        if len(encoded) != size:
            raise OSError(f"{self.folder / self.files[shard].name}: ends within this photo: cut meanwhile")
        problem = self._problem(index, opened, encoded)
        if problem is not None:
            raise problem
        return encoded

    def read_many(
        self, indices: np.ndarray, sizes: np.ndarray, shape: tuple[np.ndarray, np.ndarray]
    ) -> tuple[list[np.ndarray | OSError | None], np.ndarray]:
        """Photos of `sizes` bytes and of `shape` (width, height), read in one call without the interpreter
        lock where their shards stay open; without shapes nobody looks which are plain.

        Of each: uint8 (size,), read-only; why it is damaged; or None: `read` must do it. Beside them bool
        (m,): whether it is known to be a plain JPEG of its size.
        """
        from flowerfast.kernels.files import FAILED, PLAIN, read_pieces  # numba: half a second

        shards = self.shard[indices].tolist()
        held = {shard: self._held(shard) for shard in {*shards}}  # so that none is closed meanwhile
        files = np.array(
            [-1 if (opened := held[shard]) is None else opened.file for shard in shards], np.int64
        )
        at = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(sizes, out=at[1:])
        room = np.empty(at[-1], np.uint8)
        outcome = read_pieces(files, self.offset[indices], at, room, *shape)
        room.flags.writeable = False
        found: list[np.ndarray | OSError | None] = []
        for k, index in enumerate(indices.tolist()):
            encoded, opened = room[at[k] : at[k + 1]], held[shards[k]]
            if opened is None or outcome[k] == FAILED:
                found.append(None)
            else:
                found.append(self._problem(index, opened, encoded) or encoded)
        return found, outcome == PLAIN

    def where(self, index: int) -> str:
        """Name of the shard and of the photo's member in it, as far as they can be read."""
        shard, start = int(self.shard[index]), int(self.offset[index]) - TAR_BLOCK
        try:
            name = self._opened(shard).read(_NAME_BYTES, start).split(b"\0")[0]
        except OSError:
            return self.files[shard].name
        return f"{self.files[shard].name}: {name.decode('utf-8', 'replace')}"

    def _problem(self, index: int, opened: OpenFile, encoded: np.ndarray) -> OSError | None:
        """What is wrong with bytes that were read of a file."""
        shard = int(self.shard[index])
        state, checked = self._checked[shard]
        if state != opened.state:
            checked = np.zeros_like(checked) if state is not None else checked
            self._checked[shard] = opened.state, checked
        if not checked[index]:
            if zlib.crc32(encoded.data) != self.crc32[index]:
                return OSError(f"its bytes are not those that were packed; {BRING_BACK}")
            checked[index] = True
        return None

    def _held(self, shard: int) -> OpenFile | None:
        """A shard that stays open; None: one that does not, or that cannot be opened."""
        if shard not in self._open and len(self._open) < _MOST_OPEN:
            with suppress(OSError):  # `read` will say what is wrong
                self._opened(shard)
        return self._open.get(shard)

    def _opened(self, shard: int) -> OpenFile:
        """A shard. Raises OSError.

        Without a lock, which a fork in the wrong moment would leave locked: that two threads open the same
        shard at once does no harm.
        """
        opened = self._open.get(shard)
        if opened is not None:
            return opened
        path, size = self.folder / self.files[shard].name, self.files[shard].size
        try:
            opened = OpenFile(path, size)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
            self._open.clear()  # others need descriptors too
            opened = OpenFile(path, size)
        if len(self._open) < _MOST_OPEN:
            self._open[shard] = opened
        return opened


def _most_open() -> int:
    """Shards that stay open at a time: a quarter of the files that the process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return 128
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 512 if soft == resource.RLIM_INFINITY else min(soft // 4, 512)


_MOST_OPEN = _most_open()


def shard_problem(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard as far as its name and size tell; None: nothing."""
    path = folder / shard.name
    try:
        status = path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return f"{path}: {'no such shard, though it was packed' if missing else one_line(error)}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path}: no regular file"
    return _size_problem(path, status.st_size, shard.size)


def _size_problem(file: Path, size: int, expected: int) -> str | None:
    return f"{file}: has {size} bytes, {expected} were packed" if size != expected else None
