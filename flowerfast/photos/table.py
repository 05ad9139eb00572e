"""The columns of a folder of photos, loose or packed: one row per sample, made once by scanning headers.

Rows are held in numpy arrays (about 60 bytes and the path per sample), never as Python objects, so that a
table of millions stays small and quick to load.
"""

import hashlib
import io
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.errors import UserError, one_line
from flowerfast.machine import Progress, replacing, user_cache_dir
from flowerfast.photos.decode import reason
from flowerfast.photos.formats import open_image
from flowerfast.photos.listing import Listing, list_photos
from flowerfast.photos.shards import Shards, is_packed, read_index

CACHE_VERSION = 3


@dataclass(frozen=True)
class BadFile:
    """A file that is no usable photo, and why."""

    path: str
    error: str


@dataclass(frozen=True)
class Table:
    """One row per sample, ordered by fold, class, folder and name; the row is the sample's index.

    Attributes:
        root: folder that the paths are relative to.
        classes: class names in ImageFolder's order (sorted); the label is the position.
        label: int32 (n,).
        width, height: int32 (n,), pixels of the stored photo (EXIF orientation ignored).
        size: int64 (n,), bytes of the file.
        fold: uint8 (n,), 0 where the split is free, 1 for train/, 2 for val/.
        path_bytes, path_ends: uint8 (total,) and int64 (n,): all paths in UTF-8, and where each one ends.
        fingerprint: hex digest of names, sizes and modification times of all files.
        bad: files left out at the scan.
        shards: where the bytes are when the folder is one of packed shards, else None. `path` is then the
            path that a photo had in the folder which was packed.
    """

    root: Path
    classes: tuple[str, ...]
    label: np.ndarray
    width: np.ndarray
    height: np.ndarray
    size: np.ndarray
    fold: np.ndarray
    path_bytes: np.ndarray
    path_ends: np.ndarray
    fingerprint: str
    bad: tuple[BadFile, ...] = field(default=())
    shards: Shards | None = None

    def __len__(self) -> int:
        return len(self.label)

    def path(self, index: int) -> str:
        """Path of a sample relative to root, with / between folders."""
        start = int(self.path_ends[index - 1]) if index else 0
        return (
            self.path_bytes[start : int(self.path_ends[index])].tobytes().decode("utf-8", "surrogateescape")
        )

    def paths(self) -> list[str]:
        """All paths, by index."""
        return split_paths(self.path_bytes, self.path_ends)


def split_paths(path_bytes: np.ndarray, path_ends: np.ndarray) -> list[str]:
    """Paths, one by one, of a table's or listing's arrays."""
    if not len(path_ends):
        return []
    apart: np.ndarray = np.insert(path_bytes, path_ends[:-1], 0)  # no name holds a zero
    return apart.tobytes().decode("utf-8", "surrogateescape").split("\0")


def read_table(root: Path, max_pixels: int, progress: Progress | None = None, min_classes: int = 2) -> Table:
    """Table of a folder of class folders, of one with train/ and val/ (test/ is left alone), or of shards.

    Headers are read once and cached per folder under the user's cache folder; the cache is valid as long as
    no file's name, size or modification time changes.
    Raises UserError when the folder is missing, has no photos or fewer than `min_classes` classes.
    """
    if is_packed(root):
        return _packed(root, max_pixels, min_classes)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "no such folder"
        raise UserError(f"{root}: {what}; give a folder that holds one folder of photos per class")
    listing = list_photos(root)
    if len(listing.classes) < min_classes:
        only = listing.classes[0]
        raise UserError(
            f"{root}: only one class with photos ({only}); a classifier needs two or more class folders"
        )
    fingerprint = listing.fingerprint(CACHE_VERSION, max_pixels)
    cache = _cache_file(root)
    table = _load_cache(cache, root, listing.classes, fingerprint)
    if table is None:
        table = _scan(root, listing, fingerprint, max_pixels, progress)
        _store_cache(cache, table)
    if not len(table):
        first = table.bad[0]
        raise UserError(
            f"{root}: none of {len(listing)} photos can be read; first: {first.path}: {first.error}"
        )
    return table


