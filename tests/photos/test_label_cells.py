"""Tables of photos with several labels: both forms say the same, and what says nothing is refused."""

from pathlib import Path

import numpy as np
import pytest

from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from tests.tags import NAMES, cells, flags, tagged


@pytest.fixture
def has(tmp_path: Path) -> np.ndarray:
    return tagged(tmp_path, 12)


def same(one: Photos, other: Photos) -> bool:
    alike = one.classes == other.classes and one.table.paths() == other.table.paths()
    return alike and np.array_equal(one.labels, other.labels)


def test_both_forms_say_which_labels_photos_have(tmp_path: Path, has: np.ndarray) -> None:
    by_cell = Photos(cells(tmp_path / "cells.csv", has), label_separator="space")
    assert (by_cell.classes, by_cell.multilabel) == (NAMES, True)
    assert np.array_equal(by_cell.labels, has)
    assert by_cell.labels.dtype == bool
    by_column = Photos(flags(tmp_path / "flags.csv", has), label_columns="*")
    assert same(by_column, by_cell)
    assert np.array_equal(by_column.targets(np.array([3, 0])), has[[3, 0]].astype(np.float32))
    assert by_column.subset([5, 2]).labels.tolist() == has[[5, 2]].tolist()
    listed = Photos(tmp_path / "flags.csv", label_columns=["red", "green"])
    assert listed.classes == ("red", "green")  # in the order given
    assert np.array_equal(listed.labels, has[:, [2, 1]])
    assert same(listed, Photos(tmp_path / "flags.csv", label_columns="red,green"))
    notes = " ".join((*by_cell.notes, *by_column.notes))
    assert "cells.csv: path from column 'image', label from column 'tags', of which a photo may have" in notes
    assert "flags.csv: path from column 'image', labels from 3 columns of 0 and 1" in notes


def test_how_a_cell_is_written_counts_for_nothing(tmp_path: Path, has: np.ndarray) -> None:
    expected = Photos(cells(tmp_path / "a.csv", has), label_separator=" ")
    rows = [
        f'photos/{number:02d}.jpg,"{"; ".join(n for n, one in zip(NAMES, row, strict=True) if one)};"\n'
        for number, row in enumerate(has)
    ]
    rows[7] = 'photos/07.jpg," red ;green;; blue;red"\n'
    (tmp_path / "b.csv").write_text("path,Label\n" + "".join(reversed(rows)))
    assert same(Photos(tmp_path / "b.csv", label_separator=";"), expected)
    (tmp_path / "c.csv").write_text(
        "path,blue,green,red\n"
        + "".join(
            f"photos/{n:02d}.jpg," + ",".join("True" if one else "0.0" for one in row) + "\n"
            for n, row in enumerate(has)
        )
    )
    assert same(Photos(tmp_path / "c.csv", label_columns="*"), expected)


def test_the_column_of_an_index_is_no_class(tmp_path: Path, has: np.ndarray) -> None:
    lines = flags(tmp_path / "flags.csv", has).read_text().splitlines()
    numbered = [f"{'' if row == 0 else row - 1},{line}" for row, line in enumerate(lines)]
    (tmp_path / "numbered.csv").write_text("\n".join(numbered) + "\n")  # as pandas writes one
    by_column = Photos(tmp_path / "flags.csv", label_columns="*")
    assert same(Photos(tmp_path / "numbered.csv", label_columns="*"), by_column)


def test_halves_and_some_of_the_classes(tmp_path: Path, has: np.ndarray) -> None:
    text = flags(tmp_path / "t.csv", has).read_text().splitlines()
    halves = ["split"] + ["train"] * 7 + ["val"] * 4 + ["test"]
    (tmp_path / "t.csv").write_text(
        "".join(f"{row},{half}\n" for row, half in zip(text, halves, strict=True))
    )
    photos = Photos(tmp_path / "t.csv", label_columns="*", classes=["red", "blue"])
    assert photos.classes == ("red", "blue")
    assert np.array_equal(photos.labels, has[:, [2, 0]])  # photos of neither are there, without a label
    train, val = photos.split()
    assert (len(train), len(val), len(photos.test)) == (7, 4, 1)
    assert Photos(tmp_path / "t.csv", label_columns="*", layout="classes").classes == NAMES
    assert f"data.classes: {has[:, 1].sum()} labels of 1 other class are left out: green" in photos.notes
    back = photos.with_classes(["green", "blue", "red"])
    assert np.array_equal(back.labels, has[:, [1, 0, 2]] & [False, True, True])


def test_a_single_label_is_a_question_of_its_own(tmp_path: Path, has: np.ndarray) -> None:
    photos = Photos(flags(tmp_path / "t.csv", has), label_columns=["red"])
    assert (photos.classes, photos.labels.tolist()) == (("red",), has[:, [2]].tolist())


