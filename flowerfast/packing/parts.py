"""Shards packed by many jobs, a part of the photos each, and the one index over all of them.

OUT/part-001-of-008/ ...       folders of shards as `pack` makes them, one per job
OUT/flowerfast-index.npz       written by whoever finds all parts there: the shards stay where they are
"""

import re
from pathlib import Path

import numpy as np

from flowerfast.errors import UserError
from flowerfast.packing.shard_writer import read_state
from flowerfast.photos.listing import gathered
from flowerfast.photos.shard_index import (
    COLUMNS,
    INDEX,
    PART_FOLDER,
    STATE,
    Index,
    Shard,
    read_index,
    write_index,
)

_MOST = 100_000  # parts


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


def check_parts(out: Path, count: int) -> None:
    """Raise UserError where a folder holds shards that were packed whole, or in another number of parts."""
    found = [PART_FOLDER.fullmatch(entry.name) for entry in out.iterdir()] if out.is_dir() else []
    other = next((part for part in found if part and int(part[2]) != count), None)
    if other is not None or (out / STATE).is_file():
        what = f"in {int(other[2])} parts" if other is not None else "whole"
        raise UserError(f"{out}: holds photos packed {what}; name another folder, or remove it")


def merge(out: Path, count: int) -> list[int]:
    """Write the index over all parts, once all are there: the numbers of those that are not.

    Only indexes are read. Whoever merges the same parts writes the same bytes. Raises UserError when the
    parts are not of the same photos and settings, OSError.
    """
    folders = [out / part_name((number, count)) for number in range(1, count + 1)]
    absent = [number for number, folder in enumerate(folders, 1) if not (folder / INDEX).is_file()]
    if absent:
        return absent
    first = None
    for number, folder in enumerate(folders, 1):
        state = {**(read_state(folder / STATE) or {}), "part": None}
        first = first or state
        if state != first:
            raise UserError(
                f"{folder}: packed from other photos or settings than {folders[0].name}; remove one of the "
                f"two and run --part {number}/{count} again"
            )
    write_index(_joined([(folder.name, read_index(folder)) for folder in folders]), out)
    return []


def _joined(parts: list[tuple[str, Index]]) -> Index:
    """One index, in the order of the table that was packed. Raises UserError."""
    indexes = [index for _, index in parts]
    for name, index in parts:
        if index.rows is None or index.rows.shape != index.columns["label"].shape:
            raise UserError(f"{name}: no part of a larger set; remove it and pack that part again")
    rows = np.concatenate([index.rows for index in indexes if index.rows is not None])
    order = np.argsort(rows, kind="stable")
    if len(np.unique(rows)) != len(rows):
        raise UserError(f"{parts[0][0]}: has photos of another part; remove all parts and pack them again")
    starts = np.cumsum([0, *(len(index.shards) for index in indexes)])
    columns = {}
    for name in COLUMNS.keys() - {"shard", "path_bytes", "path_ends"}:  # no column is held twice
        columns[name] = np.concatenate([index.columns.pop(name) for index in indexes])[order]
    for index, start in zip(indexes, starts[:-1].tolist(), strict=True):
        index.columns["shard"] += start
    columns["shard"] = np.concatenate([index.columns.pop("shard") for index in indexes])[order]
    lengths = np.concatenate([np.diff(index.columns["path_ends"], prepend=0) for index in indexes])
    content = np.concatenate([index.columns.pop("path_bytes") for index in indexes])
    columns["path_bytes"] = gathered(content, lengths, order)
    columns["path_ends"] = np.cumsum(lengths[order])
    suffixes: dict[str, int] = {}
    for index in indexes:
        for suffix, number in index.suffixes.items():
            suffixes[suffix] = suffixes.get(suffix, 0) + number
    return Index(
        classes=indexes[0].classes,
        sets=indexes[0].sets,
        shards=tuple(
            Shard(f"{name}/{shard.name}", shard.size) for name, index in parts for shard in index.shards
        ),
        settings=indexes[0].settings,
        bad=tuple(dict.fromkeys(bad for index in indexes for bad in index.bad)),
        columns=columns,
        suffixes=suffixes,
        recoded=sum(index.recoded for index in indexes),
        seekable=sum(index.seekable for index in indexes),
    )
