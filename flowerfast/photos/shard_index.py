"""The index of a folder of shards: what each photo is, and where its bytes lie.

It may come from anywhere, and is checked row by row.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, NonNegativeInt

from flowerfast.documents import conform, shown
from flowerfast.errors import UserError, one_line
from flowerfast.photos.arrays import NPZ_ERRORS, load_arrays, save_arrays
from flowerfast.photos.label_sets import LabelSets

INDEX = "flowerfast-index.npz"
STATE = "flowerfast-pack.json"
PARTS = ".packing"
"""Folder that is there from before the first shard has its name until the index is written."""
PART_NAME = re.compile(r"\d{6}\.npz")
SHARD_NAME = re.compile(r"(shard|train|val|test)-\d{6}\.tar")
PART_FOLDER = re.compile(r"part-(\d{3,6})-of-(\d{3,6})")
"""Folder of the shards that one of many jobs packs, a folder of shards itself."""
INDEX_VERSION = 1
SETS_VERSION = 2
"""Of an index of photos with several labels, which earlier versions would take for classes."""
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
_SETS = ("set_members", "set_ends")
"""Arrays of the index: those of `Table`, and where each photo's bytes lie, with their checksum.

Earlier versions wrote no orientations; they are read as 0, not known."""

BRING_BACK = "bring back what was packed, or pack to another place"
TAR_BLOCK = 512  # bytes; a member's header is the block before its content, and begins with its name


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
    seekable: NonNegativeInt = 0


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
        seekable: photos whose codes were written anew, see `packing.seekable`.
        columns: arrays named in COLUMNS, one row per photo (the paths: one run of bytes, and their ends).
        rows: int64 (n,), of one part of many: which rows of the whole table these are.
        sets: where photos have several labels, the sets of classes of which `label` is the place; else None.
    """

    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    settings: dict[str, Any]
    bad: tuple[tuple[str, str], ...]
    columns: dict[str, np.ndarray]
    suffixes: dict[str, int] = field(default_factory=dict)
    recoded: int = 0
    seekable: int = 0
    rows: np.ndarray | None = None
    sets: LabelSets | None = None

    @property
    def version(self) -> int:
        """Of the file."""
        return INDEX_VERSION if self.sets is None else SETS_VERSION

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that is packed: labels, paths and checksums of the photos, not where they lie."""
        about = (self.version, self.classes, *([] if self.sets is None else [self.sets.digest()]))
        digest = hashlib.sha256(repr(about).encode("utf-8", "surrogateescape"))
        for name in ("label", "width", "height", "size", "fold", "crc32", "path_bytes", "path_ends"):
            digest.update(np.ascontiguousarray(self.columns[name]).data)
        return digest.hexdigest()


def write_index(index: Index, folder: Path) -> None:
    """Write the index; with it the folder is complete. Raises OSError."""
    about = {
        "version": index.version,
        "classes": index.classes,
        "shards": [(shard.name, shard.size) for shard in index.shards],
        "settings": index.settings,
        "bad": index.bad,
        "suffixes": index.suffixes,
        "recoded": index.recoded,
        "seekable": index.seekable,
        "fingerprint": index.fingerprint,
    }
    columns = {name: index.columns[name].astype(kind, copy=False) for name, kind in COLUMNS.items()}
    if index.rows is not None:
        columns["row"] = index.rows
    if index.sets is not None:
        columns |= dict(zip(_SETS, (index.sets.members, index.sets.ends), strict=True))
    save_arrays(folder / INDEX, about, columns)


def read_index(folder: Path, source: str | None = None) -> Index:
    """The index of a folder of shards; `source` is where it came from, for messages.

    Raises UserError when it is damaged or of another version.
    """
    try:
        about, columns = load_arrays(folder / INDEX)
        columns.setdefault("orientation", np.zeros(len(columns["label"]), np.uint8))
        if about["version"] not in (INDEX_VERSION, SETS_VERSION):
            known_ones = f"{INDEX_VERSION} and {SETS_VERSION}"
            raise ValueError(f"version {shown(about['version'])}, this flowerfast reads {known_ones}")
        several = about["version"] == SETS_VERSION
        known = conform(_About, about)
        index = Index(
            classes=known.classes,
            shards=tuple(Shard(name, size) for name, size in known.shards),
            settings=known.settings,
            bad=known.bad,
            columns={name: columns[name] for name in COLUMNS},
            suffixes=known.suffixes,
            recoded=known.recoded,
            seekable=known.seekable,
            rows=columns.get("row"),
            sets=LabelSets(*(columns[name] for name in _SETS)) if several else None,
        )
        _check_rows(index)
        if known.fingerprint != index.fingerprint:
            raise ValueError("its rows are not those that were written")
    except NPZ_ERRORS as error:
        raise UserError(
            f"{source or folder}/{INDEX}: no index of this flowerfast ({one_line(error)}); {BRING_BACK}"
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
    odd = [shard.name for shard in index.shards if not _is_name(shard.name)]
    if odd:
        raise ValueError(f"{shown(odd[0])} is no name of a shard")
    if not count or not index.shards:
        raise ValueError("no photos")
    if not 0 <= c["shard"].min() <= c["shard"].max() < len(index.shards):
        raise ValueError("a photo lies in no shard")
    sizes = np.array([min(shard.size, 1 << 62) for shard in index.shards])
    left = sizes[c["shard"]] - c["offset"]
    if c["offset"].min() < TAR_BLOCK or c["size"].min() < 1 or (left < c["size"]).any():
        raise ValueError("a photo lies outside its shard")
    if index.sets is not None:
        index.sets.check(len(index.classes))
    labels = len(index.classes if index.sets is None else index.sets)
    highest = {"label": labels - 1, "fold": 3, "orientation": 8}
    if any(c[name].max() > most for name, most in highest.items()) or c["label"].min() < 0:
        raise ValueError("a label, fold or orientation that there is not")
    if min(c["width"].min(), c["height"].min()) < 1:
        raise ValueError("a photo without pixels")
    _check_paths(c["path_bytes"], c["path_ends"])


def _is_name(shard: str) -> bool:
    """Whether a shard's name leads to nothing but a file in the folder, or in one of its parts."""
    part, slash, name = shard.rpartition("/")
    if slash and not PART_FOLDER.fullmatch(part):
        return False
    return name not in ("", ".", "..") and not set(name) & set("\\\0:")


