"""A table from a listing: all headers are read, once."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from flowerfast.errors import UserError
from flowerfast.machine import Progress
from flowerfast.photos.decode import reason
from flowerfast.photos.formats import is_clipped, is_raw, not_photos
from flowerfast.photos.header import Header, LimitError, check_bytes, clipped_note, read_header
from flowerfast.photos.heads import read_heads
from flowerfast.photos.label_rows import labels_digest
from flowerfast.photos.listing import Listing
from flowerfast.photos.table import FOLDS, BadFile, Table
from flowerfast.photos.walk import some
from flowerfast.photos.workers import one_by_one

VERSION = 3
"""Of what a scan makes of a file; a part of fingerprints."""


def scan(
    root: Path, file: Path | None, listing: Listing, max_pixels: int, progress: Progress | None
) -> Table:
    """Table of a listing, of a folder or of a `file` that names the photos.

    Raises UserError where none is a photo, or none of a half can be read.
    """
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
            VERSION, max_pixels, *([labels_digest(found)] if file is not None else [])
        ),
        bad=tuple(bad),
        bad_label=bad_label,
        bad_fold=bad_fold,
        file=file,
        sets=found.sets,
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
        notes.append(clipped_note(clipped))
    return notes
