"""The columns of a folder of photos, loose or packed: one row per sample, made once by scanning headers.

Rows are held in numpy arrays (about 60 bytes and the path per sample), never as Python objects, so that a
table of millions stays small and quick to load.
"""

import hashlib
import io
import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from flowerfast.errors import UserError, one_line
from flowerfast.files import open_regular, replacing
from flowerfast.machine import Progress, folder_problem, logger, user_cache_dir
from flowerfast.photos.arrays import NPZ_ERRORS, read_npz
from flowerfast.photos.classes import listed, packed
from flowerfast.photos.decode import reason
from flowerfast.photos.formats import is_clipped, is_raw, not_photos
from flowerfast.photos.header import Header, LimitError, check_bytes, read_header
from flowerfast.photos.heads import read_heads
from flowerfast.photos.label_file import Columns, check_readable
from flowerfast.photos.label_rows import labels_digest, list_rows
from flowerfast.photos.layout import Layout
from flowerfast.photos.listing import Listing, list_photos, path_at, split_paths
from flowerfast.photos.remote_shards import RemoteShards
from flowerfast.photos.shard_cache import Mirror
from flowerfast.photos.shard_index import is_packed, read_index
from flowerfast.photos.shards import Shards
from flowerfast.photos.walk import some
from flowerfast.photos.workers import one_by_one
from flowerfast.places import TABLES, in_full, is_table, spelled

