"""Packed photos: WebDataset tar shards, and the index by which any one of them is found without unpacking.

A tar member lies in its archive uncompressed and in one piece, so a shard number, an offset and a length are
all that it takes to read a photo in any order: the shard is mapped into memory, and the photo is a view of
that. The index is one .npz file of arrays, a row per photo in the order of the folder that was packed, so
that split, order and plans are those of the folder.
"""

import hashlib
import json
import mmap
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.errors import UserError, one_line
from flowerfast.machine import replacing

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
_MAPS = 512  # a mapping holds a file handle, and a process may often have no more than 1024
NPZ_ERRORS = (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Shard:
    """One tar file: its name in the folder and its bytes."""

    name: str
    size: int


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
            raise ValueError(f"version {about['version']}, this flowerfast reads {INDEX_VERSION}")
        index = Index(
            classes=tuple(about["classes"]),
            shards=tuple(Shard(str(name), int(size)) for name, size in about["shards"]),
            settings=about["settings"],
            bad=tuple((str(path), str(why)) for path, why in about["bad"]),
            columns={name: columns[name].astype(kind, copy=False) for name, kind in COLUMNS.items()},
            suffixes={str(suffix): int(count) for suffix, count in about.get("suffixes", {}).items()},
            recoded=int(about.get("recoded", 0)),
        )
        if about["fingerprint"] != index.fingerprint:
            raise ValueError("its rows are not those that were written")
    except NPZ_ERRORS as error:
        raise UserError(
            f"{folder / INDEX}: no index of this flowerfast ({one_line(error)}); pack again"
        ) from error
    return index


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
    # Opened here: np.load leaves a damaged file open.
    with file.open("rb") as source, np.load(source, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(arrays.pop("about").tobytes()), arrays


@dataclass(frozen=True)
class Shards:
    """Bytes of packed photos, by row of the index. Threads and forked processes may share it.

    Attributes:
        folder: where the tar files are.
        files: the tar files.
        shard: int32 (n,), which of them holds the photo.
        offset: int64 (n,), where in it the photo's bytes begin.
    """

    folder: Path
    files: tuple[Shard, ...]
    shard: np.ndarray
    offset: np.ndarray
    _maps: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that the tar files are there and whole, as far as their size tells. Raises UserError.

        Their modification times are no criterion: shards are made to be copied.
        """
        for file in self.files:
            try:
                size = (self.folder / file.name).stat().st_size
            except FileNotFoundError:
                raise UserError(
                    f"{self.folder / file.name}: no such shard, yet the index lists it; bring it back or "
                    "pack again"
                ) from None
            _check_size(self.folder / file.name, size, file.size)

    def read(self, index: int, size: int) -> np.ndarray:
        """The `size` encoded bytes of a photo: uint8 (size,), a read-only view of the mapped shard.

        Raises OSError when the shard cannot be opened, UserError when it has changed size.
        """
        start = int(self.offset[index])
        return self._mapped(int(self.shard[index]))[start : start + size]

    def where(self, index: int) -> str:
        """Name of the shard and of the photo's member in it. Raises as `read` does."""
        shard, start = int(self.shard[index]), int(self.offset[index]) - _TAR_BLOCK
        name = self._mapped(shard)[start : start + _NAME_BYTES].tobytes().split(b"\0")[0]
        return f"{self.files[shard].name}: {name.decode('utf-8', 'replace')}"

    def _mapped(self, shard: int) -> np.ndarray:
        """A whole shard: uint8 (bytes,). One that is let go of here stays mapped while there are views of it.

        Without a lock, which a fork in the wrong moment would leave locked: that two threads map the same
        shard at once does no harm.
        """
        mapped = self._maps.get(shard)
        if mapped is None:
            mapped = _map(self.folder / self.files[shard].name, self.files[shard].size)
            for oldest in list(self._maps)[: len(self._maps) + 1 - _MAPS]:
                self._maps.pop(oldest, None)
            self._maps[shard] = mapped
        return mapped


def _map(file: Path, size: int) -> np.ndarray:
    with file.open("rb") as source:
        # To touch a mapping beyond the end of its file kills the process, so the size is checked once more.
        _check_size(file, os.fstat(source.fileno()).st_size, size)
        return np.frombuffer(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _check_size(file: Path, size: int, expected: int) -> None:
    if size != expected:
        raise UserError(
            f"{file}: has {size} bytes, {expected} were packed; bring the whole shard back or pack again"
        )
