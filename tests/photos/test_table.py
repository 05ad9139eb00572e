"""The columns of a table: what a row holds, and how little it takes."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.photos.tables import ARRAYS, read_table

Write = Callable[..., Path]


def test_rows_hold_label_size_and_bytes_of_each_file(photo_folder: Write) -> None:
    root = photo_folder({"rose": 2, "daisy": 3}, sizes=[(40, 30), (33, 57)])
    table = read_table(root)
    assert table.classes == ("daisy", "rose")
    assert table.label.tolist() == [0, 0, 0, 1, 1]
    assert table.paths() == [f"daisy/daisy_00{i}.jpg" for i in range(3)] + [
        "rose/rose_000.jpg",
        "rose/rose_001.jpg",
    ]
    assert list(zip(table.width.tolist(), table.height.tolist(), strict=True)) == [
        (40, 30),
        (33, 57),
        (40, 30),
        (40, 30),
        (33, 57),
    ]
    assert table.size.tolist() == [(root / p).stat().st_size for p in table.paths()]
    assert table.fold.tolist() == [0] * 5
    assert not table.bad
    dtypes = [getattr(table, name).dtype for name in ARRAYS]
    assert dtypes == [np.int32, np.int32, np.int32, np.uint8, np.int64, np.uint8, np.uint8, np.int64]


def test_a_row_takes_less_than_100_bytes(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    for kind in ("sunflowers", "dandelion"):
        (tmp_path / kind).mkdir()
        for i in range(150):
            (tmp_path / kind / f"{6_953_297 + i}_8576bf4ea3_n_{i:05d}.jpg").write_bytes(picture.getvalue())
    for _ in range(2):  # scanned, then cached
        table = read_table(tmp_path)
        of_bad = ("bad_label", "bad_fold")  # of which there are none
        arrays = [v for name, v in vars(table).items() if isinstance(v, np.ndarray) and name not in of_bad]
        assert len(arrays) == len(ARRAYS)
        assert sum(array.nbytes for array in arrays) / len(table) < 100
        rest = [value for value in vars(table).values() if not isinstance(value, np.ndarray)]
        assert not any(isinstance(value, list | dict | set) for value in rest)
