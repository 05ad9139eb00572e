"""The photos that a table names, as a folder of them would be listed.

A row says where a photo lies, relative to the table's folder or in full, what is on it and, where there is
such a column, in which half it is. Rows come in the order of a folder with the same photos, so that how a
table is sorted changes nothing, and a table made from a folder gives that folder's batches.
"""

import hashlib
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from flowerfast.documents import shown
from flowerfast.errors import Fact, UserError
from flowerfast.nearest import did_you_mean, nearest
from flowerfast.photos.label_cells import Labels, OneLabel, SetsOfLabels
from flowerfast.photos.label_file import LABEL, PATH, SPLIT, Columns, LabelFile, Piece, opened
from flowerfast.photos.layout import FREE, SPELLINGS, Layout
from flowerfast.photos.listing import (
    NUMBERS,
    Listing,
    gathered,
    numbers_of,
    path_at,
    same_files,
    split_paths,
    under,
)


def list_rows(file: Path, columns: Columns, layout: Layout = "auto") -> tuple[Path, Listing]:
    """(folder that the paths are relative to, what a table names).

    That is the table's folder, or where photos lie outside of it the nearest one that holds all. With layout
    "classes" a column of splits is left out; with "split" there must be one.
    Raises UserError for a table that cannot be read, a row that means nothing, and a photo that is named
    twice with different labels or splits.
    """
    also = () if layout == "classes" else (SPLIT,)
    wanted = (PATH, LABEL, *(also if layout == "split" else ()))
    with opened(file, columns, wanted, also if layout == "auto" else ()) as table:
        rows = _Rows(file, SetsOfLabels(table) if table.has_several else OneLabel(table))
        for piece in table.pieces:
            rows.add(table, piece)
        listing = rows.listing(table)
    return rows.places.root, listing


def photos_named(file: Path, columns: Columns | None = None) -> list[Path]:
    """The photos that a table names, in its order, once each; its labels do not count. Raises UserError."""
    places, found = _Places(file), dict[str, None]()
    with opened(file, columns or Columns(), (PATH,), ()) as table:
        for piece in table.pieces:
            paths = zip(piece.numbers, piece.columns[PATH], strict=True)
            found |= dict.fromkeys(under(*places.of(table, *row)) for row in paths)
    if not found:
        raise UserError(f"{file}: no rows below its first line; name photos there")
    return [file.parent / path for path in found]


class _Places:
    """Where rows say that photos lie.

    Attributes:
        above: how many folders above the table's the paths lead at most.
    """

    def __init__(self, file: Path) -> None:
        self._folders: dict[str, str] = {}
        self._parent = file.parent
        self._real, self._given = os.path.realpath(file.parent), os.path.abspath(file.parent)
        self.above = 0

    @property
    def root(self) -> Path:
        """The nearest folder that holds the table and all photos."""
        return Path(self._real).parents[self.above - 1] if self.above else self._parent

    def of(self, table: LabelFile, number: int, path: str) -> tuple[str, str]:
        """(folder, relative to the table's, without a slash at its end, name) of the photo of a row."""
        folder, slash, name = (path.replace("\\", "/") if os.sep == "\\" else path).rpartition("/")
        folder += "/" if slash and not folder else ""  # the root of all
        if name in ("", ".", ".."):
            what = "names a folder" if path else "no path"
            raise table.wrong(number, f"{what}; name a photo, or remove the {table.unit}")
        if "\0" in path:
            raise table.wrong(number, f"{shown(path)} holds the character U+0000; mend that path")
        if folder not in self._folders:
            self._folders[folder] = self._relative(table, number, folder)
        return self._folders[folder], name

    def _relative(self, table: LabelFile, number: int, folder: str) -> str:
        try:
            if f"{folder}/".startswith(f"{self._given}/"):  # by way of a link, perhaps
                folder = os.path.relpath(folder, self._given)
            folder = os.path.relpath(os.path.join(self._real, folder), self._real).replace(os.sep, "/")
        except ValueError as error:  # on Windows
            raise table.wrong(number, f"{shown(folder)}: {error}; keep all on one drive") from None
        climbs = 0
        while f"{folder}/".startswith("../" * (climbs + 1)):
            climbs += 1
        self.above = max(self.above, climbs)
        return "" if folder == "." else folder

    def rerooted(self, path: str) -> str:
        """A path relative to the table's folder as one relative to `root`."""
        climbs = 0
        while path.startswith("../"):
            path, climbs = path[3:], climbs + 1
        parts = Path(self._real).parts
        return "/".join([*parts[len(parts) - self.above : len(parts) - climbs], path])


