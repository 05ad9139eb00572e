"""Tar files that others wrote are read as the photos that are in them."""

import logging
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset

from flowerfast.errors import UserError
from flowerfast.photos import tar_photos as module
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from tests.photos.tars import LABELS, Members, as_folder, assert_same, encoded, samples, with_json, write_tar


def test_shards_of_webdatasets_writer_are_the_photos_in_folders(tmp_path: Path) -> None:
    numbers = [10, 2, 2, 10, 0, 2, 0, 10, 2]
    (tmp_path / "tars").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "tars/flowers-%06d.tar"), maxcount=4, verbose=0) as out:
        for number, label in enumerate(numbers):
            out.write({"__key__": f"{number:04d}", "jpg": encoded(number), "cls": label})
    found = Photos(tmp_path / "tars")
    assert found.classes == ("0", "2", "10")  # numbers in their order, not as text
    expected = as_folder(tmp_path / "folder", [f"{label:02d}" for label in numbers])
    assert_same(found, expected.with_classes(["00", "02", "10"]), names=False)
    assert found.notes == ("3 tar files without an index of flowerfast: photos from .jpg, labels from .cls",)
    assert found.path(0) == "flowers-000001/0004.jpg"
    assert found.where(0) == "flowers-000001.tar: 0004.jpg (flowers-000001/0004.jpg)"


def out_of_order() -> Members:
    """Labels first, then photos backwards, something of others between."""
    return [*samples(LABELS)[1::2], ("readme.md", b"x"), *samples(LABELS)[0::2][::-1]]


LONG = "long/" * 40 + "ünï/"
READ: dict[str, tuple[Members, dict[str, Any]]] = {
    "`KEY.cls` with text": (samples(LABELS), {}),
    "labels that end with a line": ([(n, c + b"\r\n" * n.endswith("cls")) for n, c in samples(LABELS)], {}),
    "`KEY.jpeg`": (samples(LABELS, "jpeg"), {}),
    "`KEY.JPG`": (samples(LABELS, "JPG"), {}),
    "photos under another suffix": (samples(LABELS, "image"), {"path_column": "image"}),
    "img2dataset's `KEY.jpg`, `KEY.txt`, `KEY.json` with a field `label`": (with_json("label"), {}),
    "the same with a field `class_name`": (with_json("class_name"), {}),
    "the same with the label in another field": (with_json("species"), {"label_column": "species"}),
    "members out of order, and samples split": (out_of_order(), {}),
    "PAX or GNU names, long and not ASCII": (
        [(LONG + name, content) for name, content in samples(LABELS)],
        {},
    ),
    "a mask beside, `KEY.mask.png`": ([*samples(LABELS), ("0000.mask.png", encoded(9, "PNG"))], {}),
    "hidden files, `__MACOSX`, `__index__`": (
        [("__index__", b"x"), ("._0000.jpg", b"x"), ("__MACOSX/._1.jpg", b"x"), *samples(LABELS)],
        {},
    ),
    "class folders: `photos/rose/1.jpg`, no labels": (
        [(f"photos/{LABELS[number]}/{number:04d}.jpg", encoded(number)) for number in range(len(LABELS))],
        {},
    ),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_layouts_of_others_are_the_photos_in_folders(tmp_path: Path, kind: str, form: int) -> None:
    members, settings = READ[kind]
    write_tar(tmp_path / "tars/some.tar", members, form)
    found, expected = Photos(tmp_path / "tars", **settings), as_folder(tmp_path / "folder", LABELS)
    assert_same(found, expected)


def test_formats_may_differ_and_a_key_may_come_again_in_another_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(["rose", "tulip"]))
    write_tar(tmp_path / "tars/b.tar", samples(["tulip"], "PNG"))
    found = Photos(tmp_path / "tars")
    assert [found.path(i) for i in found.indices] == ["a/0000.jpg", "a/0001.jpg", "b/0000.png"]
    assert found.notes == (
        "2 tar files without an index of flowerfast: photos from .jpg, .png, labels from .cls",
    )


@pytest.mark.parametrize("names", [("train-0.tar", "set-validation-0.tar"), ("train/0.tar", "val/0.tar")])
def test_halves_are_told_by_the_words_of_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        write_tar(tmp_path / "tars" / name, samples(["rose", "tulip", "rose"], first=3 * number))
    train, val = Photos(tmp_path / "tars").split(0.2, seed=0)
    assert [{half.path(i)[-8:] for i in half.indices} for half in (train, val)] == [
        {"0000.jpg", "0001.jpg", "0002.jpg"},
        {"0003.jpg", "0004.jpg", "0005.jpg"},
    ]
    assert not Photos(tmp_path / "tars", layout="classes").table.fold.any()