def _scan(
    root: Path, listing: Listing, fingerprint: str, max_pixels: int, progress: Progress | None
) -> Table:
    sizes = np.zeros((len(listing), 2), np.int32)
    bad: list[BadFile] = []
    good = np.ones(len(listing), bool)
    last = time.monotonic()
    for i, path in enumerate(split_paths(listing.path_bytes, listing.path_ends)):
        try:
            sizes[i] = read_size(root / path, max_pixels)
        except (OSError, ValueError) as error:
            good[i] = False
            bad.append(BadFile(path, reason(error)))
        if progress and time.monotonic() - last > 0.1:
            progress(i + 1, len(listing))
            last = time.monotonic()
    lengths = np.diff(listing.path_ends, prepend=0)
    return Table(
        root=root,
        classes=listing.classes,
        label=listing.label[good],
        width=sizes[good, 0],
        height=sizes[good, 1],
        size=listing.size[good],
        fold=listing.fold[good],
        path_bytes=listing.path_bytes[np.repeat(good, lengths)],
        path_ends=np.cumsum(lengths[good]),
        fingerprint=fingerprint,
        bad=tuple(bad),
    )


def read_size(file: Path | io.BytesIO, max_pixels: int) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises OSError or ValueError when it is no photo."""
    try:
        with open_image(file) as image:
            width, height = image.size
    except (OSError, ValueError):
        raise
    except Exception as error:  # of damage Pillow's plugins make almost any
        raise ValueError(one_line(error)) from error
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels, more than data.max_pixels={max_pixels}")
    return width, height


def _cache_file(root: Path) -> Path:
    key = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return user_cache_dir() / "manifests" / f"{key}.npz"


_ARRAYS = ("label", "width", "height", "size", "fold", "path_bytes", "path_ends")


def _load_cache(cache: Path, root: Path, classes: tuple[str, ...], fingerprint: str) -> Table | None:
    try:
        # Opened here: np.load leaves a damaged file open.
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None
            bad = tuple(BadFile(str(p), str(e)) for p, e in stored["bad"].reshape(-1, 2))
            arrays = {name: stored[name] for name in _ARRAYS}
    except (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None  # no cache yet, or a damaged one: scanning again costs seconds
    return Table(root=root, classes=classes, fingerprint=fingerprint, bad=bad, **arrays)


def _store_cache(cache: Path, table: Table) -> None:
    arrays = {name: getattr(table, name) for name in _ARRAYS}
    bad = np.array([(b.path, b.error) for b in table.bad], dtype=np.str_).reshape(-1, 2)
    with (
        suppress(OSError, UnicodeEncodeError),  # a read-only home costs a scan per start, not the run
        replacing(cache, shared=True) as fresh,
        fresh.open("wb") as file,
    ):
        np.savez(file, fingerprint=np.array(table.fingerprint), bad=bad, **arrays)


def _packed(root: Path, max_pixels: int, min_classes: int) -> Table:
    """Table of a folder of shards: their index, in the order of the folder that was packed."""
    index = read_index(root)
    if len(index.classes) < min_classes:
        raise UserError(
            f"{root}: only one class is packed there ({index.classes[0]}); a classifier needs two or more"
        )
    columns = index.columns
    shards = Shards(root, index.shards, columns["shard"], columns["offset"])
    arrays: dict[str, Any] = {name: columns[name] for name in _ARRAYS}
    table = Table(root, index.classes, fingerprint=index.fingerprint, shards=shards, **arrays)
    large = np.flatnonzero(table.width.astype(np.int64) * table.height > max_pixels)
    if len(large):
        where = f"{shards.where(int(large[0]))} ({table.path(int(large[0]))})"
        raise UserError(
            f"{root / where}: more than data.max_pixels={max_pixels} pixels, as are "
            f"{len(large)} of {len(table)} packed photos; raise data.max_pixels or pack with --max-side"
        )
    return table
