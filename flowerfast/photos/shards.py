"""Packed photos: WebDataset tar shards, and the index by which any one of them is found without unpacking.

A tar member lies in its archive uncompressed and in one piece, so a shard number, an offset and a length are
all that it takes to read a photo in any order. The index is one .npz file of arrays, a row per photo in the
order of the folder that was packed, so that split, order and plans are those of the folder.

Shards are read, not mapped into memory: whoever touches a mapping beyond the end of its file, which somebody
has cut meanwhile, is killed.
"""

import errno
import hashlib
import json
import os
import re
import stat
import struct
import tokenize
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from pydantic import BaseModel, NonNegativeInt

from flowerfast.documents import MOST_JSON, conform, parse_json, shown
from flowerfast.errors import UserError, one_line
from flowerfast.machine import open_regular, read_bytes, replacing

INDEX = "flowerfast-index.npz"
STATE = "flowerfast-pack.json"
INDEX_VERSION = 1
COLUMNS = {
    "label": np.int32,
    "width": np.int32,
    "height": np.int32,
    "orientation": np.uint8,
    "size": np.int64,
    "fold": np.uint8,
    "shard": np.int32,
    "offset": np.int64,
    "crc32": np.uint32,
    "path_bytes": np.uint8,
    "path_ends": np.int64,
}
"""Arrays of the index: those of `Table`, and where each photo's bytes lie, with their checksum.

Earlier versions wrote no orientations; they are read as 0, not known."""

_TAR_BLOCK = 512  # bytes; a member's header is the block before its content, and begins with its name
_NAME_BYTES = 100
NPZ_ERRORS = (
    *(OSError, LookupError, ValueError, TypeError, EOFError, RuntimeError, AttributeError, ArithmeticError),
    *(MemoryError, struct.error, zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile),
)
"""What is raised for a damaged .npz file."""


@dataclass(frozen=True)
class Shard:
    """One tar file: its name in the folder and its bytes."""

    name: str
    size: int


class _About(BaseModel, extra="ignore"):
    """What describes the arrays of an index, in its file."""

    classes: tuple[str, ...]
    shards: tuple[tuple[str, NonNegativeInt], ...]
    settings: dict[str, Any]
    bad: tuple[tuple[str, str], ...]
    fingerprint: str
    suffixes: dict[str, NonNegativeInt] = {}
    recoded: NonNegativeInt = 0


