"""A folder of photos as arrays: one row per sample, made once by scanning headers.

Rows are held in numpy arrays (about 60 bytes and the path per sample), never as Python objects, so that a
manifest of millions stays small and quick to load.
"""

import hashlib
import io
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from flowerfast.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
CACHE_VERSION = 2
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would translate line ends
Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""


@dataclass(frozen=True)
class BadFile:
    """A file that is no usable photo, and why."""

    path: str
    error: str


@dataclass(frozen=True)
class Manifest:
    """One row per sample, ordered by fold, class, folder and name.

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
        return [self.path(i) for i in range(len(self))]

    def with_labels(self, classes: Sequence[str]) -> "Manifest":
        """The same photos, labelled by position in `classes`, which holds all of this manifest's."""
        position = np.array([list(classes).index(name) for name in self.classes], np.int32)
        return replace(self, classes=tuple(classes), label=position[self.label])

    def read(self, index: int) -> np.ndarray:
        """Encoded bytes of a sample as they are now: uint8 (bytes,), read-only. Raises OSError.

        Three system calls, since the size is known: half the time of np.fromfile, and each call in which a
        thread lets go of the interpreter lock is one after which it must wait for it.
        """
        file = os.open(os.path.join(self.root, self.path(index)), _READ)
        try:
            size = int(self.size[index])
            encoded = os.read(file, size + 1)  # one more, to see a file that has grown
            if len(encoded) != size:
                encoded += b"".join(iter(lambda: os.read(file, 1 << 20), b""))
        finally:
            os.close(file)
        return np.frombuffer(encoded, np.uint8)


@dataclass(frozen=True)
class _Entry:
    path: str
    label: int
    fold: int
    size: int
    mtime_ns: int