def _check_paths(content: np.ndarray, ends: np.ndarray) -> None:
    """Raise ValueError for a path that could lead out of the folder of photos."""
    starts = np.concatenate([[0], ends[:-1]])
    if (ends <= starts).any() or ends[-1] != len(content):
        raise ValueError("paths that are none")
    text = np.ascontiguousarray(content).data  # searched as it lies: of many photos a copy takes gigabytes
    climbing = re.search(rb"\.\.", text) is not None
    borders = {*starts.tolist(), *ends.tolist()} if climbing else set()
    climbs = any(
        (found.start() in borders or content[found.start() - 1] == ord("/"))
        and (found.end() in borders or content[found.end()] == ord("/"))
        for found in re.finditer(rb"\.\.", text)
    )
    if climbs or re.search(rb"\0", text) or (content[starts] == ord("/")).any():
        raise ValueError("a path out of the folder")


def is_packed(folder: Path) -> bool:
    """Whether a folder holds shards. Raises UserError when packing has begun there and not ended."""
    if os.path.lexists(folder / INDEX):
        return True
    if (folder / STATE).is_file():
        check_unfinished(folder)
        raise UserError(f"{folder}: packing was not finished; run the same `flowerfast pack` again to go on")
    return False


def check_unfinished(folder: Path) -> None:
    """Raise UserError where a folder without an index holds more than a packing under way has left.

    Each finished shard has its part in `PARTS`, but for one: packing may have ended between the two.
    """
    shards = [entry for entry in os.listdir(folder) if SHARD_NAME.fullmatch(entry)]
    parts = folder / PARTS
    if not shards or (
        parts.is_dir() and len(shards) <= 1 + sum(map(bool, map(PART_NAME.fullmatch, os.listdir(parts))))
    ):
        return
    raise UserError(f"{folder}: holds shards without their index, {INDEX}; {BRING_BACK}")
