"""What many rows take of memory, by the functions of benchmarks/millions.py on fewer."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import millions
from flowerfast.packing.parts import _joined, merge, part_name
from flowerfast.packing.shard_writer import PackSettings, open_writer
from flowerfast.packing.target import Folder
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import write_index

ROWS = 200_000
MOST = 95
"""Bytes per row, with which ten million stay below a GB; 76 of them are the columns and a path of 29."""
WRITTEN = 29
"""numpy writes a copy of 16 MB at a time: of so few rows, of all paths at once."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(millions, "_PER_SHARD", 5000)
    monkeypatch.setattr(millions, "_JOBS", 16)


def peak(call: Callable[[], object]) -> float:
    """Highest bytes per row that a call holds at a time, beside what there was before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / ROWS
    finally:
        tracemalloc.stop()


def test_the_end_of_packing_merging_and_opening_hold_rows_once(tmp_path: Path) -> None:
    few, whole, parts = (str(tmp_path / name) for name in ("few", "whole", "parts"))
    millions.prepared(few, 2000, 1)
    millions.written(few, 2000, 1)  # imports
    Photos(few)
    millions.prepared(whole, ROWS, 1)
    table = millions.made_table(ROWS)
    writer = open_writer(Path(whole), table, PackSettings(), None)
    assert writer is not None
    assert peak(writer.finish) < MOST - 60 + WRITTEN  # the columns of the table are there
    assert peak(lambda: Photos(whole)) < MOST
    millions.prepared(parts, ROWS, 16)
    millions.written(f"{parts}/part-001-of-016", ROWS, 16)
    assert merge(Folder(Path(parts)), 16) == []
    folders = [Path(parts, part_name((number, 16))) for number in range(1, 17)]
    assert peak(lambda: write_index(_joined(folders, [*map(str, folders)]), Path(few))) < MOST + WRITTEN
    one, other = Photos(whole).table, Photos(parts).table
    for name in ("label", "width", "size", "fold", "path_bytes", "path_ends"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert one.path(12_345) == "class_061/0012345_8576bf_n.jpg"