@dataclass(frozen=True)
class Index:
    """What a folder of shards holds.

    Attributes:
        classes: class names; the label is the position.
        shards: the tar files.
        settings: how the photos were packed.
        bad: (path, reason) of photos that were left out.
        suffixes: photos per suffix of their members, the key by which other readers find them; empty where an
            earlier version packed.
        recoded: photos that became JPEG without being shrunk.
        columns: arrays named in COLUMNS, one row per photo (the paths: one run of bytes, and their ends).
    """

    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    settings: dict[str, Any]
    bad: tuple[tuple[str, str], ...]
    columns: dict[str, np.ndarray]
    suffixes: dict[str, int] = field(default_factory=dict)
    recoded: int = 0

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that is packed: labels, paths and checksums of the photos, not where they lie."""
        digest = hashlib.sha256(repr((INDEX_VERSION, self.classes)).encode("utf-8", "surrogateescape"))
        for name in ("label", "width", "height", "size", "fold", "crc32", "path_bytes", "path_ends"):
            digest.update(np.ascontiguousarray(self.columns[name]).data)
        return digest.hexdigest()


def write_index(index: Index, folder: Path) -> None:
    """Write the index; with it the folder is complete. Raises OSError."""
    about = {
        "version": INDEX_VERSION,
        "classes": index.classes,
        "shards": [(shard.name, shard.size) for shard in index.shards],
        "settings": index.settings,
        "bad": index.bad,
        "suffixes": index.suffixes,
        "recoded": index.recoded,
        "fingerprint": index.fingerprint,
    }
    columns = {name: index.columns[name].astype(kind, copy=False) for name, kind in COLUMNS.items()}
    save_arrays(folder / INDEX, about, columns)


def read_index(folder: Path) -> Index:
    """The index of a folder of shards. Raises UserError when it is damaged or of another version."""
    try:
        about, columns = load_arrays(folder / INDEX)
        columns.setdefault("orientation", np.zeros(len(columns["label"]), np.uint8))
        if about["version"] != INDEX_VERSION:
            raise ValueError(f"version {shown(about['version'])}, this flowerfast reads {INDEX_VERSION}")
        known = conform(_About, about)
        index = Index(
            classes=known.classes,
            shards=tuple(Shard(name, size) for name, size in known.shards),
            settings=known.settings,
            bad=known.bad,
            columns={name: columns[name] for name in COLUMNS},
            suffixes=known.suffixes,
            recoded=known.recoded,
        )
        _check_rows(index)
        if known.fingerprint != index.fingerprint:
            raise ValueError("its rows are not those that were written")
    except NPZ_ERRORS as error:
        raise UserError(
            f"{folder / INDEX}: no index of this flowerfast ({one_line(error)}); pack again"
        ) from error
    return index


def _check_rows(index: Index) -> None:
    """Raise ValueError unless every row is of a photo within a shard of this folder.

    The fingerprint tells damage, not intent: whoever makes up rows makes up theirs.
    """
    c, count = index.columns, len(index.columns["label"])
    for name, kind in COLUMNS.items():
        if c[name].dtype != kind or c[name].ndim != 1 or (name != "path_bytes" and len(c[name]) != count):
            raise ValueError(f"column {name} is not {count} of {np.dtype(kind).name}")
    odd = [s.name for s in index.shards if s.name in ("", ".", "..") or set(s.name) & set("/\\\0:")]
    if odd:
        raise ValueError(f"{shown(odd[0])} is no name of a shard")
    if not count or not index.shards:
        raise ValueError("no photos")
    if not 0 <= c["shard"].min() <= c["shard"].max() < len(index.shards):
        raise ValueError("a photo lies in no shard")
    sizes = np.array([min(shard.size, 1 << 62) for shard in index.shards])
    left = sizes[c["shard"]] - c["offset"]
    if c["offset"].min() < _TAR_BLOCK or c["size"].min() < 1 or (left < c["size"]).any():
        raise ValueError("a photo lies outside its shard")
    highest = {"label": len(index.classes) - 1, "fold": 3, "orientation": 8}
    if any(c[name].max() > most for name, most in highest.items()) or c["label"].min() < 0:
        raise ValueError("a label, fold or orientation that there is not")
    if min(c["width"].min(), c["height"].min()) < 1:
        raise ValueError("a photo without pixels")
    _check_paths(c["path_bytes"], c["path_ends"])


def _check_paths(content: np.ndarray, ends: np.ndarray) -> None:
    """Raise ValueError for a path that could lead out of the folder of photos."""
    starts = np.concatenate([[0], ends[:-1]])
    if (ends <= starts).any() or ends[-1] != len(content):
        raise ValueError("paths that are none")
    text = content.tobytes()
    borders = {*starts.tolist(), *ends.tolist()} if b".." in text else set()
    climbs = any(
        (found.start() in borders or text[found.start() - 1 : found.start()] == b"/")
        and (found.end() in borders or text[found.end() : found.end() + 1] == b"/")
        for found in re.finditer(rb"\.\.", text)
    )
    if climbs or b"\0" in text or (content[starts] == ord("/")).any():
        raise ValueError("a path out of the folder")


def is_packed(folder: Path) -> bool:
    """Whether a folder holds shards. Raises UserError when packing has begun there and not ended."""
    if (folder / INDEX).is_file():
        return True
    if (folder / STATE).is_file():
        raise UserError(f"{folder}: packing was not finished; run the same `flowerfast pack` again to go on")
    return False


def save_arrays(file: Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and what describes them (JSON) as .npz; same content, same bytes. Raises OSError."""
    # ASCII: JSON escapes what is no valid UTF-8 in file names, and gives it back.
    text = np.frombuffer(json.dumps(about).encode("ascii"), np.uint8)
    content: dict[str, Any] = {"about": text, **arrays}
    with replacing(file, durable=True) as fresh, fresh.open("wb") as out:
        np.savez(out, **content)


