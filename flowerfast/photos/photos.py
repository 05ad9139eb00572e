"""`Photos`: a set of samples, wherever their files lie."""

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from flowerfast.arguments import of_kind, path, place, whole
from flowerfast.config import DataConfig, Exif, speaking_of, validate
from flowerfast.documents import shown
from flowerfast.errors import UserError, one_line
from flowerfast.machine import Progress
from flowerfast.photos.bad import BadFiles
from flowerfast.photos.classes import class_names
from flowerfast.photos.decode import ChangedError, DecodeError, decode
from flowerfast.photos.kept_tables import forget
from flowerfast.photos.label_file import Columns
from flowerfast.photos.layout import TEST, Layout, nfc
from flowerfast.photos.open_table import read_table
from flowerfast.photos.orientation import turn
from flowerfast.photos.reading import read_many, read_one
from flowerfast.photos.remote_shards import RemoteShards
from flowerfast.photos.shard_cache import mirror
from flowerfast.photos.split import divide
from flowerfast.photos.table import BadFile
from flowerfast.places import url_of

_DEFAULTS = DataConfig()


class Photos:
    """Samples of a folder, or of shards at a URL: where each lies, its label and size, its bytes and pixels.

    A sample is known by its index in the whole folder, in whatever subset it is: its random parameters and
    its file follow from that. Methods that take one raise IndexError where there is none, -1 too; those that
    take an array of them raise UserError. Subsets share the columns and the count of bad files.

    Args:
        folder: one folder of photos per class, one with train/, val/ or test/, or one of packed shards or
            of tar files that others wrote; the URL of packed shards; or a table, CSV, TSV or Parquet, that
            names photos and their labels.
        layout: whether folders named train, val, test are halves ("split") or classes ("classes"); "auto":
            halves where class folders are in them. Of a table "classes" leaves out its column of splits.
        classes: those to take, in the order of their labels, or a file of a name per line; None: all.
        path_column, label_column, split_column: of a table; None: those of the usual names. Of tar files
            that others wrote, the suffix of the photos, and the suffix or the JSON field of their labels.
        label_separator: of a table, text between the labels of a photo that has several; None: each has one.
        label_columns: of a table, columns of 0 and 1, one per class, of photos with several labels: their
            names, or "*" for all but those of path and split.
        max_pixels: photos of more pixels count as bad.
        exif: "apply": photos are turned upright as their EXIF orientation says, and so are their sizes;
            "ignore": they are taken as they are stored.
        on_bad: photos that cannot be read or decoded are skipped and counted, or raise UserError.
        max_bad: share of bad files above which UserError is raised all the same.
        min_classes: classes that the folder must have.
        cache_dir, cache_gb: where photos that come from a URL are kept, and how many GB (1e9 bytes) of them;
            None: in the user's cache folder, a third of what is free.
        progress: is told (files looked at, files in all) at the first scan.

    Raises UserError when the folder is missing, holds no photos or too few classes.

    Attributes:
        table: columns of the whole folder, a row per sample index.
        indices: int64 (n,), the samples of this set.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        layout: Layout = _DEFAULTS.layout,
        classes: Sequence[str] | str | None = None,
        path_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        label_separator: str | None = None,
        label_columns: Sequence[str] | str | None = None,
        max_pixels: int = _DEFAULTS.max_pixels,
        exif: Exif = _DEFAULTS.exif,
        on_bad: Literal["skip", "fail"] = _DEFAULTS.on_bad,
        max_bad: float = _DEFAULTS.max_bad,
        cache_dir: Path | str | None = None,
        cache_gb: float | None = None,
        min_classes: int = 2,
        progress: Progress | None = None,
    ) -> None:
        given = {
            "layout": layout,
            "classes": classes,
            "path_column": path_column,
            "label_column": label_column,
            "split_column": split_column,
            "label_separator": label_separator,
            "label_columns": label_columns,
            "max_pixels": max_pixels,
            "exif": exif,
            "on_bad": on_bad,
            "max_bad": max_bad,
            "cache_dir": None if cache_dir is None else str(path("Photos: cache_dir", cache_dir)),
            "cache_gb": cache_gb,
        }
        with speaking_of({f"data.{name}": name for name in given}):
            data = validate({"data": given}, "Photos").data
        of_kind("Photos: progress", progress, Callable | None, "a function of two numbers")
        least, max_pixels = whole("Photos: min_classes", min_classes, 0), data.max_pixels
        self._wanted, columns = class_names(data.classes), Columns.of(data)
        folder = place("Photos: folder", folder)
        url = url_of(folder)
        there = folder if url is None else mirror(url, data.cache_dir, data.cache_gb)
        how = layout, exif == "apply", self._wanted, columns
        self.table = read_table(there, max_pixels, progress, least, *how)
        # By sample index; None where no photo is to be turned.
        stored = exif == "ignore" or not (self.table.orientation > 1).any()
        self._orientation = None if stored else self.table.orientation
        self.indices = np.arange(len(self.table))
        self._bad = BadFiles(self.table, on_bad, data.max_bad)
        self._max_pixels = max_pixels

    @classmethod
    def open(
        cls, folder: Path | str, data: DataConfig, progress: Progress | None = None, min_classes: int = 2
    ) -> "Photos":
        """Photos as the settings `data` want them read."""
        of_kind("Photos.open: data", data, DataConfig, "ff.DataConfig(...)")
        return cls(
            folder,
            layout=data.layout,
            classes=data.classes,
            path_column=data.path_column,
            label_column=data.label_column,
            split_column=data.split_column,
            label_separator=data.label_separator,
            label_columns=data.label_columns,
            max_pixels=data.max_pixels,
            exif=data.exif,
            on_bad=data.on_bad,
            max_bad=data.max_bad,
            cache_dir=data.cache_dir,
            cache_gb=data.cache_gb,
            min_classes=min_classes,
            progress=progress,
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"<Photos: {len(self)} samples of {len(self.classes)} classes in {self.source}>"

    @property
    def root(self) -> Path:
        """The folder that paths are in; of shards at a URL, where what is fetched of them is kept."""
        return self.table.root

    @property
    def source(self) -> str:
        """The folder, the table or the URL, for messages."""
        return self.table.source

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted unless they were chosen; a label is the position."""
        return self.table.classes

    @property
    def labels(self) -> np.ndarray:
        """Labels of this set's samples: int64 (n,); where photos have several, bool (n, classes)."""
        return self._labels(self.indices, np.bool_)

    @property
    def multilabel(self) -> bool:
        """Whether a photo may have several labels, or none."""
        return self.table.sets is not None

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """What a model is to answer of samples: int64 (m,), the class of each; or float32 (m, classes), 1 for
        each that it has.
        """
        return self._labels(indices, np.float32)

    def _labels(self, indices: np.ndarray, kind: type) -> np.ndarray:
        place, label = self.table.pairs(indices)
        if self.table.sets is None:
            return label
        hot: np.ndarray = np.zeros((len(indices), len(self.classes)), kind)
        hot[place, label] = 1
        return hot

    @property
    def bad(self) -> tuple[BadFile, ...]:
        """Files of the whole folder that were left out so far, at the scan or when they were decoded."""
        return (*self.table.bad, *self._bad.by_index.values())

    @property
    def test(self) -> "Photos":
        """Those of this set that lie in test/: no half of `split` has them. Empty where there is no test/."""
        return self.subset(self.indices[self.table.fold[self.indices] == TEST])

    @property
    def bad_indices(self) -> frozenset[int]:
        """Samples of the whole folder that could not be decoded so far."""
        return frozenset(self._bad.by_index)

    @property
    def bad_reasons(self) -> dict[int, str]:
        """Why those could not be, by sample index."""
        return {index: bad.error for index, bad in self._bad.by_index.items()}

    def report_bad(self, index: int, error: str) -> None:
        """Note a sample that cannot be decoded. Raises UserError when `on_bad` or `max_bad` say so."""
        self._bad.add(index, self.where(index), error)

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(width, height) of photos in pixels, turned as `decode` turns them, each int64 (m,)."""
        indices = self._samples(indices)
        width, height = (side[indices].astype(np.int64) for side in (self.table.width, self.table.height))
        if self._orientation is None:
            return width, height
        swapped = self._orientation[indices] > 4
        return np.where(swapped, height, width), np.where(swapped, width, height)

    def orientations(self, indices: np.ndarray) -> np.ndarray:
        """How `decode` turns photos, see `photos.orientation`: int64 (m,), 1 for those left as stored."""
        indices = self._samples(indices)
        if self._orientation is None:
            return np.ones(len(indices), np.int64)
        orientations: np.ndarray = self._orientation[indices].astype(np.int64)
        return orientations

    @property
    def are_turned(self) -> bool:
        """Whether `decode` turns any photo of the whole folder."""
        return self._orientation is not None

    @property
    def fingerprint(self) -> str:
        """Hex digest of the whole folder's files and of how they are turned."""
        if self._orientation is None:
            return self.table.fingerprint
        return hashlib.sha256(self.table.fingerprint.encode() + self._orientation.tobytes()).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """How the whole folder was read, what is no photo there, how many are turned, a line each."""
        turned = 0 if self._orientation is None else int((self._orientation > 1).sum())
        what = f"{turned} of {len(self.table)} photos are stored turned and are turned upright"
        return (*self.table.notes, *([f"{what} (data.exif=apply)"] if turned else []))

    def path(self, index: int) -> str:
        """Path of a sample relative to `root`, with / between folders; of packed ones as it was."""
        return self.table.path(self._sample(index))

    def where(self, index: int) -> str:
        """Where a sample is, relative to `root`, for messages: its path, or shard, member and path."""
        shards, index = self.table.shards, self._sample(index)
        return self.path(index) if shards is None else f"{shards.where(index)} ({self.path(index)})"

    def place(self, index: int) -> str:
        """The same without a look at the disk, which may be what is waited for: no member of a shard."""
        return self.table.place(self._sample(index))

    # ------------------------------------------------------------------------------------------- subsets

    def subset(self, indices: np.ndarray | Sequence[int]) -> "Photos":
        """The samples with these indices, in this order; a mask, bool (n,), chooses among this set's.

        Raises UserError for what is no index of the folder.
        """
        try:
            chosen = np.asarray(indices)
        except ValueError as error:
            raise UserError(f"subset: {one_line(error)}; give whole numbers in one row") from None
        chosen = chosen if chosen.size else np.zeros(0, np.int64)
        if chosen.dtype == bool and chosen.shape == self.indices.shape:
            chosen = self.indices[chosen]
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise UserError(
                f"subset: got {chosen.dtype} of shape {chosen.shape}; give whole numbers in one row, or a "
                f"mask of {len(self)}"
            )
        part = copy.copy(self)
        part.indices = self._samples(chosen)
        return part

    def split(self, val_fraction: float = 0.2, seed: int = 0) -> tuple["Photos", "Photos"]:
        """(training photos, validation photos), stratified: see `split.divide`. Raises UserError.

        A folder with train/ and val/ brings its own split; photos of test/ are in neither half.
        """
        with speaking_of({"data.val_fraction": "val_fraction"}):
            share = validate({"data": {"val_fraction": val_fraction}}, "split").data.val_fraction
        train, val = divide(self.table, self.indices, share, whole("split: seed", seed, 0, 2**64))
        return self.subset(train), self.subset(val)

    def with_classes(self, classes: Sequence[str]) -> "Photos":
        """The same photos, labelled by position in `classes`, which holds all of theirs, NFC or NFD."""
        of_kind("with_classes: classes", classes, list | tuple, "the names in a list")
        names = Counter(nfc(str(name)) for name in classes)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise UserError(f"with_classes: class {shown(twice)} is named twice; name each once")
        same = copy.copy(self)
        known = {nfc(str(name)): label for label, name in enumerate(classes)}
        absent = next((name for name in self.classes if nfc(name) not in known), None)
        if absent is not None:
            raise UserError(
                f"with_classes: class {absent!r} of {self.source} is not among {shown(classes)}; add it"
            )
        position, sets = np.array([known[nfc(name)] for name in self.classes], np.int32), self.table.sets
        if sets is not None:
            sets, position = sets.placed(position)
        labels = {"label": position[self.table.label], "bad_label": position[self.table.bad_label]}
        same.table = replace(self.table, classes=tuple(classes), sets=sets, **labels)
        return same

    # -------------------------------------------------------------------------------------------- bytes

    def expect(self, batches: Iterator[np.ndarray], by_shard: bool = False) -> None:
        """Say what will be read, samples int64 (m,) of batch after batch: from a URL they come ahead.

        It takes the place of what was said before; a thread of its own goes through the batches.
        With `by_shard` the batches take shard after shard: what has been read makes room for what comes.
        """
        if isinstance(self.table.shards, RemoteShards):
            self.table.shards.expect(batches, by_shard)

    def read(
        self, indices: np.ndarray, compiled: bool = True, look: bool = False
    ) -> tuple[list[np.ndarray | OSError], np.ndarray]:
        """Encoded bytes of some samples, int64 (m,), as they are now; threads may call it.

        They are read in one call that does not hold the interpreter lock, unless `compiled` is False or the
        compiled loops are not there (yet, see `kernels.ready`).
        Each result is uint8 (bytes,), read-only, or why it cannot be read. Beside them bool (m,): whether the
        photo is known to be a plain JPEG of its size, see `kernels.jpeg_header.is_plain`; False says nothing,
        and without `look` there is nothing else.
        """
        return read_many(self.table, self._samples(indices), self._max_pixels, compiled, look)

    def read_one(self, index: int) -> np.ndarray:
        """Encoded bytes of a sample as they are now: uint8 (bytes,), read-only. Raises OSError."""
        return read_one(self.table, self._sample(index), self._max_pixels)

    def decode(
        self,
        index: int,
        encoded: np.ndarray | None = None,
        buffer: np.ndarray | None = None,
        shrink: int = 1,
        upright: bool = True,
    ) -> np.ndarray:
        """Pixels of a sample: uint8 (height, width, 3), RGB. Raises OSError, DecodeError or IndexError.

        `encoded` are its bytes if they have been read already; `buffer` and `shrink` as in `decode.decode`.
        Without `upright` it is left as it is stored.
        """
        index = self._sample(index)
        width, height = int(self.table.width[index]), int(self.table.height[index])
        try:
            encoded = self.read_one(index) if encoded is None else encoded
            pixels = decode(encoded, width, height, buffer, shrink)
        except ChangedError:
            # Perhaps with the size in bytes and the time of the file before, by which nothing would tell.
            if self.table.shards is None:
                forget(self.table.file or self.root, self._wanted)
            raise
        if self._orientation is None or not upright:
            return pixels
        return turn(pixels, int(self._orientation[index]))

    def problem(self, index: int) -> str | None:
        """Why a sample cannot be decoded, in one line; None: it can."""
        try:
            self.decode(index)
        except (OSError, DecodeError) as error:
            return str(error)
        return None

    def _sample(self, index: int) -> int:
        number = whole("index", index, -(2**63))
        if not 0 <= number < len(self.table):
            raise IndexError(
                f"no sample {number} in {self.source}: there are {len(self.table)}, counted from 0"
            )
        return number

    def _samples(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        rows = np.asarray(indices)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise UserError(f"indices={shown(indices)}: give whole numbers in one row")
        wrong = rows[(rows < 0) | (rows >= len(self.table))]
        if len(wrong):
            raise UserError(f"{self.source}: no sample {wrong[0]}; there are 0 to {len(self.table) - 1}")
        return rows.astype(np.int64, copy=False)


def iter_chunks(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive pieces of `indices`, `size` long; the last may be shorter."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
