"""The photos in a folder as arrays: names, sizes and times, without opening a file.

This runs at every start, also where all headers are cached, so it handles names by the folder, not one by
one. What is left is a system call per file, to see whether it has changed.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowerfast.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_ENDINGS = tuple(sorted(SUFFIXES))
_RELATIVE = os.stat in os.supports_dir_fd  # names looked up in an open folder: half the time of whole paths


@dataclass(frozen=True)
class Listing:
    """One row per file with a photo's name, ordered by fold, class, folder and name.

    Attributes:
        classes: names of the class folders with photos, sorted; the label is the position.
        label: int32 (n,).
        fold: uint8 (n,), 0 where the split is free, 1 for train/, 2 for val/.
        size, mtime_ns: int64 (n,), bytes and time of last change.
        path_bytes, path_ends: uint8 (total,) and int64 (n,): all paths relative to the root, in UTF-8 with /
            between folders, and where each one ends.
    """

    classes: tuple[str, ...]
    label: np.ndarray
    fold: np.ndarray
    size: np.ndarray
    mtime_ns: np.ndarray
    path_bytes: np.ndarray
    path_ends: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def fingerprint(self, *settings: object) -> str:
        """Hex digest of names, sizes and times, and of `settings`."""
        text = repr((self.classes, *settings)).encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(text)
        for array in (self.path_bytes, self.path_ends, self.size, self.mtime_ns):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Part:
    """Photos of one folder: paths, and int64 (n, 2) of size and time."""

    paths: bytes
    ends: np.ndarray
    numbers: np.ndarray


def list_photos(root: Path) -> Listing:
    """Photos in the class folders of `root`, or in those of its train/ and val/.

    Raises UserError when there are none.
    """
    folds = [(root / "train", 1), (root / "val", 2)]
    if not all(folder.is_dir() for folder, _ in folds):
        folds = [(root, 0)]
    classes = sorted({c for folder, _ in folds for c in _class_folders(folder)})
    if not classes:
        loose = any(path.suffix.lower() in SUFFIXES for path in root.iterdir())
        more = "photos lie beside, not in, class folders" if loose else "it holds no class folders"
        raise UserError(f"{root}: {more}; expected {root.name}/CLASS/photo.jpg, one folder per class")
    parts: list[_Part] = []
    rows: list[tuple[int, int, int]] = []  # label, fold, photos of each part
    for folder, fold in folds:
        above = _identity(root), _identity(folder)
        for label, name in enumerate(classes):
            if (folder / name).is_dir():
                inside = [*_walk(str(folder / name), (folder / name).relative_to(root).as_posix(), above)]
                parts += inside
                rows += [(label, fold, len(part.ends)) for part in inside]
    if not parts:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{root}: no photos in {len(classes)} folders; looked for {kinds}")
    return _join(classes, parts, np.array(rows))


def photos_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Photos in a folder and below it, as `list_photos` finds those of a class; and notes, a line each."""
    found = []
    for part in _walk(str(folder), ".", ()):
        ends = part.ends.tolist()
        names = (part.paths[start:end] for start, end in zip([0, *ends], ends, strict=False))
        found += [folder / name.decode("utf-8", "surrogateescape") for name in names]
    return found, []


def _join(classes: list[str], parts: list[_Part], rows: np.ndarray) -> Listing:
    # A folder without photos is no class (ImageFolder would fail on it); labels stay dense.
    used, dense = np.unique(rows[:, 0], return_inverse=True)
    offsets = np.cumsum([0, *(len(part.paths) for part in parts)])
    numbers = np.concatenate([part.numbers for part in parts])
    return Listing(
        classes=tuple(classes[label] for label in used),
        label=np.repeat(dense.astype(np.int32), rows[:, 2]),
        fold=np.repeat(rows[:, 1].astype(np.uint8), rows[:, 2]),
        size=numbers[:, 0].copy(),
        mtime_ns=numbers[:, 1].copy(),
        path_bytes=np.frombuffer(b"".join(part.paths for part in parts), np.uint8),
        path_ends=np.concatenate(
            [part.ends + start for part, start in zip(parts, offsets[:-1], strict=True)]
        ),
    )


def _class_folders(folder: Path) -> list[str]:
    return [e.name for e in os.scandir(folder) if _is_folder(e) and not e.name.startswith(".")]


def _identity(folder: Path | str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[_Part]:
    """Photos of a folder and of those below it; links to folders are followed, hidden things left alone.

    A link that leads back to a folder it lies in is not: `above` are those folders, by device and inode.
    """
    names, folders = [], []
    try:
        here = _identity(folder)
        if here in above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(name)
                elif name.lower().endswith(_ENDINGS):
                    names.append(name)
    except OSError:
        return  # not ours to read: as if it were not there
    if names:
        yield _part(folder, prefix, sorted(names))
    for name in sorted(folders):
        yield from _walk(os.path.join(folder, name), f"{prefix}/{name}", (*above, here))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _part(folder: str, prefix: str, names: list[str]) -> _Part:
    between = f"{prefix}/"
    joined = (between + f"\0{between}".join(names)).encode("utf-8", "surrogateescape")
    gaps = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0)
    ends = np.append(gaps, len(joined)) - np.arange(len(names))  # as without the gaps
    numbers = np.fromiter(_numbers(folder, names), np.int64, 2 * len(names))
    return _Part(joined.replace(b"\0", b""), ends, numbers.reshape(-1, 2))


def _numbers(folder: str, names: list[str]) -> Iterator[int]:
    """Size and time of each file in turn."""
    opened = os.open(folder, os.O_RDONLY) if _RELATIVE else None
    try:
        for name in names:
            file = name if _RELATIVE else os.path.join(folder, name)
            try:
                status = os.stat(file, dir_fd=opened)
            except OSError:
                # A dangling link is named among the bad files like any other that cannot be read.
                status = os.lstat(file, dir_fd=opened)
            yield status.st_size
            yield status.st_mtime_ns
    finally:
        if opened is not None:
            os.close(opened)