class _Rows:
    """Rows as they are read: arrays of each piece."""

    def __init__(self, file: Path, labels: Labels) -> None:
        self.file, self.places = file, _Places(file)
        self._labels = labels
        self._folds: dict[str, int] = {}
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._paths: list[bytes] = []

    def add(self, table: LabelFile, piece: Piece) -> None:
        """Take the rows of a piece. Raises UserError."""
        label = self._labels.of(piece)
        fold = [FREE] * len(label)
        if SPLIT in piece.columns:
            fold = [
                self._folds[text] if text in self._folds else self._fold(table, number, text)
                for number, text in zip(piece.numbers, piece.columns[SPLIT], strict=True)
            ]
        of = self.places.of
        places = [
            of(table, number, path) for number, path in zip(piece.numbers, piece.columns[PATH], strict=True)
        ]
        paths = [under(folder, name) for folder, name in places]
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._paths.append(b"".join(encoded))
        self._kept.append(
            (
                np.array(piece.numbers, np.int64),
                np.array(label, np.int32),
                np.array(fold, np.uint8),
                np.fromiter(map(len, encoded), np.int64, len(encoded)),
                np.fromiter(map(hash, paths), np.int64, len(paths)),
                self._numbers(places),
            )
        )

    def _numbers(self, places: list[tuple[str, str]]) -> np.ndarray:
        """Size, time, inode and device of each photo, int64 (n, NUMBERS), looked up folder by folder."""
        inside: dict[str, list[int]] = {}
        for row, (folder, _) in enumerate(places):
            inside.setdefault(folder, []).append(row)
        found = np.zeros((len(places), NUMBERS), np.int64)
        for folder, rows in inside.items():
            at = os.path.join(self.file.parent, folder)
            found[rows] = numbers_of(at, [places[row][1] for row in rows])
        return found

    def _fold(self, table: LabelFile, number: int, text: str) -> int:
        word = text.strip().casefold()
        if word not in SPELLINGS:
            near = nearest(word, SPELLINGS)
            hint = did_you_mean(near[:1]) if near else "; give train, val or test"
            named = f"{table.names[SPLIT]} {shown(text.strip())} is no split{hint}"
            raise table.wrong(number, f"{named}; data.layout=classes leaves that column out")
        self._folds[text] = SPELLINGS[word]
        return self._folds[text]

    def listing(self, table: LabelFile) -> Listing:
        """All rows that were added, as a folder's would be listed. Raises UserError."""
        if not self._kept:
            raise UserError(f"{self.file}: no rows below its first line; name photos there")
        number, label, fold, lengths, hashes, numbers = map(np.concatenate, zip(*self._kept, strict=True))
        paths, lengths = self._joined(lengths)
        classes, position, sets = self._labels.classes()
        label = position[label]
        ends = np.cumsum(lengths)
        once = self._once(table, number, label, fold, hashes, paths, ends)
        # Of sets of labels none comes before another.
        order = _order(paths, ends, label if sets is None else np.zeros_like(label), fold, once)
        listing = Listing(
            classes=classes,
            sets=sets,
            label=label[order],
            fold=fold[order],
            size=numbers[order, 0],
            mtime_ns=numbers[order, 1],
            path_bytes=gathered(paths, lengths, order),
            path_ends=np.cumsum(lengths[order]),
            named=np.ones(len(order), np.bool_),
            notes=tuple(self._notes(table, len(label) - len(order))),
        )
        linked = same_files(listing, numbers[order, 2], numbers[order, 3])
        return replace(listing, notes=(*listing.notes, *linked))

    def _joined(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(bytes of all paths, relative to the root, length of each)."""
        if not self.places.above:
            return np.frombuffer(b"".join(self._paths), np.uint8), lengths
        pieces, changed = [], []
        for content, kept in zip(self._paths, self._kept, strict=True):
            paths = split_paths(np.frombuffer(content, np.uint8), np.cumsum(kept[3]))
            encoded = [self.places.rerooted(path).encode("utf-8", "surrogateescape") for path in paths]
            pieces.append(b"".join(encoded))
            changed.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return np.frombuffer(b"".join(pieces), np.uint8), np.concatenate(changed)

    def _once(
        self,
        table: LabelFile,
        number: np.ndarray,
        label: np.ndarray,
        fold: np.ndarray,
        hashes: np.ndarray,
        paths: np.ndarray,
        ends: np.ndarray,
    ) -> np.ndarray:
        """Rows of the table, int64 (n,), each photo once: the first that names it. Raises UserError."""
        by_hash = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[by_hash][1:] == hashes[by_hash][:-1])
        keep, first = np.ones(len(hashes), bool), dict[str, int]()
        for row in np.unique(np.concatenate([by_hash[again], by_hash[again + 1]])).tolist():
            path = path_at(paths, ends, row)
            before = first.setdefault(path, row)
            if before == row:
                continue
            for column, what in ((label, LABEL), (fold, SPLIT)):
                if column[before] != column[row]:
                    said = f"{shown(path)} has another {what} than in {table.unit} {number[before]}"
                    raise table.wrong(int(number[row]), f"{said}; keep one of the two")
            keep[row] = False
        return np.flatnonzero(keep)

    def _notes(self, table: LabelFile, twice: int) -> list[str]:
        of_class = table.classes
        read = ", ".join(
            f"{role} from column {name!r}" for role, name in table.names.items() if role not in of_class
        )
        if of_class:
            read += f", labels from {len(of_class)} columns of 0 and 1"
        elif table.separator is not None:
            read += ", of which a photo may have several"
        again = f"{twice} rows name a photo that an earlier one names, with the same label: taken once"
        return [Fact(f"{self.file.name}: {read}"), *([again] if twice else [])]


def labels_digest(listing: Listing) -> str:
    """Hex digest of labels and halves, which the paths of a table do not say."""
    sets = b"" if listing.sets is None else listing.sets.digest().encode()
    return hashlib.sha256(listing.label.tobytes() + listing.fold.tobytes() + sets).hexdigest()


def _order(
    paths: np.ndarray, ends: np.ndarray, label: np.ndarray, fold: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Rows in a folder's order: by fold, class, folder and name."""
    rows = rows[np.lexsort((label[rows], fold[rows]))]
    new = (np.diff(label[rows]) != 0) | (np.diff(fold[rows]) != 0)
    bounds = [0, *(np.flatnonzero(new) + 1).tolist(), len(rows)]
    ordered = []
    for start, end in pairwise(bounds):
        group = rows[start:end].tolist()
        keys = {row: _key(path_at(paths, ends, row)) for row in group}
        ordered.append(np.array(sorted(group, key=keys.__getitem__), np.int64))
    return np.concatenate(ordered)


def _key(path: str) -> str:
    """By which paths are sorted as a walk lists them: the files of a folder before those of its folders."""
    folder, _, name = path.rpartition("/")
    return folder.replace("/", "\0") + "\0\0" + name
