"""The photos in a folder as arrays: names, sizes and times, without opening a file.

This runs at every start, also where all headers are cached, so it handles names by the folder, not one by
one. What is left is a system call per file, to see whether it has changed.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowerfast.errors import UserError
from flowerfast.photos.formats import FORMATS, is_raw, not_photos
from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.layout import Fold, Layout, find_folds, nfc
from flowerfast.photos.walk import ENDINGS, Walk, opens, some

_RELATIVE = os.stat in os.supports_dir_fd  # names looked up in an open folder: half the time of whole paths
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
NUMBERS = 4
"""Of a file: size, time, inode, device."""
_INT64 = (1 << 63) - 1
_PATHS = 1 << 16  # paths that are moved at a time: their places take eight times their bytes


@dataclass(frozen=True)
class Listing:
    """One row per file that may be a photo, ordered by fold, class, folder and name.

    Attributes:
        classes: names of the class folders with such files, sorted; the label is the position.
        label: int32 (n,).
        fold: uint8 (n,), 0 where the split is free, 1 for train/, 2 for val/, 3 for test/.
        size, mtime_ns: int64 (n,), bytes and time of last change.
        path_bytes, path_ends: uint8 (total,) and int64 (n,): all paths relative to the root, in UTF-8 with /
            between folders, and where each one ends.
        named: bool (n,), whether the name is that of a photo; of others only the content can tell.
        notes: what was left out, and how the folder was read, a line each.
        sets: where photos have several labels, the sets of classes of which `label` is the place; else None.
    """

    classes: tuple[str, ...]
    label: np.ndarray
    fold: np.ndarray
    size: np.ndarray
    mtime_ns: np.ndarray
    path_bytes: np.ndarray
    path_ends: np.ndarray
    named: np.ndarray
    notes: tuple[str, ...] = ()
    sets: LabelSets | None = None

    def __len__(self) -> int:
        return len(self.label)

    def path(self, index: int) -> str:
        """Path of a row relative to the root."""
        return path_at(self.path_bytes, self.path_ends, index)

    def fingerprint(self, *settings: object) -> str:
        """Hex digest of names, sizes and times, and of `settings`."""
        text = repr((self.classes, *settings)).encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(text)
        for array in (self.path_bytes, self.path_ends, self.size, self.mtime_ns):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def only(self, keep: np.ndarray) -> "Listing":
        """The rows of a mask, bool (n,). A class without rows is none: labels stay dense.

        Where photos have several labels, and a table has said which classes there are, these stay.
        """
        if keep.all():
            return self
        lengths = np.diff(self.path_ends, prepend=0)
        classes, label = self.classes, self.label[keep]
        if self.sets is None:
            used, label = np.unique(label, return_inverse=True)
            classes = tuple(self.classes[i] for i in used)
        return Listing(
            classes=classes,
            label=label.astype(np.int32),
            fold=self.fold[keep],
            size=self.size[keep],
            mtime_ns=self.mtime_ns[keep],
            path_bytes=self.path_bytes[np.repeat(keep, lengths)],
            path_ends=np.cumsum(lengths[keep]),
            named=self.named[keep],
            notes=self.notes,
            sets=self.sets,
        )


def path_at(path_bytes: np.ndarray, path_ends: np.ndarray, index: int) -> str:
    """One of the paths of a table's or listing's arrays."""
    start = int(path_ends[index - 1]) if index else 0
    return path_bytes[start : int(path_ends[index])].tobytes().decode("utf-8", "surrogateescape")


def split_paths(path_bytes: np.ndarray, path_ends: np.ndarray) -> list[str]:
    """Paths, one by one, of a table's or listing's arrays."""
    if not len(path_ends):
        return []
    apart: np.ndarray = np.insert(path_bytes, path_ends[:-1], 0)  # no name holds a zero
    return apart.tobytes().decode("utf-8", "surrogateescape").split("\0")


def gathered(path_bytes: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Paths, uint8, one after another of `lengths`, in another order: those of the rows int64 (m,)."""
    starts, lengths = np.cumsum(lengths) - lengths, lengths[order]
    out, done = np.empty(lengths.sum(), np.uint8), 0
    for at in range(0, len(order), _PATHS):
        some = lengths[at : at + _PATHS]
        ends = np.cumsum(some)
        places = np.repeat(starts[order[at : at + _PATHS]] - (ends - some), some) + np.arange(ends[-1])
        out[done : done + ends[-1]] = path_bytes[places]
        done += int(ends[-1])
    return out


