"""Samples of a table: labels, sizes, subsets, bytes and pixels."""

import copy
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from flowerfast.arguments import of_kind, whole
from flowerfast.config import DataConfig, speaking_of, validate
from flowerfast.documents import shown
from flowerfast.errors import UserError, one_line
from flowerfast.photos.bad import BadFiles
from flowerfast.photos.decode import ChangedError, DecodeError, decode
from flowerfast.photos.kept_tables import forget
from flowerfast.photos.layout import TEST, nfc
from flowerfast.photos.orientation import turn
from flowerfast.photos.reading import read_many, read_one
from flowerfast.photos.remote_shards import RemoteShards
from flowerfast.photos.split import divide
from flowerfast.photos.table import BadFile, Table


class Samples:
    """What `Photos` does with the rows of a table, once it is opened; see there.

    Args:
        table: of all photos.
        data: of whose settings `exif`, `on_bad`, `max_bad` and `max_pixels` hold.
        wanted: the classes that the table was read with.
    """

    def __init__(self, table: Table, data: DataConfig, wanted: tuple[str, ...] | None) -> None:
        self.table, self._wanted, self._max_pixels = table, wanted, data.max_pixels
        # By sample index; None where no photo is to be turned.
        stored = data.exif == "ignore" or not (table.orientation > 1).any()
        self._orientation = None if stored else table.orientation
        self.indices = np.arange(len(table))
        self._bad = BadFiles(table, data.on_bad, data.max_bad)

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
        return self._labels(self._samples(indices), np.float32)

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
    def test(self) -> Self:
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

    def subset(self, indices: np.ndarray | Sequence[int]) -> Self:
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

    def split(self, val_fraction: float = 0.2, seed: int = 0) -> tuple[Self, Self]:
        """(training photos, validation photos), stratified: see `split.divide`. Raises UserError.

        A folder with train/ and val/ brings its own split; photos of test/ are in neither half.
        """
        with speaking_of({"data.val_fraction": "val_fraction"}):
            share = validate({"data": {"val_fraction": val_fraction}}, "split").data.val_fraction
        train, val = divide(self.table, self.indices, share, whole("split: seed", seed, 0, 2**64))
        return self.subset(train), self.subset(val)

    def with_classes(self, classes: Sequence[str]) -> Self:
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
        rows = rows if rows.shape != (0,) else np.zeros(0, np.int64)  # of no numbers: floats
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise UserError(f"indices={shown(indices)}: give whole numbers in one row")
        wrong = rows[(rows < 0) | (rows >= len(self.table))]
        if len(wrong):
            raise UserError(f"{self.source}: no sample {wrong[0]}; there are 0 to {len(self.table) - 1}")
        return rows.astype(np.int64, copy=False)