def load_arrays(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `save_arrays` wrote. Raises one of NPZ_ERRORS when the file is missing or damaged."""
    arrays = read_npz(file)
    about = arrays.pop("about").tobytes()  # names each photo that was left out: as large as it must be
    return parse_json(about, most=max(MOST_JSON, len(about))), arrays


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz file. Raises one of NPZ_ERRORS when it is missing or damaged."""
    content = BytesIO(read_bytes(file))
    try:
        with zipfile.ZipFile(content) as members:
            # Stored as they are: of a compressed one nobody knows what it takes.
            if any(member.compress_type for member in members.infolist()):
                raise ValueError("compressed")
            damaged = members.testzip()  # numpy compares no checksum where an array ends before its member
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        content.seek(0)
        with np.load(content, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (MemoryError, OverflowError, tokenize.TokenError, SyntaxError, struct.error) as error:
        # What numpy and zipfile make of headers that are none.
        raise ValueError(f"damaged ({one_line(error)})") from error


class _OpenFile:
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
    _open: dict[int, _OpenFile] = field(default_factory=dict, init=False, repr=False, compare=False)
    _checked: dict[int, tuple[Any, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Of a shard the state of the file last opened, and which rows have been read well of it."""

    def __post_init__(self) -> None:
        """Check that the tar files are there and whole, as far as their size tells. Raises UserError.

        Their modification times are no criterion: shards are made to be copied.
        """
        for file in self.files:
            path = self.folder / file.name
            try:
                status = path.stat()
            except OSError as error:
                what = "no such shard" if isinstance(error, FileNotFoundError) else one_line(error)
                raise UserError(
                    f"{path}: {what}, yet the index lists it; bring it back or pack again"
                ) from None
            regular = stat.S_ISREG(status.st_mode)
            problem = (
                _size_problem(path, status.st_size, file.size) if regular else f"{path}: no regular file"
            )
            if problem:
                raise UserError(f"{problem}; bring the whole shard back or pack again")
        fresh = np.zeros(len(self.shard), np.bool_)
        self._checked.update(dict.fromkeys(range(len(self.files)), (None, fresh)))

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
        shard, start = int(self.shard[index]), int(self.offset[index]) - _TAR_BLOCK
        try:
            name = self._opened(shard).read(_NAME_BYTES, start).split(b"\0")[0]
        except OSError:
            return self.files[shard].name
        return f"{self.files[shard].name}: {name.decode('utf-8', 'replace')}"

    def _problem(self, index: int, opened: _OpenFile, encoded: np.ndarray) -> OSError | None:
        """What is wrong with bytes that were read of a file."""
        shard = int(self.shard[index])
        state, checked = self._checked[shard]
        if state != opened.state:
            checked = np.zeros_like(checked) if state is not None else checked
            self._checked[shard] = opened.state, checked
        if not checked[index]:
            if zlib.crc32(encoded.data) != self.crc32[index]:
                return OSError("its bytes are not those that were packed; bring the shard back or pack again")
            checked[index] = True
        return None

    def _held(self, shard: int) -> _OpenFile | None:
        """A shard that stays open; None: one that does not, or that cannot be opened."""
        if shard not in self._open and len(self._open) < _MOST_OPEN:
            with suppress(OSError):  # `read` will say what is wrong
                self._opened(shard)
        return self._open.get(shard)

    def _opened(self, shard: int) -> _OpenFile:
        """A shard. Raises OSError.

        Without a lock, which a fork in the wrong moment would leave locked: that two threads open the same
        shard at once does no harm.
        """
        opened = self._open.get(shard)
        if opened is not None:
            return opened
        path, size = self.folder / self.files[shard].name, self.files[shard].size
        try:
            opened = _OpenFile(path, size)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
            self._open.clear()  # others need descriptors too
            opened = _OpenFile(path, size)
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


def _size_problem(file: Path, size: int, expected: int) -> str | None:
    return f"{file}: has {size} bytes, {expected} were packed" if size != expected else None
