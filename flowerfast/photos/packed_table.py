"""The table of a folder of shards: their index has all columns."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.errors import UserError
from flowerfast.machine import Progress
from flowerfast.photos.classes import packed, places
from flowerfast.photos.header import read_header
from flowerfast.photos.kept_tables import kept_file, load_kept, store
from flowerfast.photos.remote_shards import RemoteShards
from flowerfast.photos.shard_cache import Mirror
from flowerfast.photos.shard_index import read_index
from flowerfast.photos.shards import Shards
from flowerfast.photos.table import COLUMNS, BadFile, Table
from flowerfast.photos.tar_scan import TarPhotos
from flowerfast.photos.workers import one_by_one


def packed_table(
    place: Path | Mirror,
    max_pixels: int,
    min_classes: int,
    wanted: tuple[str, ...] | None,
    found: TarPhotos | None = None,
) -> Table:
    """Table of shards: their index, in the order of the folder that was packed; or what was `found` in tars
    that others wrote. Raises UserError.
    """
    remote = place if isinstance(place, Mirror) else None
    root = place.folder if isinstance(place, Mirror) else place
    source = str(root) if remote is None else remote.url
    index = read_index(root, source) if found is None else found.index
    bad = {} if found is None else _bad_of(found, wanted)
    classes, columns, sets, notes = index.classes, index.columns, index.sets, list[str]()
    fingerprint = index.fingerprint
    if wanted is not None:
        classes, columns, sets, notes = packed(classes, columns, sets, wanted, source)
        chosen = repr((fingerprint, classes)).encode("utf-8", "surrogateescape")
        fingerprint = hashlib.sha256(chosen).hexdigest()
    if found is not None:
        notes += found.notes
    if len(classes) < min_classes and sets is None:
        where = "is packed there" if wanted is None else "of data.classes"
        raise UserError(f"{source}: only one class {where} ({classes[0]}); a classifier needs two or more")
    about = root, index.shards, columns["shard"], columns["offset"], columns["crc32"]
    shards = Shards(*about) if remote is None else RemoteShards(*about, columns["size"], remote)
    arrays: dict[str, Any] = {name: columns[name] for name in COLUMNS}
    arrays |= {"shards": shards, "notes": tuple(notes), "sets": sets}
    table = Table(root, classes, fingerprint=fingerprint, **arrays, **bad)
    large = np.flatnonzero(table.width.astype(np.int64) * table.height > max_pixels)
    if len(large):
        where = f"{shards.where(int(large[0]))} ({table.path(int(large[0]))})"
        raise UserError(
            f"{table.inside(where)}: more than data.max_pixels={max_pixels} pixels, as are "
            f"{len(large)} of {len(table)} packed photos; raise data.max_pixels or pack with --max-side"
        )
    return table


def _bad_of(found: TarPhotos, wanted: tuple[str, ...] | None) -> dict[str, Any]:
    """Columns of a table on photos of the classes `wanted` that cannot be read."""
    place = np.arange(len(found.index.classes), dtype=np.int32)
    if wanted is not None:
        place = places(found.index.classes, wanted, "tar files")
    keep = np.flatnonzero(place[found.bad_label] >= 0)
    return {
        "bad": tuple(BadFile(*found.index.bad[row]) for row in keep.tolist()),
        "bad_label": place[found.bad_label][keep],
        "bad_fold": found.bad_fold[keep],
    }


def oriented(
    table: Table, wanted: tuple[str, ...] | None, max_pixels: int, progress: Progress | None
) -> Table:
    """A table of shards with the orientations that their index lacks: read once, and cached as a folder's."""
    shards = table.shards
    assert shards is not None
    cache = kept_file(table.root, wanted)
    known = load_kept(cache, table.root, None, table.fingerprint)
    if known is None:
        known = replace(table, orientation=table.orientation.copy())
        rows = np.flatnonzero(known.orientation == 0)

        def look(row: int) -> int:
            try:
                file = io.BytesIO(shards.read(row, int(table.size[row])).tobytes())
                return read_header(file, max_pixels).orientation
            except (OSError, ValueError):
                return 1  # damaged: whoever decodes it will say so

        for done, orientation in enumerate(one_by_one(rows, look, table.place), 1):
            known.orientation[rows[done - 1]] = orientation
            if progress and done % 256 == 0:
                progress(done, len(rows))
        store(cache, known, table.fingerprint)
    return replace(table, orientation=known.orientation)
