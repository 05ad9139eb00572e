"""Tar files that others wrote in the place of a folder of photos: which they are, and what was found in them.

That is kept in the user's cache folder, never beside the tars, until one of these changes.
"""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowerfast.errors import Fact, UserError, one_line
from flowerfast.machine import Progress, folder_problem, logger, user_cache_dir
from flowerfast.photos.arrays import NPZ_ERRORS, load_arrays, save_arrays
from flowerfast.photos.label_file import Columns
from flowerfast.photos.layout import FREE, SPELLINGS, TRAIN, Layout
from flowerfast.photos.shard_index import COLUMNS, Index, Shard
from flowerfast.photos.tar_members import passed_over, tars_in
from flowerfast.photos.tar_scan import Scan, TarPhotos
from flowerfast.photos.walk import Walk, some
from flowerfast.places import in_full

_VERSION = 1


def tars_of(root: Path) -> list[str]:
    """Tar files, relative to a folder, that its photos are in; none where photos lie in its folders."""
    tars = tars_in(root, SPELLINGS)
    walk = Walk(root)
    loose = tars and any(walk.has_photos(name) for name in walk.inside("")[0])
    return [] if loose else tars


def read_tars(
    root: Path,
    names: list[str],
    max_pixels: int,
    progress: Progress | None,
    layout: Layout,
    columns: Columns,
) -> TarPhotos:
    """Photos of the tars `names` in `root`, in the order of class, tar and key.

    Halves of a split are told by words in the names of the tars. Raises UserError for tars that cannot be
    read, samples of which nobody can tell photo or label, and tars without a photo that can be read.
    """
    if columns.separator is not None or columns.classes is not None:
        setting = "label_columns" if columns.separator is None else "label_separator"
        raise UserError(
            f"{root}: data.{setting} is of tables, and tar files that others wrote have one label a photo; "
            "name the photos of several in a table (CSV, TSV, Parquet)"
        )
    try:
        status = [os.stat(root / name) for name in names]
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({one_line(error)}); try again") from error
    shards = tuple(Shard(name, each.st_size) for name, each in zip(names, status, strict=True))
    key = repr((_VERSION, max_pixels, layout, columns, shards, [each.st_mtime_ns for each in status]))
    place = hashlib.sha256(in_full(root).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    cache = user_cache_dir() / "tars" / f"{place}.npz"
    found = _load(cache, key)
    if found is None:
        found = Scan(root, shards, max_pixels, progress, columns).photos(_folds(root, names, layout))
        _store(cache, key, found)
    beside = Walk(root).inside("")[1]
    notes = [f"left out, photos that lie beside the tar files: {some(beside)}"] if beside else []
    others = passed_over(root, names)
    if others:
        notes.append(f"left out, tar files in other folders and links that lead nowhere: {some(others)}")
    return replace(found, notes=(*found.notes, *notes))


def _folds(root: Path, names: list[str], layout: Layout) -> list[int]:
    """The half of each tar, by the words of its path. Raises UserError where people would not agree."""
    folds = []
    for name in names:
        words = re.split(r"[^a-z]+", name.casefold())
        said = {SPELLINGS[word] for word in words if word in SPELLINGS}
        folds.append(said.pop() if len(said) == 1 else FREE)
    if layout == "split" and TRAIN not in folds:
        raise UserError(f"{root}: data.layout=split, but no tar file is named train; it holds {some(names)}")
    if layout == "classes" or TRAIN not in folds or len({*folds} - {FREE}) < 2:
        return [FREE] * len(names)
    if FREE in folds:
        free, half = names[folds.index(FREE)], names[folds.index(TRAIN)]
        raise UserError(
            f"{root}: {half} is named as the half of a split, {free} as none; move that away, or read all as "
            "one with data.layout=classes"
        )
    return folds


def _load(cache: Path, key: str) -> TarPhotos | None:
    try:
        about, arrays = load_arrays(cache)
        if about["key"] != key:
            return None
        shards = tuple(Shard(name, size) for name, size in about["shards"])
        bad = tuple((path, why) for path, why in about["bad"])
        columns = {name: arrays[name] for name in COLUMNS}
        index = Index(tuple(about["classes"]), shards, {}, bad, columns, about["suffixes"])
        notes = Fact(about["notes"][0]), *about["notes"][1:]
        return TarPhotos(index, notes, arrays["bad_label"], arrays["bad_fold"])
    except NPZ_ERRORS:
        return None  # none yet, or a damaged one: the tars are read again


def _store(cache: Path, key: str, found: TarPhotos) -> None:
    if folder_problem(cache.parent) is not None:
        return  # said when the folder was chosen
    index = found.index
    about: dict[str, Any] = {"key": key, "classes": index.classes, "suffixes": index.suffixes}
    about |= {"shards": [tuple(vars(shard).values()) for shard in index.shards], "bad": index.bad}
    arrays = {**index.columns, "bad_label": found.bad_label, "bad_fold": found.bad_fold}
    try:
        save_arrays(cache, {**about, "notes": found.notes}, arrays, shared=True)
    except OSError as error:  # costs a reading per start, not the run
        logger.warning("flowerfast: %s: what tar files hold is not kept (%s)", cache, one_line(error))
