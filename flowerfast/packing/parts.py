"""Shards packed by many jobs, a part of the photos each, and the one index over all of them.

OUT/part-001-of-008/ ...       folders of shards as `pack` makes them, one per job
OUT/flowerfast-index.npz       written by whoever finds all parts there: the shards stay where they are
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.errors import UserError
from flowerfast.packing.shard_writer import read_state
from flowerfast.packing.target import Target
from flowerfast.photos.listing import scatter
from flowerfast.photos.shard_index import (
    COLUMNS,
    INDEX,
    PART_FOLDER,
    SHARD_NAME,
    STATE,
    Index,
    Shard,
    read_index,
    write_index,
)

_MOST = 100_000  # parts
_MOST_ROWS = 1 << 31


def parse_part(text: str) -> tuple[int, int]:
    """(which, of how many) of K/N. Raises UserError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    which, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= which <= count <= _MOST:
        raise UserError(f"--part {text}: give K/N, the K-th of N parts, as 3/8; N is {_MOST:,} at most")
    return which, count


def part_name(part: tuple[int, int]) -> str:
    """Name of the folder of a part."""
    return f"part-{part[0]:03d}-of-{part[1]:03d}"


def rows_of(order: np.ndarray, part: tuple[int, int] | None) -> np.ndarray:
    """Rows that a job packs, in their order; all of them where there are no parts. Raises UserError."""
    if part is None:
        return order
    if part[1] > len(order):
        raise UserError(f"--part {part[0]}/{part[1]}: there are only {len(order)} photos; make fewer parts")
    return order[part[0] - 1 :: part[1]]


def check_parts(target: Target, part: tuple[int, int] | None, state: dict[str, Any] | None = None) -> None:
    """Raise UserError where a place has photos that were packed otherwise, as the names there tell.

    So they were whole or in another number of parts; where `part` is None, in parts, or by somebody else.
    With `state` another part's is looked at too, which must be of the same photos and settings.
    """
    names = target.names()
    parts = {name: int(found[2]) for name in sorted(names) if (found := PART_FOLDER.fullmatch(name))}
    others = [
        f"in {count} part{'s' * (count != 1)}" for count in parts.values() if part is None or count != part[1]
    ]
    if part is not None and (STATE in names or (INDEX in names and not parts)):
        others.append("whole")
    if part is None and not {STATE, INDEX} & names:
        others += [f"by somebody else ({name})" for name in sorted(names) if SHARD_NAME.fullmatch(name)]
    if others:
        raise UserError(
            f"{target}: holds photos packed {others[0]}; name another folder or URL, or remove it"
        )
    if part is None or state is None:
        return
    beside = (target.at(name) for name in parts if name != part_name(part))
    other = next(((each, theirs) for each in beside if (theirs := each.state()) is not None), None)
    if other is not None and _of_all(other[1]) != _of_all(state):
        raise UserError(
            f"{other[0]}: packed from other photos or settings; pack part {part[0]} as that one was, or "
            "remove it"
        )


def _of_all(state: dict[str, Any] | None) -> dict[str, Any]:
    """What all parts of a set have alike."""
    return {**(state or {}), "part": None}


def merge(target: Target, count: int) -> list[int]:
    """Write the index over all parts, once all are there: the numbers of those that are not.

    Only indexes are read. Whoever merges the same parts writes the same bytes. Raises UserError when they are
    not of the same photos and settings, RunFailed, OSError.
    """
    names = [part_name((number, count)) for number in range(1, count + 1)]
    with target.merging(names) as out:
        absent = [number for number, name in enumerate(names, 1) if not (out / name / INDEX).is_file()]
        if absent:
            return absent
        named, first = [str(target.at(name)) for name in names], None
        for number, (name, place) in enumerate(zip(names, named, strict=True), 1):
            state = _of_all(read_state(out / name / STATE, f"{place}/{STATE}"))
            first = first or state
            if state != first:
                raise UserError(
                    f"{place}: packed from other photos or settings than {names[0]}; remove one of the "
                    f"two and run --part {number}/{count} again"
                )
        write_index(_joined([out / name for name in names], named), out)
    return []


def _joined(folders: list[Path], named: list[str]) -> Index:
    """One index, in the order of the table that was packed. Raises UserError, which names folders as `named`.

    Parts are read twice, one after the other: all of them at once would take as much again.
    """
    kept, lengths, photos = np.zeros(0, bool), np.zeros(0, np.int32), 0
    for folder, name in zip(folders, named, strict=True):
        index = read_index(folder, name)
        rows = _rows(name, index)
        more = max(0, int(rows.max()) + 1 - len(kept))
        kept, lengths = np.append(kept, np.zeros(more, bool)), np.append(lengths, np.zeros(more, np.int32))
        kept[rows], photos = True, photos + len(rows)
        lengths[rows] = np.diff(index.columns["path_ends"], prepend=0)
    if photos != kept.sum():
        raise UserError(f"{named[0]}: has photos of another part; remove all parts and pack them again")
    places, lengths = None if kept.all() else np.flatnonzero(kept), lengths[kept]
    columns = {name: np.empty(photos, kind) for name, kind in COLUMNS.items() if name != "path_bytes"}
    np.cumsum(lengths, out=columns["path_ends"])
    columns["path_bytes"] = np.empty(columns["path_ends"][-1], np.uint8)
    joined = Index(index.classes, (), index.settings, (), columns, sets=index.sets)
    for folder, name in zip(folders, named, strict=True):
        index = read_index(folder, name)
        at = _rows(name, index) if places is None else np.searchsorted(places, _rows(name, index))
        index.columns["shard"] += len(joined.shards)
        for column in COLUMNS.keys() - {"path_bytes", "path_ends"}:
            columns[column][at] = index.columns[column]
        scatter(
            index.columns["path_bytes"],
            columns["path_bytes"],
            columns["path_ends"][at] - lengths[at],
            lengths[at],
        )
        joined = _with(joined, folder.name, index)
    return joined


def _rows(folder: str, index: Index) -> np.ndarray:
    """Rows of the whole table that a part holds. Raises UserError."""
    rows = index.rows
    right = rows is not None and rows.dtype == np.int64 and rows.shape == index.columns["label"].shape
    if rows is None or not right or not 0 <= rows.min() <= rows.max() < _MOST_ROWS:
        raise UserError(f"{folder}: no part of a larger set; remove it and pack that part again")
    return rows


def _with(joined: Index, name: str, index: Index) -> Index:
    """An index with what is told of another part, besides its rows."""
    suffixes = Counter(joined.suffixes)
    suffixes.update(index.suffixes)
    return replace(
        joined,
        shards=(*joined.shards, *(Shard(f"{name}/{shard.name}", shard.size) for shard in index.shards)),
        bad=tuple(dict.fromkeys((*joined.bad, *index.bad))),
        suffixes=dict(suffixes),
        recoded=joined.recoded + index.recoded,
        seekable=joined.seekable + index.seekable,
    )
