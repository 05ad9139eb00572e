"""An index of shards from others: every row is of a photo in a shard beside it, or the index is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowerfast.errors import UserError
from flowerfast.photos.arrays import save_arrays
from flowerfast.photos.shard_index import COLUMNS, INDEX, Index, Shard, read_index, write_index

PATHS = b"daisy/a.jpgrose/b.jpg"


def index(**changes: list[int] | bytes) -> Index:
    """Two photos in one shard of 4096 bytes, with other values in some columns."""
    values: dict[str, list[int] | bytes] = {
        "label": [0, 1], "width": [8, 8], "height": [9, 9], "orientation": [1, 0], "size": [100, 200],
        "fold": [0, 0], "shard": [0, 0], "offset": [512, 2048], "crc32": [1, 2], "path_ends": [11, 21],
        "path_bytes": PATHS,
    }  # fmt: skip
    columns = {name: np.array([*value], COLUMNS[name]) for name, value in {**values, **changes}.items()}
    return Index(("daisy", "rose"), (Shard("shard-000000.tar", 4096),), {}, (), columns, {"jpg": 2})


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_index(index(), tmp_path)
    assert read_index(tmp_path).fingerprint == index().fingerprint


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("offset", [512, -1]), ("offset", [0, 2048]), ("offset", [512, 4000]), ("offset", [512, 2**63 - 1]),
        ("size", [100, -5]), ("size", [0, 200]), ("size", [2**62, 200]), ("shard", [0, 1]),
        ("shard", [-1, 0]),
        ("label", [0, 2]), ("label", [-1, 1]), ("fold", [0, 4]), ("orientation", [9, 1]), ("width", [-8, 8]),
        ("height", [0, 9]), ("path_ends", [11, 2**40]), ("path_ends", [11, 11]), ("path_ends", [21, 11]),
        ("path_bytes", b"../../a.jpgrose/b.jpg"), ("path_bytes", b"/aisy/a.jpgrose/b.jpg"),
        ("path_bytes", b"daisy/a.jpgrose/../.."), ("path_bytes", b"daisy/a.jpg\0ose/b.jpg"),
    ],
)  # fmt: skip
def test_rows_that_lead_elsewhere_are_refused(tmp_path: Path, column: str, value: list[int] | bytes) -> None:
    write_index(index(**{column: value}), tmp_path)
    with pytest.raises(UserError, match=r"flowerfast-index\.npz: no index of this flowerfast \(.+\); bring"):
        read_index(tmp_path)


def test_dots_within_a_name_lead_nowhere(tmp_path: Path) -> None:
    write_index(index(path_bytes=b"daisy..a.jprose/b..jp"), tmp_path)
    assert len(read_index(tmp_path).columns["label"]) == 2


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "", "a\\b", "a\0b", "C:a"])
def test_a_shard_lies_beside_its_index(tmp_path: Path, name: str) -> None:
    write_index(replace(index(), shards=(Shard(name, 4096),)), tmp_path)
    with pytest.raises(UserError, match=r"\((.+ is no name of a shard|holds the character U\+0000)\); bring"):
        read_index(tmp_path)


def short(columns: dict[str, np.ndarray]) -> None:
    columns["width"] = columns["width"][:1]


def floats(columns: dict[str, np.ndarray]) -> None:
    columns["offset"] = columns["offset"].astype(np.float64)


def square(columns: dict[str, np.ndarray]) -> None:
    columns["size"] = columns["size"][None]


def none(columns: dict[str, np.ndarray]) -> None:
    columns.pop("label")


@pytest.mark.parametrize("spoil", [short, floats, square, none])
def test_columns_of_another_shape_are_refused(
    tmp_path: Path, spoil: Callable[[dict[str, np.ndarray]], None]
) -> None:
    good = index()
    about = {"version": 1, "classes": ["a", "b"], "shards": [["a.tar", 4096]], "settings": {}, "bad": []}
    columns = {name: good.columns[name] for name in COLUMNS}
    spoil(columns)
    save_arrays(tmp_path / INDEX, {**about, "fingerprint": ""}, columns)
    with pytest.raises(UserError, match=r"no index of this flowerfast \(.+\); bring back"):
        read_index(tmp_path)


def test_a_compressed_index_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / INDEX, about=np.zeros(1 << 20, np.uint8))
    with pytest.raises(UserError, match=r"\(compressed\); bring back"):
        read_index(tmp_path)