def load_manifest(
    root: Path | str,
    max_pixels: int = 80_000_000,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
    min_classes: int = 2,
) -> Manifest:
    """Manifest of a folder of class folders, or of one with train/ and val/ (test/ is left alone).

    Headers are read once and cached per folder under `cache_dir` (default: the user's cache folder); the
    cache is valid as long as no file's name, size or modification time changes.
    Raises UserError when the folder is missing, has no photos or fewer than `min_classes` classes.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "no such folder"
        raise UserError(f"{root}: {what}; give a folder that holds one folder of photos per class")
    classes, entries = _list(root)
    if len(classes) < min_classes:
        raise UserError(
            f"{root}: only one class with photos ({classes[0]}); a classifier needs two or more class folders"
        )
    fingerprint = _fingerprint(classes, entries, max_pixels)
    cache = _cache_file(root, cache_dir)
    manifest = _load_cache(cache, root, classes, fingerprint)
    if manifest is None:
        manifest = _scan(root, classes, entries, fingerprint, max_pixels, progress)
        _store_cache(cache, manifest)
    if not len(manifest):
        first = manifest.bad[0]
        raise UserError(
            f"{root}: none of {len(entries)} photos can be read; first: {first.path}: {first.error}"
        )
    return manifest


def _list(root: Path) -> tuple[tuple[str, ...], list[_Entry]]:
    folds = [(root / "train", 1), (root / "val", 2)]
    if not all(folder.is_dir() for folder, _ in folds):
        folds = [(root, 0)]
    classes = sorted({c for folder, _ in folds for c in _class_folders(folder)})
    if not classes:
        loose = any(path.suffix.lower() in SUFFIXES for path in root.iterdir())
        more = "photos lie beside, not in, class folders" if loose else "it holds no class folders"
        raise UserError(f"{root}: {more}; expected {root.name}/CLASS/photo.jpg, one folder per class")
    entries: list[_Entry] = []
    for folder, fold in folds:
        for label, name in enumerate(classes):
            if (folder / name).is_dir():
                entries += _photos(root, folder / name, label, fold)
    found = {entry.label for entry in entries}
    if not entries:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{root}: no photos in {len(classes)} folders; looked for {kinds}")
    # A folder without photos is no class (ImageFolder would fail on it); labels stay dense.
    used = [name for label, name in enumerate(classes) if label in found]
    dense = {label: i for i, label in enumerate(sorted(found))}
    entries = [_Entry(e.path, dense[e.label], e.fold, e.size, e.mtime_ns) for e in entries]
    return tuple(used), entries


def _class_folders(folder: Path) -> list[str]:
    return [e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")]


def _photos(root: Path, folder: Path, label: int, fold: int) -> list[_Entry]:
    found = []
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        prefix = os.path.relpath(here, root).replace(os.sep, "/")
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                file = os.path.join(here, name)
                # A dangling link is named among the bad files like any other that cannot be read.
                stat = os.stat(file) if os.path.exists(file) else os.lstat(file)
                found.append(_Entry(f"{prefix}/{name}", label, fold, stat.st_size, stat.st_mtime_ns))
    return found


def _fingerprint(classes: tuple[str, ...], entries: list[_Entry], max_pixels: int) -> str:
    digest = hashlib.sha256(repr((CACHE_VERSION, classes, max_pixels)).encode("utf-8", "surrogateescape"))
    for e in entries:
        line = f"{e.path}\0{e.size}\0{e.mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _scan(
    root: Path,
    classes: tuple[str, ...],
    entries: list[_Entry],
    fingerprint: str,
    max_pixels: int,
    progress: Progress | None,
) -> Manifest:
    good: list[_Entry] = []
    sizes: list[tuple[int, int]] = []
    bad: list[BadFile] = []
    last = time.monotonic()
    for i, entry in enumerate(entries):
        try:
            sizes.append(read_size(root / entry.path, max_pixels))
            good.append(entry)
        except (OSError, ValueError) as error:
            bad.append(BadFile(entry.path, _reason(error)))
        if progress and time.monotonic() - last > 0.1:
            progress(i + 1, len(entries))
            last = time.monotonic()
    encoded = [e.path.encode("utf-8", "surrogateescape") for e in good]
    size = np.array(sizes, np.int32).reshape(-1, 2)
    return Manifest(
        root=root,
        classes=classes,
        label=np.array([e.label for e in good], np.int32),
        width=size[:, 0].copy(),
        height=size[:, 1].copy(),
        size=np.array([e.size for e in good], np.int64),
        fold=np.array([e.fold for e in good], np.uint8),
        path_bytes=np.frombuffer(b"".join(encoded), np.uint8),
        path_ends=np.cumsum([len(p) for p in encoded], dtype=np.int64),
        fingerprint=fingerprint,
        bad=tuple(bad),
    )


def read_size(file: Path | io.BytesIO, max_pixels: int) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises OSError or ValueError when it is no photo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is the guard
        try:
            with Image.open(file) as image:
                width, height = image.size
        except (Image.DecompressionBombError, SyntaxError) as error:
            raise ValueError(str(error)) from error
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels, more than data.max_pixels={max_pixels}")
    return width, height


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _cache_file(root: Path, cache_dir: Path | None) -> Path:
    key = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return (cache_dir or user_cache_dir() / "manifests") / f"{key}.npz"


def user_cache_dir() -> Path:
    """flowerfast's cache folder: $FLOWERFAST_CACHE, else flowerfast under the user's cache folder."""
    own = os.environ.get("FLOWERFAST_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "flowerfast"


_ARRAYS = ("label", "width", "height", "size", "fold", "path_bytes", "path_ends")


def _load_cache(cache: Path, root: Path, classes: tuple[str, ...], fingerprint: str) -> Manifest | None:
    try:
        # Opened here: np.load leaves a damaged file open.
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None
            bad = tuple(BadFile(str(p), str(e)) for p, e in stored["bad"].reshape(-1, 2))
            arrays = {name: stored[name] for name in _ARRAYS}
    except (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None  # no cache yet, or a damaged one: scanning again costs seconds
    return Manifest(root=root, classes=classes, fingerprint=fingerprint, bad=bad, **arrays)


def _store_cache(cache: Path, manifest: Manifest) -> None:
    arrays = {name: getattr(manifest, name) for name in _ARRAYS}
    bad = np.array([(b.path, b.error) for b in manifest.bad], dtype=np.str_).reshape(-1, 2)
    partial = cache.with_suffix(f".{os.getpid()}")
    with suppress(OSError, UnicodeEncodeError):  # a read-only home costs a scan per start, not the run
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, fingerprint=np.array(manifest.fingerprint), bad=bad, **arrays)
            os.replace(partial, cache)
        finally:
            partial.unlink(missing_ok=True)


def iter_chunks(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive pieces of `indices`, `size` long; the last may be shorter."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
