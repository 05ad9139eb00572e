"""The columns of a set of photos, loose or packed: one row per sample.

Rows are held in numpy arrays (about 60 bytes and the path per sample), never as Python objects, so that a
table of millions stays small and quick to load.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.listing import path_at, split_paths
from flowerfast.photos.remote_shards import RemoteShards
from flowerfast.photos.shards import Shards
from flowerfast.places import spelled

FOLDS = ("", "train", "val", "test")
"""What the folds are called."""
COLUMNS = ("label", "width", "height", "orientation", "size", "fold", "path_bytes", "path_ends")
"""Arrays of a table, of a row per sample or of their paths."""


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
        label: int32 (n,); see `pairs`.
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
        sets: where photos have several labels, the sets of classes of which `label` is the place; else None.
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
    sets: LabelSets | None = None

    def __len__(self) -> int:
        return len(self.label)

    def pairs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `rows`, class) of all classes that these samples have, int64 (m,) each, by place.

        Of one label a photo they are as many as the rows.
        """
        if self.sets is None:
            return np.arange(len(rows)), self.label[rows].astype(np.int64)
        return self.sets.pairs(self.label[rows])

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """How many of some samples have each class: int64 (classes,)."""
        return np.bincount(self.pairs(rows)[1], minlength=len(self.classes))

    def named(self, label: int) -> str:
        """What a label stands for, for people."""
        if self.sets is None:
            return self.classes[label]
        return ", ".join(self.classes[number] for number in self.sets[label]) or "no label"

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