def test_a_single_half_is_a_set_like_any_other(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/val-0.tar", samples(LABELS))
    assert not Photos(tmp_path / "tars").table.fold.any()
    with pytest.raises(
        UserError, match=r"data\.layout=split, but no tar file is named train; it holds val-0"
    ):
        Photos(tmp_path / "tars", layout="split")


def test_classes_are_chosen_as_of_folders(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", [*samples(LABELS), ("9.jpg", b"no photo"), ("9.cls", b"rose")])
    found = Photos(tmp_path / "tars", classes=["tulip", "rose"], max_bad=0.5)
    assert found.classes == ("tulip", "rose")
    assert found.labels.tolist() == [1, 1, 0, 0]
    assert [found.table.classes[label] for label in found.table.bad_label] == ["rose"]
    assert "data.classes: 3 photos of 1 other class are left out: daisy" in found.notes
    assert not Photos(tmp_path / "tars", classes=["tulip", "daisy"]).bad


def test_damaged_photos_are_named_and_counted(tmp_path: Path) -> None:
    members = [*samples(LABELS), ("x.jpg", encoded(1)[:40]), ("x.cls", b"rose"), ("y.cls", b"rose")]
    write_tar(tmp_path / "tars/a.tar", members)
    found = Photos(tmp_path / "tars", max_bad=0.5)
    assert [bad.path for bad in found.bad] == ["a/x.jpg"]
    assert "left out, samples without a photo: 1" in found.notes
    assert len(found) == len(LABELS)
    with pytest.raises(UserError, match=r"tars/a/x\.jpg: .+\(data\.on_bad=skip\)"):
        Photos(tmp_path / "tars", on_bad="fail")


def test_links_are_left_out_and_said(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    with tarfile.open(file, "a") as tar:
        link = tarfile.TarInfo("7.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "left out, links and other members that are no files: 1" in Photos(tmp_path / "tars").notes


# ------------------------------------------------------------------------------------------ what is kept


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of tars that were read through."""
    seen: list[Path] = []

    class Counting(module.Scan):
        def __init__(self, root: Path, *rest: Any) -> None:
            seen.append(root)
            super().__init__(root, *rest)

    monkeypatch.setattr(module, "Scan", Counting)
    return seen


def test_tars_are_read_through_once_and_nothing_is_written_beside_them(
    tmp_path: Path, readings: list[Path]
) -> None:
    file = write_tar(tmp_path / "tars/a.tar", [*samples(LABELS), ("9.jpg", b"no"), ("9.cls", b"rose")])
    first, again = (Photos(tmp_path / "tars", max_bad=0.5) for _ in range(2))
    assert len(readings) == 1
    assert os.listdir(tmp_path / "tars") == ["a.tar"]
    assert (again.fingerprint, again.notes, again.bad) == (first.fingerprint, first.notes, first.bad)
    assert_same(again, first)
    os.utime(file, ns=(1, 1))
    assert Photos(tmp_path / "tars", max_bad=0.5).fingerprint == first.fingerprint
    assert len(readings) == 2
    shutil.move(tmp_path / "tars", tmp_path / "moved")
    assert Photos(tmp_path / "moved", max_bad=0.5).fingerprint == first.fingerprint


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_a_reading(
    tmp_path: Path, own_cache: Path, readings: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    first = Photos(tmp_path / "tars")
    (kept,) = (own_cache / "tars").iterdir()
    kept.write_bytes(kept.read_bytes()[:-50])
    assert_same(Photos(tmp_path / "tars"), first)
    kept.unlink()
    kept.mkdir()
    with caplog.at_level(logging.WARNING):
        assert_same(Photos(tmp_path / "tars"), first)
    assert len(readings) == 3
    assert "what tar files hold is not kept" in caplog.text


def test_a_photo_that_changes_in_the_tar_is_not_read(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    found = Photos(tmp_path / "tars")
    content = bytearray(file.read_bytes())
    content[content.index(encoded(0)) + 30] ^= 1
    file.write_bytes(content)
    row = next(i for i in found.indices if found.path(i) == "a/0000.jpg")
    with pytest.raises(OSError, match="its bytes are not those"):
        found.read_one(row)


def test_photos_in_folders_come_before_tars_beside_them(tmp_path: Path) -> None:
    expected = as_folder(tmp_path / "photos", LABELS)
    write_tar(tmp_path / "photos/backup.tar", samples(LABELS))
    assert Photos(tmp_path / "photos").table.shards is None
    assert_same(Photos(tmp_path / "photos"), expected)


def test_photos_right_beside_tars_are_left_out_and_said(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    (tmp_path / "tars/sheet.jpg").write_bytes(encoded(0))
    found = Photos(tmp_path / "tars")
    assert len(found) == len(LABELS)
    assert "left out, photos that lie beside the tar files: sheet.jpg" in found.notes


def test_tars_elsewhere_are_left_out_and_said(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    write_tar(tmp_path / "tars/sub/b.tar", samples(LABELS))
    (tmp_path / "tars/gone.tar").symlink_to(tmp_path / "nowhere.tar")
    found = Photos(tmp_path / "tars")
    assert len(found) == len(LABELS)
    said = "left out, tar files in other folders and links that lead nowhere: gone.tar, sub/"
    assert said in found.notes


def test_a_tar_as_data_is_told_from_its_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    for name in ("a.tar", "a-{000..003}.tar"):
        with pytest.raises(UserError, match=r"; give the folder that the tar files are in"):
            Photos(tmp_path / "tars" / name)


def test_our_own_shards_without_their_index_are_no_strangers(tmp_path: Path) -> None:
    """Where nothing else of ours is left, they are read as what they are: numbers for classes."""
    write_tar(tmp_path / "tars/shard-000000.tar", samples(["0", "1", "0"]))
    assert Photos(tmp_path / "tars").classes == ("0", "1")
    (tmp_path / "tars/flowerfast-pack.json").write_text("{}")
    with pytest.raises(UserError, match=rf"holds shards without their index, {INDEX}"):
        Photos(tmp_path / "tars")