def test_it_is_kept_with_its_labels(tmp_path: Path, has: np.ndarray, scans: list[Path]) -> None:
    file, options = cells(tmp_path / "t.csv", has), {"label_separator": " "}
    first = Photos(file, **options)
    seen = len(scans)
    assert same(Photos(file, **options), first)
    assert len(scans) == seen
    edited = has.copy()
    edited[0] = ~edited[0]
    other = Photos(cells(file, edited), **options)
    assert other.fingerprint != first.fingerprint
    assert np.array_equal(other.labels, edited)
    (tmp_path / "photos/03.jpg").write_bytes(b"no photo")
    fewer = Photos(file, **options, max_bad=1)
    assert np.array_equal(fewer.labels, np.delete(edited, 3, 0))


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (
            "path,a,b\n0.jpg,1,2\n",
            {"label_columns": "*"},
            "line 2: '2' in column 'b', which is to hold 0",
        ),
        ("path,a,b\n0.jpg,1,\n", {"label_columns": "a,b"}, "line 2: '' in column 'b', which is to hold 0 or"),
        (
            "path,a,b\n0.jpg,1,0\n",
            {"label_columns": ["c"]},
            "no column 'c'; its columns are 'path', 'a'",
        ),
        (
            "path,a\n0.jpg,1\n",
            {"label_columns": "a,a"},
            "column 'a' is there, or in data.label_columns, twice",
        ),
        (
            "path,a,b,a\n0.jpg,1,1,1\n",
            {"label_columns": "*"},
            "column 'a' is there, or in data.label_columns",
        ),
        ("path,a\n0.jpg,1\n", {"label_columns": []}, "names no column; leave it out, or name some"),
        ("path,a\n0.jpg,1\n", {"label_columns": ","}, "names no column; leave it out, or name some"),
        ("path,a\n0.jpg,1\n", {"label_columns": "path"}, "column 'path' holds something else; name others"),
        ("path,label\n0.jpg,\n", {"label_separator": " "}, "no photo has a label; give some"),
        ("path,a\n0.jpg,1\n", {"label_columns": "a", "label_separator": " "}, "drop this or label_separator"),
        ("path,a\n0.jpg,1\n", {"label_columns": "a", "label_column": "a"}, "drop this or label_column"),
        (
            "path,x\n0.jpg,1\n",
            {"label_separator": ","},
            "no column for the label, such as label, cl",
        ),
    ],
)
def test_what_says_nothing_is_refused(tmp_path: Path, text: str, options: dict[str, str], said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        Photos(tmp_path / "t.csv", **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_folders_have_one_label_a_photo(tmp_path: Path, has: np.ndarray) -> None:
    for options in ({"label_separator": " "}, {"label_columns": "*"}):
        with pytest.raises(UserError, match=r": class folders, and data.label_separator or \S+ say"):
            Photos(tmp_path, **options)
    for name in ("path_column", "label_column", "split_column"):
        with pytest.raises(UserError, match=rf": class folders, and data.{name}=x is a column of a table; "):
            Photos(tmp_path, **{name: "x"})


def test_a_photo_that_is_named_with_other_labels_is_refused(tmp_path: Path, has: np.ndarray) -> None:
    text = cells(tmp_path / "t.csv", has).read_text()
    (tmp_path / "t.csv").write_text(text + "photos/07.jpg,green blue red\n")
    assert np.array_equal(Photos(tmp_path / "t.csv", label_separator=" ").labels, has)  # the same: taken once
    (tmp_path / "t.csv").write_text(text + "photos/07.jpg,green\n")
    with pytest.raises(UserError, match=r"line 14: 'photos/07.jpg' has another label than in line 9; keep"):
        Photos(tmp_path / "t.csv", label_separator=" ")


def test_parquet_has_lists_and_numbers(tmp_path: Path, has: np.ndarray) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = [f"photos/{number:02d}.jpg" for number in range(len(has))]
    named = [[name for name, one in zip(NAMES, row, strict=True) if one] for row in has]
    parquet.write_table(pyarrow.table({"path": paths, "label": named}), tmp_path / "l.parquet")
    expected = Photos(cells(tmp_path / "t.csv", has), label_separator=" ")
    assert same(Photos(tmp_path / "l.parquet"), expected)
    parquet.write_table(pyarrow.table({"path": paths, "tags": named}), tmp_path / "p.parquet")
    assert same(Photos(tmp_path / "p.parquet"), expected)
    of_each = {name: has[:, place].astype(float) for place, name in enumerate(NAMES)}
    parquet.write_table(pyarrow.table({"path": paths, **of_each}), tmp_path / "n.parquet")
    assert same(Photos(tmp_path / "n.parquet", label_columns="*"), expected)
