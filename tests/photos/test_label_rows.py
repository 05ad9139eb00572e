"""A table of photos and labels: read as the folder of the same photos, or refused with the row."""

import csv
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.errors import UserError
from flowerfast.photos import label_file
from flowerfast.photos.label_rows import photos_named
from flowerfast.photos.photos import Photos
from tests.photos.tables import ARRAYS

Write = Callable[..., Path]
Rows = Iterable[Sequence[str]]


def write(file: Path, rows: Rows, **options: Any) -> Path:
    with file.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as out:
        csv.writer(out, **options).writerows(rows)
    return file


def table_of(folder: Path, file: Path, prefix: str = "", **options: Any) -> Path:
    """A table of a folder's photos, in an order of its own."""
    photos = Photos(folder)
    rows = [(prefix + photos.path(i), photos.classes[photos.table.label[i]]) for i in range(len(photos))]
    np.random.default_rng(0).shuffle(rows)
    return write(file, [("path", "label"), *rows], **options)


def same_columns(one: Photos, other: Photos) -> bool:
    columns = all(np.array_equal(getattr(one.table, a), getattr(other.table, a)) for a in ARRAYS)
    return columns and one.classes == other.classes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("labels.csv", {}),
        ("labels.csv", {"encoding": "utf-8-sig", "quoting": csv.QUOTE_ALL}),
        ("labels.csv", {"delimiter": ";", "lineterminator": "\n"}),
        ("labels.TSV", {"delimiter": "\t"}),
    ],
    ids=["csv", "bom-quotes", "semicolon", "tsv"],
)
def test_a_table_of_a_folder_is_that_folder(
    photo_folder: Write, write_photo: Write, name: str, options: dict[str, Any]
) -> None:
    folder = photo_folder({"rose": 5, "daisy": 6, "größe": 3})
    write_photo(folder / "rose/older/rose_000.jpg", (20, 20))  # below a class, listed after its own
    write_photo(folder / "rose/rose, wild.jpg", (20, 30))
    table = Photos(table_of(folder, folder / name, **options))
    assert same_columns(table, Photos(folder))
    assert (table.root, table.source) == (folder, str(folder / name))
    for ours, theirs in zip(table.split(0.3, 1), Photos(folder).split(0.3, 1), strict=True):
        assert np.array_equal(ours.indices, theirs.indices)
    assert all(np.array_equal(table.decode(i), Photos(folder).decode(i)) for i in (0, 7))


def test_columns_of_other_names(photo_folder: Write) -> None:
    folder = photo_folder({"a": 2, "b": 2})
    paths = Photos(folder).table.paths()
    rows = [(str(i), path, path[0]) for i, path in enumerate(paths)]
    file = write(folder / "t.csv", [(" Target ", "IMAGE", "kind"), *rows])
    by_kind = Photos(file, label_column="kind")
    assert same_columns(by_kind, Photos(folder))
    assert "t.csv: path from column 'IMAGE', label from column 'kind'" in by_kind.notes
    assert Photos(file).classes == ("0", "1", "2", "3")
    write(folder / "t.csv", [("label", "IMAGE", "class"), *rows])
    with pytest.raises(
        UserError, match=r"t.csv: 2 columns could be the label: 'label' and 'class'; set data"
    ):
        Photos(file)
    with pytest.raises(
        UserError, match=r"no column 'clas'; did you mean 'class'\?; its columns are 'label', "
    ):
        Photos(file, label_column="clas")
    write(folder / "t.csv", [("datei", "art"), *rows])
    said = r"no column for the path, such as path, file, filename, image; its first line names 'datei', 'art'"
    with pytest.raises(UserError, match=said):
        Photos(file)


