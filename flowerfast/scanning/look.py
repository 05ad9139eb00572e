"""Every photo decoded once, and what is to be known of each: its format, its fingerprints, its oddities.

A photo counts as damaged when `Photos` cannot read or decode it: those that training would skip.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from flowerfast.errors import one_line
from flowerfast.machine import Progress, usable_cores
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.formats import open_image
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import Workers, in_order, iter_chunks
from flowerfast.scanning.alike import GRID, TONES, perceptual_hash
from flowerfast.training.thumbnails import SIDE, enough

_CHUNK = 8  # photos per task
_AHEAD = 4  # tasks per thread
_GREY = 2  # levels by which channels of a grey photo may differ, after averaging
_BLANK = 4  # levels between the darkest and the lightest part of a photo on which nothing is to be seen
_DIGEST = 16  # bytes; that two of 1e9 different files agree by chance has a probability below 1e-20


@dataclass(frozen=True, eq=False)
class Look:
    """What there is to know of a photo that can be decoded.

    Attributes:
        format: Pillow's name of its format, MPO counted as JPEG; by content, not by name.
        mode: Pillow's name of how its pixels are stored, as RGB, L or CMYK.
        digest: of its bytes: equal for equal files.
        hash: see `alike.perceptual_hash`.
        tones: uint8 (TONES,), the photo in grey, reduced.
        is_cut: its file ends early; what is lost came out grey, or was no pixel.
        is_grey: without colour, however it is stored.
        is_blank: of one tone all over.
    """

    format: str
    mode: str
    digest: bytes
    hash: int
    tones: np.ndarray
    is_cut: bool
    is_grey: bool
    is_blank: bool


class Damage(NamedTuple):
    """Why a photo cannot be decoded, and whether its file ends early."""

    why: str
    is_cut: bool


@dataclass(frozen=True, eq=False)
class Looks:
    """Of a set of photos.

    Attributes:
        rows: int64 (n,), ascending: sample indices of those that can be decoded.
        looks: of each of them, in that order.
        damaged: why the others cannot be, by sample index, one line each.
        cut: those of the others whose files end early.
    """

    rows: np.ndarray
    looks: Sequence[Look]
    damaged: dict[int, str]
    cut: frozenset[int]

    @property
    def digests(self) -> np.ndarray:
        """(n,), 16 bytes each."""
        return np.array([look.digest for look in self.looks], f"V{_DIGEST}")

    @property
    def hashes(self) -> np.ndarray:
        """uint64 (n,)."""
        return np.array([look.hash for look in self.looks], np.uint64)

    @property
    def tones(self) -> np.ndarray:
        """uint8 (n, TONES)."""
        return np.array([look.tones for look in self.looks], np.uint8).reshape(-1, TONES)


def look_at(photos: Photos, threads: int | None = None, progress: Progress | None = None) -> Looks:
    """Decode all photos of a set by `threads` threads, one per usable core where that is None or 0.

    Shards are read in the order in which photos lie in them. Raises RunFailed when nothing comes at all.
    """
    order = np.sort(photos.indices)
    shards = photos.table.shards
    if shards is not None:
        order = order[np.lexsort((shards.offset[order], shards.shard[order]))]
        photos.expect(iter_chunks(order, _CHUNK), by_shard=True)
    seen: dict[int, Look] = {}
    damaged: dict[int, Damage] = {}
    for done, (row, look) in enumerate(_each(photos, order, threads or usable_cores()), 1):
        if isinstance(look, Look):
            seen[row] = look
        else:
            damaged[row] = look
        if progress:
            progress(done, len(order))
    rows = np.array(sorted(seen), np.int64)
    why = {row: damaged[row].why for row in sorted(damaged)}
    cut = frozenset(row for row, damage in damaged.items() if damage.is_cut)
    return Looks(rows, [seen[row] for row in rows.tolist()], why, cut)


def _each(photos: Photos, order: np.ndarray, threads: int) -> Iterator[tuple[int, Look | Damage]]:
    def work(rows: np.ndarray) -> list[Look | Damage]:
        return [_look(photos, row) for row in rows.tolist()]

    pieces = [*iter_chunks(order, _CHUNK)]
    with closing(Workers(threads, "flowerfast-scan")) as pool:
        found = in_order(pool, work, pieces, threads * _AHEAD, photos.place)
        for rows, looks in zip(pieces, found, strict=True):
            yield from zip(rows.tolist(), looks, strict=True)


def _look(photos: Photos, row: int) -> Look | Damage:
    content = b""
    try:
        encoded = photos.read_one(row)
        content = encoded.tobytes()
        pixels = photos.decode(row, encoded, shrink=enough(photos, row, SIDE))
    except (OSError, DecodeError) as error:
        return Damage(one_line(error), ends_early(content))
    kind, mode = _stored_as(content)
    small = np.asarray(Image.fromarray(pixels).resize((GRID, GRID), Image.Resampling.BOX))
    grey = np.asarray(Image.fromarray(small).convert("L"))
    spread = small.max(axis=2).astype(np.int16) - small.min(axis=2)
    return Look(
        format="JPEG" if kind == "MPO" else kind,
        mode=mode,
        digest=hashlib.blake2b(content, digest_size=_DIGEST).digest(),
        hash=perceptual_hash(grey),
        tones=reduced(grey),
        is_cut=ends_early(content),
        is_grey=bool(spread.max() <= _GREY),
        is_blank=int(grey.max()) - int(grey.min()) <= _BLANK,
    )


def _stored_as(content: bytes) -> tuple[str, str]:
    """Pillow's names of format and mode; "unknown" where only another decoder knows the photo."""
    try:
        with open_image(io.BytesIO(content)) as image:
            return image.format or "unknown", image.mode
    except Exception:  # of what they do not know its plugins make almost any
        return "unknown", "unknown"


def reduced(grey: np.ndarray) -> np.ndarray:
    """Means of two by two of uint8 (GRID, GRID), in a row: uint8 (TONES,)."""
    half = GRID // 2
    means: np.ndarray = grey.reshape(half, 2, half, 2).mean(axis=(1, 3)).round().astype(np.uint8)
    return means.ravel()


def ends_early(content: bytes) -> bool:
    """Whether a file of a photo lacks its end, as far as its format tells: JPEG, PNG, WebP.

    A JPEG's last scan is followed by the marker EOI (ITU-T T.81, B.2.1), and that marker cannot stand in
    coded data; a PNG ends with the chunk IEND; a WebP says how long it is.
    """
    if content.startswith(b"\xff\xd8"):
        scan = content.rfind(b"\xff\xda")
        return scan < 0 or content.rfind(b"\xff\xd9") < scan
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    return False
