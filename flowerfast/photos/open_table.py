"""The table of a place, whatever it is: a folder, shards, or a file that names photos."""

import zlib
from dataclasses import replace
from pathlib import Path

from flowerfast.errors import UserError
from flowerfast.machine import Progress
from flowerfast.photos.classes import listed
from flowerfast.photos.kept_tables import kept_file, load_kept, store
from flowerfast.photos.label_file import Columns, check_readable
from flowerfast.photos.label_rows import list_rows
from flowerfast.photos.layout import Layout
from flowerfast.photos.listing import list_photos
from flowerfast.photos.packed_table import oriented as with_orientations
from flowerfast.photos.packed_table import packed_table
from flowerfast.photos.scan import VERSION, scan
from flowerfast.photos.shard_cache import Mirror
from flowerfast.photos.shard_index import is_packed
from flowerfast.photos.table import Table
from flowerfast.photos.tar_photos import read_tars, tars_of
from flowerfast.places import TABLES, is_table, no_photos_at


def read_table(
    root: Path | Mirror,
    max_pixels: int,
    progress: Progress | None = None,
    min_classes: int = 2,
    layout: Layout = "auto",
    oriented: bool = True,
    wanted: tuple[str, ...] | None = None,
    columns: Columns | None = None,
) -> Table:
    """Table of a folder of class folders, of one with train/, val/, test/ (see `layout`), or of shards, here
    or elsewhere; or of what a CSV, TSV or Parquet file names, by its `columns`.

    Of the classes `wanted`, in their order; None: of all.

    Headers are read once and cached per folder under the user's cache folder; the cache is valid as long as
    no file's name, size or modification time changes, none that could not be read can be, and no photo is
    found to have other dimensions. Shards of earlier versions do not say how photos are turned: their headers
    are read so too, if they are to be `oriented`.
    Raises UserError when the folder is missing, has no photos or fewer than `min_classes` classes.
    """
    if isinstance(root, Mirror) or (not is_table(root) and is_packed(root)):
        shards = packed_table(root, max_pixels, min_classes, wanted)
        if shards.orientation.all() or not oriented:
            return shards
        return with_orientations(shards, wanted, max_pixels, progress)
    check_place(root)
    tars = [] if is_table(root) else tars_of(root)
    if tars:
        found = read_tars(root, tars, max_pixels, progress, layout, columns or Columns())
        return packed_table(root, max_pixels, min_classes, wanted, found)
    place, file = root, root if is_table(root) else None
    if file is not None:
        root, listing = list_rows(file, columns or Columns(), layout)
    else:
        _check_unnamed(place, columns or Columns())
        listing = list_photos(root, layout)
    if wanted is not None:
        listing = listed(listing, wanted, place)
    if listing.sets is not None:
        min_classes = min(min_classes, 1)  # yes or no is a question
    _check_classes(place, listing.classes, min_classes)
    read_as: tuple[object, ...] = zlib.crc32(listing.label.data), zlib.crc32(listing.fold.data)
    if listing.sets is not None:
        read_as = (*read_as, listing.sets.digest())
    key, cache = listing.fingerprint(VERSION, max_pixels, *read_as), kept_file(place, wanted)
    table = load_kept(cache, root, file, key)
    if table is None:
        table = scan(root, file, listing, max_pixels, progress)
        store(cache, table, key)
    if wanted is not None and len(table.classes) < len(wanted):
        absent = next(name for name in listing.classes if name not in table.classes)
        raise UserError(f"{place}: class {absent!r} (data.classes) has no photos; add some or leave it out")
    _check_classes(place, table.classes, min_classes)
    if not len(table):
        first = table.bad[0]
        where = "" if file is None else f"; paths are relative to {file.parent.resolve()}"
        raise UserError(
            f"{place}: none of {len(listing)} photos can be read; first: {first.path}: {first.error}{where}"
        )
    return replace(table, notes=(*table.notes, *listing.notes))


def _check_unnamed(folder: Path, columns: Columns) -> None:
    """Raise UserError where columns are named, of which class folders have none."""
    named = (("path", columns.path), ("label", columns.label), ("split", columns.split))
    for what, name in named:
        if name is not None:
            raise UserError(
                f"{folder}: class folders, and data.{what}_column={name} is a column of a table; give the "
                "table, or drop it"
            )
    if columns.are_several:
        raise UserError(
            f"{folder}: class folders, and data.label_separator or data.label_columns say that photos have "
            "several labels; give a table of them"
        )


def has_columns(place: Path) -> bool:
    """Whether a place is a table, or tar files of others, whose members and fields are its columns."""
    return is_table(place) or (place.is_dir() and not is_packed(place) and bool(tars_of(place)))


def check_place(place: Path) -> None:
    """Raise UserError unless there is such a folder, or such a table that can be read."""
    if is_table(place):
        if not place.exists():
            raise UserError(f"{place}: no such file; give a table that names photos, or a folder of them")
        check_readable(place)
    elif not place.is_dir():
        what = f"no folder, and no table ({', '.join(TABLES)})" if place.exists() else "no such folder"
        raise UserError(no_photos_at(place, what))


def _check_classes(root: Path, classes: tuple[str, ...], min_classes: int) -> None:
    if 1 < len(classes) < min_classes:
        raise UserError(
            f"{root}: {len(classes)} classes with photos; min_classes={min_classes} are asked for"
        )
    if 0 < len(classes) < min_classes:
        raise UserError(f"{root}: only one class with photos ({classes[0]}); a classifier needs two or more")