def test_photos_elsewhere(photo_folder: Write, tmp_path: Path) -> None:
    """In full, above the table, and beside it: paths are then relative to the folder that holds them all."""
    folder = photo_folder({"a": 2, "b": 2}, name="far/photos")
    paths = Photos(folder).table.paths()
    (tmp_path / "tables/new").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "tables")
    shutil.copy(folder / paths[3], tmp_path / "tables/new/own.jpg")
    rows = [(str(folder / paths[0]), "a"), ("../../far/photos/./" + paths[1], "a")]
    rows += [("../../far/x/../photos//" + paths[2], "b"), ("own.jpg", "b"), ("../new/own.jpg", "b")]
    file = write(tmp_path / "tables/new/t.csv", [("path", "label"), *rows])
    for given in (file, tmp_path / "link/new/t.csv", Path(os.path.relpath(file))):
        table = Photos(given)
        assert table.root == tmp_path
        names = [f"far/photos/{path}" for path in paths[:3]] + ["tables/new/own.jpg"]
        assert table.table.paths() == names
        files, _ = table.read(table.indices)
        assert [bytes(read) for read in files] == [(tmp_path / name).read_bytes() for name in names]
    within = write(
        tmp_path / "t.csv", [("path", "label"), (str(folder / paths[0]), "a"), ("link/new/own.jpg", "b")]
    )
    assert Photos(within).root == tmp_path
    assert Photos(within).table.paths() == [f"far/photos/{paths[0]}", "link/new/own.jpg"]


def test_a_table_that_is_a_link_speaks_of_its_own_folder(photo_folder: Write, tmp_path: Path) -> None:
    folder = photo_folder({"a": 2, "b": 2})
    table_of(folder, tmp_path / "kept.csv")
    (folder / "t.csv").symlink_to(tmp_path / "kept.csv")
    assert same_columns(Photos(folder / "t.csv"), Photos(folder))


def test_a_split_column_acts_as_folders_do(photo_folder: Write) -> None:
    halves = photo_folder({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 2, "test/a": 1}, name="halves")
    rows = [(path, path.split("/")[1], path.split("/")[0]) for path in Photos(halves).table.paths()]
    words = {"train": " Training", "val": "dev", "test": "TEST "}
    file = write(
        halves / "t.csv", [("file", "class", "set"), *((p, c, words[s]) for p, c, s in reversed(rows))]
    )
    table = Photos(file)
    assert same_columns(table, Photos(halves))
    assert [len(half) for half in (*table.split(), table.test)] == [6, 3, 1]
    free = Photos(file, layout="classes")
    assert (free.table.fold == 0).all()
    write(file, [("file", "class", "set"), *(row for row in rows if row[2] == "val")])
    with pytest.raises(UserError, match=r"t.csv: rows of val or test, but none of train to train on"):
        Photos(file).split()
    lacking = [row for row in rows if row[1:] != ("b", "train")]
    write(file, [("file", "class", "set"), *lacking])
    with pytest.raises(
        UserError, match=r"t.csv: class 'b' has no photos to train on, but split val has; add"
    ):
        Photos(file).split()
    with pytest.raises(UserError, match=r"no column for the split, such as split, fold, set"):
        Photos(table_of(halves / "train", halves / "train/u.csv"), layout="split")
    (halves / rows[-1][0]).write_bytes(b"")
    write(file, [("file", "class", "set"), *rows])
    with pytest.raises(UserError, match=r"t.csv: split test: no readable photos; first: test/a/a_000.jpg"):
        Photos(file)