def scatter(path_bytes: np.ndarray, out: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Copy paths, uint8, one after another of `lengths`, to where each is to start in `out`."""
    done = 0
    for at in range(0, len(starts), _PATHS):
        some = lengths[at : at + _PATHS].astype(np.int64)
        ends = np.cumsum(some)
        places = np.repeat(starts[at : at + _PATHS] - (ends - some), some) + np.arange(ends[-1])
        out[places] = path_bytes[done : done + ends[-1]]
        done += int(ends[-1])


@dataclass(frozen=True)
class _Part:
    """Files of one folder: paths, int64 (n, NUMBERS), and which have a photo's name."""

    paths: bytes
    ends: np.ndarray
    numbers: np.ndarray
    named: np.ndarray


def list_photos(root: Path, layout: Layout = "auto") -> Listing:
    """What may be a photo in the class folders of `root`, or in those of its halves: see `layout`.

    Raises UserError when there is nothing, or when people would not agree how the folder is to be read.
    """
    walk = Walk(root, whole=True)
    folds, notes = find_folds(root, walk, layout)
    spelled: dict[str, str] = {}  # of each class, the first spelling
    places: dict[str, list[tuple[int, str]]] = {}  # of each class, (fold, folder)
    for fold in folds:
        for name in fold.classes:
            spelled.setdefault(nfc(name), name)
            places.setdefault(nfc(name), []).append((fold.fold, under(fold.folder, name)))
    classes = sorted(spelled.values())
    if not classes:
        loose = walk.inside("")[1]
        more = "photos lie beside, not in, class folders" if loose else "it holds no class folders"
        raise UserError(f"{root}: {more}; expected {root.name}/CLASS/photo.jpg, one folder per class")
    parts: list[_Part] = []
    rows: list[tuple[int, int, int]] = []  # label, fold, files of each part
    for fold in folds:
        for label, name in enumerate(classes):
            for place in [place for number, place in places[nfc(name)] if number == fold.fold]:
                for at, files in walk.below(place):
                    parts.append(_part(walk.absolute(at), at, files))
                    rows.append((label, fold.fold, len(files)))
                    del files[
                        1:
                    ]  # of many files the names are what takes most; that there are some is asked again
    if not parts:
        what = f"{root}: no photos in {len(classes)} folders; read are {', '.join(FORMATS)}"
        raise UserError("; ".join([what, *walk.notes]))
    notes += [*_class_notes(walk, places), *_loose(walk, folds), *walk.notes]
    return _join(classes, parts, np.array(rows), notes)


def photos_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Photos of a folder and all below it, as a class folder of that name would be listed; and what was left
    out, a line each.

    Files without a photo's name are opened to see. Raises UserError when the folder cannot be read.
    """
    walk = Walk(folder)
    photos: list[Path] = []
    others: list[str] = []
    for at, names in walk.below(""):
        for name in names:
            path = folder / at / name
            if name.lower().endswith(ENDINGS) or (not is_raw(name) and opens(path)):
                photos.append(path)
            else:
                others.append(under(at, name))
    return photos, [*([not_photos(others)] if others else []), *walk.notes]


def under(folder: str, name: str) -> str:
    """The path of a file in a folder; "" is the root."""
    return f"{folder}/{name}" if folder else name


def _class_notes(walk: Walk, places: dict[str, list[tuple[int, str]]]) -> list[str]:
    """Class folders without a file, and those that only the form of Unicode tells apart."""
    notes = []
    empty = [
        f"{of_class[0][1]}/"
        for of_class in places.values()
        if not any(walk.below(place) or walk.is_own(place) for _, place in of_class)
    ]
    if empty:
        notes.append(f"left out, folders without a file: {some(sorted(empty))}")
    twice = [of_class[0][1] for of_class in places.values() if len({*of_class}) > len(dict(of_class))]
    if twice:
        notes.append(f"read as one class, for the names differ in Unicode's form only: {some(twice)}")
    return notes


def _loose(walk: Walk, folds: list[Fold]) -> list[str]:
    """Photos beside class folders."""
    places = {"", *(fold.folder for fold in folds)}
    loose = [under(at, name) for at in sorted(places) for name in walk.inside(at)[1]]
    return [f"left out, photos that lie in no class folder: {some(loose)}"] if loose else []


def _join(classes: list[str], parts: list[_Part], rows: np.ndarray, notes: list[str]) -> Listing:
    # A folder without photos is no class (ImageFolder would fail on it); labels stay dense.
    used, dense = np.unique(rows[:, 0], return_inverse=True)
    offsets = np.cumsum([0, *(len(part.paths) for part in parts)])
    ends = np.concatenate([part.ends + start for part, start in zip(parts, offsets[:-1], strict=True)])
    named, paths = np.concatenate([part.named for part in parts]), [part.paths for part in parts]
    numbers = [part.numbers for part in parts]
    parts.clear()  # each column in turn takes the place of its parts: of many files both are large
    size, mtime, inode, device = (np.concatenate([part[:, k] for part in numbers]) for k in range(NUMBERS))
    numbers.clear()
    path_bytes = np.frombuffer(b"".join(paths), np.uint8)
    paths.clear()
    listing = Listing(
        classes=tuple(classes[label] for label in used),
        label=np.repeat(dense.astype(np.int32), rows[:, 2]),
        fold=np.repeat(rows[:, 1].astype(np.uint8), rows[:, 2]),
        size=size,
        mtime_ns=mtime,
        path_bytes=path_bytes,
        path_ends=ends,
        named=named,
    )
    return replace(listing, notes=(*notes, *same_files(listing, inode, device)))


def same_files(listing: Listing, inode: np.ndarray, device: np.ndarray) -> list[str]:
    """Files that come under two classes, or in two halves, by way of links."""
    order = np.argsort(inode, kind="stable")
    ordered = inode[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
    one, other = order[same], order[same + 1]
    alike = device[one] == device[other]
    notes = []
    for column, where in ((listing.label, "under two classes"), (listing.fold, "in two halves")):
        pairs = np.flatnonzero(alike & (column[one] != column[other]))
        if len(pairs):
            first = " and ".join(sorted((listing.path(one[pairs[0]]), listing.path(other[pairs[0]]))))
            more = f", and {len(pairs) - 1} more" if len(pairs) > 1 else ""
            notes.append(f"one file {where}: {first}{more}")
    return notes


def _part(folder: str, prefix: str, names: list[str]) -> _Part:
    between = f"{prefix}/"
    joined = (between + f"\0{between}".join(names)).encode("utf-8", "surrogateescape")
    gaps = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0)
    ends = np.append(gaps, len(joined)) - np.arange(len(names))  # as without the gaps
    named = np.fromiter((name.lower().endswith(ENDINGS) for name in names), np.bool_, len(names))
    return _Part(joined.replace(b"\0", b""), ends, numbers_of(folder, names), named)


def numbers_of(folder: str, names: list[str]) -> np.ndarray:
    """Size, time, inode and device of files in a folder, int64 (n, NUMBERS); zeros: it has gone."""
    numbers = np.fromiter(_numbers(folder, names), np.int64, NUMBERS * len(names))
    return numbers.reshape(-1, NUMBERS)


def _numbers(folder: str, names: list[str]) -> Iterator[int]:
    """Size, time, inode and device of each file in turn."""
    opened = _opened(folder)
    try:
        for name in names:
            file = os.path.join(folder, name) if opened is None else name
            status = _status(file, opened)
            if status is None:
                yield from (0, 0, 0, 0)
                continue
            yield status.st_size
            yield status.st_mtime_ns
            yield status.st_ino & _INT64
            yield status.st_dev & _INT64
    finally:
        if opened is not None:
            os.close(opened)


def _opened(folder: str) -> int | None:
    """Descriptor of a folder to look up names in; None: they are looked up by their paths."""
    with suppress(OSError):  # it may have gone, or be something else by now: its files are then missing
        return os.open(folder, _FOLDER) if _RELATIVE else None
    return None


def _status(file: str, folder: int | None) -> os.stat_result | None:
    """Of a file, or of the link itself where it leads nowhere; None: it has gone. Both are then bad files."""
    for status in (os.stat, os.lstat):
        with suppress(OSError):
            return status(file, dir_fd=folder)
    return None
