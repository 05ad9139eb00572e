"""A folder of photos, loose or packed, as arrays: one row per sample, made once by scanning headers.

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
from typing import Any

import numpy as np
from PIL import Image

from flowerfast.data.listing import Listing, list_photos
from flowerfast.data.shards import Shards, is_packed, read_index
from flowerfast.errors import UserError

CACHE_VERSION = 3
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

    def where(self, index: int) -> str:
        """Where a sample is, relative to root, for messages: its path, or shard, member and path."""
        if self.shards is None:
            return self.path(index)
        return f"{self.shards.where(index)} ({self.path(index)})"

    def with_labels(self, classes: Sequence[str]) -> "Manifest":
        """The same photos, labelled by position in `classes`, which holds all of this manifest's."""
        position = np.array([list(classes).index(name) for name in self.classes], np.int32)
        return replace(self, classes=tuple(classes), label=position[self.label])

    def read(self, index: int) -> np.ndarray:
        """Encoded bytes of a sample as they are now: uint8 (bytes,), read-only. Raises OSError.

        Three system calls, since the size is known: half the time of np.fromfile, and each call in which a
        thread lets go of the interpreter lock is one after which it must wait for it.
        Of packed photos: a view of the mapped shard, without a copy.
        """
        if self.shards is not None:
            return self.shards.read(index, int(self.size[index]))
        file = os.open(os.path.join(self.root, self.path(index)), _READ)
        try:
            size = int(self.size[index])
            encoded = os.read(file, size + 1)  # one more, to see a file that has grown
            if len(encoded) != size:
                encoded += b"".join(iter(lambda: os.read(file, 1 << 20), b""))
        finally:
            os.close(file)
        return np.frombuffer(encoded, np.uint8)


def split_paths(path_bytes: np.ndarray, path_ends: np.ndarray) -> list[str]:
    """Paths, one by one, of a manifest's or listing's arrays."""
    if not len(path_ends):
        return []
    apart: np.ndarray = np.insert(path_bytes, path_ends[:-1], 0)  # no name holds a zero
    return apart.tobytes().decode("utf-8", "surrogateescape").split("\0")


def load_manifest(
    root: Path | str,
    max_pixels: int = 80_000_000,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
    min_classes: int = 2,
) -> Manifest:
    """Manifest of a folder of class folders, of one with train/ and val/ (test/ is left alone), or of shards.

    Headers are read once and cached per folder under `cache_dir` (default: the user's cache folder); the
    cache is valid as long as no file's name, size or modification time changes.
    Raises UserError when the folder is missing, has no photos or fewer than `min_classes` classes.
    """
    root = Path(root)
    if is_packed(root):
        return _packed(root, max_pixels, min_classes)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "no such folder"
        raise UserError(f"{root}: {what}; give a folder that holds one folder of photos per class")
    found = list_photos(root)
    if len(found.classes) < min_classes:
        only = found.classes[0]
        raise UserError(
            f"{root}: only one class with photos ({only}); a classifier needs two or more class folders"
        )
    fingerprint = found.fingerprint(CACHE_VERSION, max_pixels)
    cache = _cache_file(root, cache_dir)
    manifest = _load_cache(cache, root, found.classes, fingerprint)
    if manifest is None:
        manifest = _scan(root, found, fingerprint, max_pixels, progress)
        _store_cache(cache, manifest)
    if not len(manifest):
        first = manifest.bad[0]
        raise UserError(
            f"{root}: none of {len(found)} photos can be read; first: {first.path}: {first.error}"
        )
    return manifest


def _scan(
    root: Path, found: Listing, fingerprint: str, max_pixels: int, progress: Progress | None
) -> Manifest:
    sizes = np.zeros((len(found), 2), np.int32)
    bad: list[BadFile] = []
    good = np.ones(len(found), bool)
    last = time.monotonic()
    for i, path in enumerate(split_paths(found.path_bytes, found.path_ends)):
        try:
            sizes[i] = read_size(root / path, max_pixels)
        except (OSError, ValueError) as error:
            good[i] = False
            bad.append(BadFile(path, _reason(error)))
        if progress and time.monotonic() - last > 0.1:
            progress(i + 1, len(found))
            last = time.monotonic()
    lengths = np.diff(found.path_ends, prepend=0)
    return Manifest(
        root=root,
        classes=found.classes,
        label=found.label[good],
        width=sizes[good, 0],
        height=sizes[good, 1],
        size=found.size[good],
        fold=found.fold[good],
        path_bytes=found.path_bytes[np.repeat(good, lengths)],
        path_ends=np.cumsum(lengths[good]),
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


def _packed(root: Path, max_pixels: int, min_classes: int) -> Manifest:
    """Manifest of a folder of shards: their index, in the order of the folder that was packed."""
    index = read_index(root)
    if len(index.classes) < min_classes:
        raise UserError(
            f"{root}: only one class is packed there ({index.classes[0]}); a classifier needs two or more"
        )
    columns = index.columns
    shards = Shards(root, index.shards, columns["shard"], columns["offset"])
    arrays: dict[str, Any] = {name: columns[name] for name in _ARRAYS}
    manifest = Manifest(root, index.classes, fingerprint=index.fingerprint, shards=shards, **arrays)
    large = np.flatnonzero(manifest.width.astype(np.int64) * manifest.height > max_pixels)
    if len(large):
        raise UserError(
            f"{root / manifest.where(int(large[0]))}: more than data.max_pixels={max_pixels} pixels, as are "
            f"{len(large)} of {len(manifest)} packed photos; raise data.max_pixels or pack with --max-side"
        )
    return manifest