def test_photos_that_are_no_photos_are_bad_files(photo_folder: Write, scans: list[Path]) -> None:
    folder = photo_folder({"a": 12, "b": 12})
    file = table_of(folder, folder / "t.csv")
    (folder / "a/a_000.jpg").unlink()
    (folder / "b/b_003.jpg").write_text("no photo")
    rows = [("b/b_003.jpg", "a"), ("a/raw.dng", "b"), ("a", "b")]
    shutil.copy(folder / "a/a_001.jpg", folder / "a/raw.dng")
    with file.open("a", newline="") as out:
        csv.writer(out).writerows(rows[1:])
    photos = Photos(file, max_bad=0.2)
    assert [bad.path for bad in photos.bad] == ["a/a_000.jpg", "a", "a/raw.dng", "b/b_003.jpg"]
    assert [photos.classes[label] for label in photos.table.bad_label] == ["a", "b", "b", "b"]
    assert photos.bad[0].error == "No such file or directory"
    with pytest.raises(UserError, match=r"t.csv: 4 of 26 files cannot be read, more than data.max_bad=0.05"):
        Photos(file)
    with pytest.raises(UserError, match=r"photos/a/a_000.jpg: No such file or directory; mend"):
        Photos(file, on_bad="fail")
    seen = len(scans)
    assert Photos(file, max_bad=0.2).bad == photos.bad
    assert len(scans) == seen  # kept
    shutil.copy(folder / "a/a_001.jpg", folder / "a/a_000.jpg")
    assert len(Photos(file, max_bad=0.2)) == len(photos) + 1
    write(file, [("path", "label"), ("x/a.jpg", "a"), ("x/b.jpg", "b")])
    said = rf"t.csv: none of 2 photos can be read; first: x/a.jpg: .*; paths are relative to {folder}"
    with pytest.raises(UserError, match=said):
        Photos(file)


def test_labels_count_in_the_fingerprint(photo_folder: Write) -> None:
    folder = photo_folder({"a": 3, "b": 3})
    file = table_of(folder, folder / "t.csv")
    before, text = Photos(file), file.read_text()
    rows = text.splitlines()
    file.write_text("\n".join([rows[0], *reversed(rows[1:])]))  # another order of rows, no CRLF
    assert Photos(file).fingerprint == before.fingerprint
    file.write_text(text.replace("a/a_000.jpg,a", "a/a_000.jpg,b"))
    after = Photos(file)
    assert after.table.paths() != before.table.paths()
    assert after.fingerprint != before.fingerprint
    write(file, [("path", "label", "split"), *((*row.split(","), "train") for row in rows[1:])])
    assert Photos(file).fingerprint != before.fingerprint


def test_a_photo_that_is_named_twice(photo_folder: Write) -> None:
    folder = photo_folder({"a": 2, "b": 2})
    file = table_of(folder, folder / "t.csv")
    with file.open("a", newline="") as out:
        csv.writer(out).writerows([("./a/a_000.jpg", "a"), (str(folder / "b/b_001.jpg"), "b")])
    photos = Photos(file)
    assert same_columns(photos, Photos(folder))
    assert any(note.startswith("2 rows name a photo that an earlier one names") for note in photos.notes)
    assert sorted(photos_named(file)) == sorted(folder / path for path in photos.table.paths())
    with file.open("a", newline="") as out:
        csv.writer(out).writerow(("a/a_000.jpg", "b"))
    number = next(i for i, line in enumerate(file.read_text().splitlines(), 1) if line == "a/a_000.jpg,a")
    with pytest.raises(
        UserError, match=rf"line 8: 'a/a_000.jpg' has another label than in line {number}; keep"
    ):
        Photos(file)
    rows = [("a/a_000.jpg", "a", "val"), ("a/a_000.jpg", "a", "train")]
    write(file, [("path", "label", "split"), *rows])
    with pytest.raises(UserError, match=r"line 3: 'a/a_000.jpg' has another split than in line 2"):
        Photos(file)