CACHE_VERSION = 3
FOLDS = ("", "train", "val", "test")
"""What the folds are called."""


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
        width, height: int32 (n,), pixels of the photo as stored.
        orientation: uint8 (n,), by which it is to be turned, 1 to 8, see `photos.orientation`; 0: not known
            (of shards of earlier versions).
        size: int64 (n,), bytes of the file.
        fold: uint8 (n,), 0 where the split is free, 1 for train/, 2 for val/, 3 for test/.
        path_bytes, path_ends: uint8 (total,) and int64 (n,): all paths in UTF-8, and where each one ends.
        fingerprint: hex digest of names, sizes and modification times of all files.
        bad: files left out at the scan.
        shut: those of them that the system would not let be read: their time need not tell when that changes.
        notes: what else was left out there, and how the folder was read, a line each.
        shards: where the bytes are when the folder is one of packed shards, else None. `path` is then the
            path that a photo had in the folder which was packed.
        bad_label, bad_fold: int32 and uint8 (len(bad),), what those of `bad` would be.
        file: the table that names the photos, None: a folder holds them.
    """

    root: Path
    classes: tuple[str, ...]
    label: np.ndarray
    width: np.ndarray
    height: np.ndarray
    orientation: np.ndarray
    size: np.ndarray
    fold: np.ndarray
    path_bytes: np.ndarray
    path_ends: np.ndarray
    fingerprint: str
    bad: tuple[BadFile, ...] = field(default=())
    shut: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shards: Shards | None = None
    bad_label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    bad_fold: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def source(self) -> str:
        """The root, the table, or the URL that the photos come from, for messages."""
        if isinstance(self.shards, RemoteShards):
            return self.shards.place.url
        return str(self.file or self.root)

    def inside(self, path: str) -> str:
        """The place of something in it, for messages."""
        return spelled(Path(self.source if self.file is None else self.root) / path)

    def path(self, index: int) -> str:
        """Path of a sample relative to root, with / between folders."""
        return path_at(self.path_bytes, self.path_ends, index)

    def place(self, index: int) -> str:
        """Where a sample is, for messages, without a look at the disk: no member of a shard."""
        path = self.path(index)
        if self.shards is None:
            return path
        return f"{self.shards.files[int(self.shards.shard[index])].name} ({path})"

    def paths(self) -> list[str]:
        """All paths, by index."""
        return split_paths(self.path_bytes, self.path_ends)


def read_table(
    root: Path | Mirror,
    max_pixels: int,
    progress: Progress | None = None,
    min_classes: int = 2,
    layout: Layout = "auto",
    oriented: bool = True,
    wanted: tuple[str, ...] | None = None,
    columns: Columns | None = None,
) -> Table:
    """Table of a folder of class folders, of one with train/, val/, test/ (see `layout`), or of shards, here
    or elsewhere; or of what a CSV, TSV or Parquet file names, by its `columns`.

    Of the classes `wanted`, in their order; None: of all.

    Headers are read once and cached per folder under the user's cache folder; the cache is valid as long as
    no file's name, size or modification time changes, none that could not be read can be, and no photo is
    found to have other dimensions. Shards
    of earlier versions do not say how photos are turned: their headers are read so too, if they are to be
    `oriented`.
    Raises UserError when the folder is missing, has no photos or fewer than `min_classes` classes.
    """
    if isinstance(root, Mirror) or (not is_table(root) and is_packed(root)):
        shards = _packed(root, max_pixels, min_classes, wanted)
        if shards.orientation.all() or not oriented:
            return shards
        return _oriented(shards, _cache_file(shards.root, wanted), max_pixels, progress)
    check_place(root)
    place, file = root, root if is_table(root) else None
    if file is not None:
        root, listing = list_rows(file, columns or Columns(), layout)
    else:
        listing = list_photos(root, layout)
    if wanted is not None:
        listing = listed(listing, wanted, place)
    _check_classes(place, listing.classes, min_classes)
    read_as = zlib.crc32(listing.label.data), zlib.crc32(listing.fold.data)
    key, cache = listing.fingerprint(CACHE_VERSION, max_pixels, *read_as), _cache_file(place, wanted)
    table = _load_cache(cache, root, file, key)
    if table is None:
        table = _scan(root, file, listing, max_pixels, progress)
        _store_cache(cache, table, key)
    if wanted is not None and len(table.classes) < len(wanted):
        absent = next(name for name in listing.classes if name not in table.classes)
        raise UserError(f"{place}: class {absent!r} (data.classes) has no photos; add some or leave it out")
    _check_classes(place, table.classes, min_classes)
    if not len(table):
        first = table.bad[0]
        where = "" if file is None else f"; paths are relative to {file.parent.resolve()}"
        raise UserError(
            f"{place}: none of {len(listing)} photos can be read; first: {first.path}: {first.error}{where}"
        )
    return replace(table, notes=(*table.notes, *listing.notes))


def check_place(place: Path) -> None:
    """Raise UserError unless there is such a folder, or such a table that can be read."""
    if is_table(place):
        if not place.exists():
            raise UserError(f"{place}: no such file; give a table that names photos, or a folder of them")
        check_readable(place)
    elif not place.is_dir():
        what = f"no folder, and no table ({', '.join(TABLES)})" if place.exists() else "no such folder"
        raise UserError(f"{place}: {what}; give a folder that holds one folder of photos per class")


def forget(place: Path, wanted: tuple[str, ...] | None = None) -> None:
    """Read all headers of a place anew at the next start: those that are kept are not of its photos."""
    with suppress(OSError):
        _cache_file(place, wanted).unlink(missing_ok=True)


def _check_classes(root: Path, classes: tuple[str, ...], min_classes: int) -> None:
    if 1 < len(classes) < min_classes:
        raise UserError(
            f"{root}: {len(classes)} classes with photos; min_classes={min_classes} are asked for"
        )
    if 0 < len(classes) < min_classes:
        raise UserError(
            f"{root}: only one class with photos ({classes[0]}); a classifier needs two or more class folders"
        )


def _scan(
    root: Path, file: Path | None, listing: Listing, max_pixels: int, progress: Progress | None
) -> Table:
    headers = read_heads(root, listing, progress)
    large = headers[:, 0].astype(np.int64) * headers[:, 1] > max_pixels
    headers[large] = 0
    rest = np.flatnonzero(headers[:, 0] == 0)
    good, photo = np.ones(len(listing), bool), np.ones(len(listing), bool)
    bad: list[BadFile] = []
    bad_at: list[int] = []
    clipped: list[str] = []
    others: list[str] = []
    shut: list[str] = []
    sizes, last = listing.size, time.monotonic()

    def look(i: int) -> Header | OSError | ValueError:
        try:
            path = listing.path(i)
            if is_raw(path):  # by its name none of a photo; but a table may name one
                raise UnidentifiedImageError
            check_bytes(int(sizes[i]), max_pixels)
            return read_header(root / path, max_pixels)
        except (OSError, ValueError) as error:
            return error

    for i, header in zip(rest.tolist(), one_by_one(rest, look, listing.path), strict=True):
        path = listing.path(i)
        if isinstance(header, Header):
            headers[i] = header.width, header.height, header.orientation
            if is_clipped(header.mode):
                clipped.append(path)
        else:
            good[i] = False
            if listing.named[i] or isinstance(header, LimitError):
                bad.append(BadFile(path, reason(header)))
                bad_at.append(i)
                if isinstance(header, OSError) and header.errno is not None:
                    shut.append(path)
            else:
                photo[i] = False
                others.append(path)
        if progress and time.monotonic() - last > 0.1:
            progress(i + 1, len(listing))
            last = time.monotonic()
    if not photo.any():
        raise UserError(f"{root}: no photo in {len(listing.classes)} folders: {not_photos(others)}")
    found, good = listing.only(photo), good[photo]
    bad_rows = (np.cumsum(photo) - 1)[bad_at]
    bad_label, bad_fold = found.label[bad_rows], found.fold[bad_rows]
    for fold in np.setdiff1d(found.fold, found.fold[good]).tolist() if good.any() else ():
        # Else photos of another half would be taken for this one.
        first = bad[int(np.argmax(bad_fold == fold))]
        half = root / first.path.partition("/")[0] if file is None else f"{file}: split {FOLDS[fold]}"
        raise UserError(f"{half}: no readable photos; first: {first.path}: {first.error}")
    kinds = {*found.classes}
    empty = [f"{name}/" for name in listing.classes if name not in kinds]
    headers = headers if photo.all() else headers[photo]
    usable = found if good.all() else _with_rows(found, good)
    return Table(
        root=root,
        classes=usable.classes,
        label=usable.label,
        width=headers[good, 0],
        height=headers[good, 1],
        orientation=headers[good, 2].astype(np.uint8),
        size=usable.size,
        fold=usable.fold,
        path_bytes=usable.path_bytes,
        path_ends=usable.path_ends,
        # Of a folder the paths say the rest.
        fingerprint=found.fingerprint(
            CACHE_VERSION, max_pixels, *([labels_digest(found)] if file is not None else [])
        ),
        bad=tuple(bad),
        bad_label=bad_label,
        bad_fold=bad_fold,
        file=file,
        shut=tuple(shut),
        notes=tuple(_scan_notes(others, empty, clipped)),
    )


def _with_rows(listing: Listing, keep: np.ndarray) -> Listing:
    """Of a listing the rows of a mask, bool (n,), in what a table takes of it; labels stay what they are."""
    lengths = np.diff(listing.path_ends, prepend=0)
    return replace(
        listing,
        label=listing.label[keep],
        size=listing.size[keep],
        fold=listing.fold[keep],
        path_bytes=listing.path_bytes[np.repeat(keep, lengths)],
        path_ends=np.cumsum(lengths[keep]),
    )


def _scan_notes(others: list[str], empty: list[str], clipped: list[str]) -> list[str]:
    notes = [not_photos(others)] if others else []
    if empty:
        notes.append(f"no classes, for none of their files is a photo: {some(empty)}")
    if clipped:
        what = "1 photo has" if len(clipped) == 1 else f"{len(clipped)} photos have"
        white = "more than 8 bits a channel, which Pillow turns white where it passes 255"
        notes.append(f"{what} {white}: {some(clipped)}; convert to 8 bits")
    return notes


def _cache_file(place: Path, wanted: tuple[str, ...] | None) -> Path:
    named = in_full(place) + ("" if wanted is None else f"\0{wanted}")
    key = hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return user_cache_dir() / "manifests" / f"{key}.npz"


_TEXTS = ("classes", "notes", "shut")
_ARRAYS = ("label", "width", "height", "orientation", "size", "fold", "path_bytes", "path_ends")
_KEPT = (*_ARRAYS, "bad_label", "bad_fold")


def _load_cache(cache: Path, root: Path, file: Path | None, key: str) -> Table | None:
    try:
        stored = read_npz(cache)
        if str(stored["key"]) != key:
            return None
        bad = tuple(BadFile(str(p), str(e)) for p, e in stored["bad"].reshape(-1, 2))
        texts = {name: tuple(map(str, stored[name])) for name in _TEXTS}
        if any(_opens(root / path) for path in texts["shut"]):
            return None
        arrays: dict[str, Any] = {name: stored[name] for name in _KEPT}
        fingerprint = str(stored["fingerprint"])
    except NPZ_ERRORS:
        return None  # no cache yet, or a damaged one: scanning again costs seconds
    arrays |= {"shut": texts["shut"], "notes": texts["notes"], "file": file}
    return Table(root, texts["classes"], fingerprint=fingerprint, bad=bad, **arrays)


def _store_cache(cache: Path, table: Table, key: str) -> None:
    if folder_problem(cache.parent) is not None:
        return  # said when the folder was chosen
    arrays = {name: getattr(table, name) for name in _KEPT}
    bad = np.array([(b.path, b.error) for b in table.bad], dtype=np.str_).reshape(-1, 2)
    try:
        arrays |= {name: np.array(getattr(table, name), np.str_) for name in (*_TEXTS, "fingerprint")}
        with replacing(cache, shared=True) as fresh, fresh.open("wb") as file:
            np.savez(file, key=np.array(key), bad=bad, **arrays)
    except (OSError, UnicodeEncodeError) as error:  # costs a scan per start, not the run
        logger.warning("flowerfast: %s: sizes of photos are not kept (%s)", cache, one_line(error))


def _opens(file: Path) -> bool:
    with suppress(OSError):
        os.close(open_regular(file))
        return True
    return False


def _packed(place: Path | Mirror, max_pixels: int, min_classes: int, wanted: tuple[str, ...] | None) -> Table:
    """Table of a folder of shards: their index, in the order of the folder that was packed."""
    remote = place if isinstance(place, Mirror) else None
    root = place.folder if isinstance(place, Mirror) else place
    source = str(root) if remote is None else remote.url
    index = read_index(root, source)
    classes, columns, notes, fingerprint = index.classes, index.columns, list[str](), index.fingerprint
    if wanted is not None:
        classes, columns, notes = packed(classes, columns, wanted, source)
        chosen = repr((fingerprint, classes)).encode("utf-8", "surrogateescape")
        fingerprint = hashlib.sha256(chosen).hexdigest()
    if len(classes) < min_classes:
        where = "is packed there" if wanted is None else "of data.classes"
        raise UserError(f"{source}: only one class {where} ({classes[0]}); a classifier needs two or more")
    about = root, index.shards, columns["shard"], columns["offset"], columns["crc32"]
    shards = Shards(*about) if remote is None else RemoteShards(*about, columns["size"], remote)
    arrays: dict[str, Any] = {name: columns[name] for name in _ARRAYS}
    table = Table(root, classes, fingerprint=fingerprint, shards=shards, notes=tuple(notes), **arrays)
    large = np.flatnonzero(table.width.astype(np.int64) * table.height > max_pixels)
    if len(large):
        where = f"{shards.where(int(large[0]))} ({table.path(int(large[0]))})"
        raise UserError(
            f"{table.inside(where)}: more than data.max_pixels={max_pixels} pixels, as are "
            f"{len(large)} of {len(table)} packed photos; raise data.max_pixels or pack with --max-side"
        )
    return table


def _oriented(table: Table, cache: Path, max_pixels: int, progress: Progress | None) -> Table:
    """A table of shards with the orientations that their index lacks: read once, and cached as a folder's."""
    shards = table.shards
    assert shards is not None
    known = _load_cache(cache, table.root, None, table.fingerprint)
    if known is None:
        known = replace(table, orientation=table.orientation.copy())
        rows = np.flatnonzero(known.orientation == 0)

        def look(row: int) -> int:
            try:
                file = io.BytesIO(shards.read(row, int(table.size[row])).tobytes())
                return read_header(file, max_pixels).orientation
            except (OSError, ValueError):
                return 1  # damaged: whoever decodes it will say so

        for done, orientation in enumerate(one_by_one(rows, look, table.place), 1):
            known.orientation[rows[done - 1]] = orientation
            if progress and done % 256 == 0:
                progress(done, len(rows))
        _store_cache(cache, known, table.fingerprint)
    return replace(table, orientation=known.orientation)