def test_links_to_one_file_under_two_labels_are_named(photo_folder: Write) -> None:
    folder = photo_folder({"a": 2, "b": 2})
    (folder / "other.jpg").symlink_to(folder / "a/a_000.jpg")
    rows = [("a/a_000.jpg", "a"), ("a/a_001.jpg", "a"), ("b/b_000.jpg", "b"), ("other.jpg", "b")]
    photos = Photos(write(folder / "t.csv", [("path", "label"), *rows]))
    assert "one file under two classes: a/a_000.jpg and other.jpg" in photos.notes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty; its first line must name the columns"),
        ("\n\npath,label\n", "no rows below its first line"),
        ("path,label\na.jpg,x\n\nb.jpg, \n", "line 4: no label; give one, or remove the line"),
        ("path,label\n,x\n", "line 2: no path; name a photo, or remove the line"),
        ("path,label\nphotos/,x\n", "line 2: names a folder; name a photo"),
        ("path,split,label\na.jpg,train\n", "line 2: 2 fields, but 3 columns; put what"),
        ("path,label\na,b.jpg,x\n", "line 2: 3 fields, but 2 columns; put what holds"),
        ('path,label\n"a.jpg"x,x\n', "line 2: not CSV (',' expected after '\"'); mend that line"),
        ('path,label\n"a\n.jpg",x\n"b.jpg,x\n', "line 4: not CSV (unexpected end of data)"),
        ("path,label,split\na.jpg,x,trian\n", "line 2: split 'trian' is no split; did you mean 'train'?; d"),
        ("path,label,split\na.jpg,x,\n", "line 2: split '' is no split; give train, val or test; d"),
        ("path,label\na\0.jpg,x\n", "line 2: 'a\\x00.jpg' holds the character U+0000"),
        ("path,label\na.jpg,x\0\n", "line 2: 'x\\x00' is no name of a class"),
        (f"path,label\na.jpg,{'x' * 256}\n", "is no name of a class"),
        (f"path,label\na.jpg,{'x' * 200_000}\n", "line 2: not CSV (field larger than field limit"),
        (b"path,label\na.jpg,gr\xfcn\n", "not text in UTF-8 ('utf-8' codec can't decode byte 0xfc"),
        ("path,label\n".encode("utf-16"), "not text in UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused_in_a_line_that_names_it(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        Photos(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_may_be_read_in_pieces(photo_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photo_folder({"a": 5, "b": 5})
    file = table_of(folder, folder / "deep.csv")
    (folder / "tables").mkdir()
    above = table_of(folder, folder / "tables/t.csv", prefix="../")
    monkeypatch.setattr(label_file, "_ROWS", 3)
    assert same_columns(Photos(file), Photos(folder))
    assert same_columns(Photos(above), Photos(folder))


def test_where_there_is_no_table(tmp_path: Path, photo_folder: Write) -> None:
    with pytest.raises(UserError, match=r"none.csv: no such file; give a table that names photos"):
        Photos(tmp_path / "none.csv")
    (tmp_path / "labels.txt").write_text("path,label\n")
    with pytest.raises(UserError, match=r"labels.txt: no folder, and no table \(\.csv, \.tsv, \.tab, \.parq"):
        Photos(tmp_path / "labels.txt")
    named = photo_folder({"a": 2, "b": 2}, name="photos.csv")  # a folder may be called so
    assert (len(Photos(named)), Photos(named).table.file) == (4, None)


# ---------------------------------------------------------------------------------------------------- Parquet


def test_parquet(photo_folder: Write) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = photo_folder({"1": 3, "22": 4})
    paths = Photos(folder).table.paths()[::-1]
    file = folder / "labels.parquet"
    columns = {"n": [0.5] * 7, "path": paths, "label": [int(path.split("/")[0]) for path in paths]}
    for label in (
        pyarrow.array(columns["label"]),
        pyarrow.array(map(str, columns["label"])).dictionary_encode(),
    ):
        parquet.write_table(pyarrow.table({**columns, "label": label}), file)
        assert same_columns(Photos(file), Photos(folder))
    with pytest.raises(UserError, match=r"labels.parquet: column 'n' holds double; give it as text"):
        Photos(file, label_column="n")
    columns["label"][4] = None
    parquet.write_table(pyarrow.table(columns), file)
    with pytest.raises(UserError, match=r"labels.parquet: row 5: no label; give one, or remove the row"):
        Photos(file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"labels.parquet: not Parquet \("):
        Photos(file)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r'not installed: pip install "flowerfast\[parquet\]"'):
        Photos(tmp_path / "t.parquet")
