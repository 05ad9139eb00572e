"""Some of the classes, in an order of their own: of folders, tables and shards alike."""

import csv
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.classes import class_names
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]


@pytest.fixture(params=["folder", "table", "shards"])
def place(request: pytest.FixtureRequest, photo_folder: Write, tmp_path: Path) -> Path:
    """The same photos as a folder, as a table and as shards."""
    folder = photo_folder({"daisy": 6, "rose": 5, "tulip": 4})
    if request.param == "folder":
        return folder
    if request.param == "shards":
        pack(folder, tmp_path / "shards", PackSettings(), DataConfig(workers=1))
        return tmp_path / "shards"
    with (folder / "t.csv").open("w", newline="") as out:
        rows = [(path, path.split("/")[0]) for path in Photos(folder).table.paths()]
        csv.writer(out).writerows([("path", "label"), *rows])
    return folder / "t.csv"


@pytest.mark.parametrize("classes", [("tulip", "daisy"), ["tulip", "daisy"], "tulip, daisy"])
def test_classes_chosen_are_the_labels_in_their_order(place: Path, classes: Sequence[str] | str) -> None:
    everything, photos = Photos(place), Photos(place, classes=classes)
    assert photos.classes == ("tulip", "daisy")
    assert np.bincount(photos.labels).tolist() == [4, 6]
    for index in range(len(photos)):
        path = photos.path(index)
        assert path.split("/")[0] == photos.classes[photos.labels[index]]
        same = everything.table.paths().index(path)
        assert bytes(photos.read_one(index)) == bytes(everything.read_one(same))
    assert (
        len({photos.fingerprint, everything.fingerprint, Photos(place, classes="daisy,tulip").fingerprint})
        == 3
    )
    assert any("of 1 other class are left out: rose" in note for note in photos.notes)
    assert [len(half) for half in photos.split(0.5)] == [5, 5]
    assert Photos(place, classes="rose,tulip,daisy").notes == everything.notes


def test_what_is_no_class_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match=r"no class 'rosse' \(data.classes\); did you mean 'rose'\?"):
        Photos(place, classes="rosse,tulip")
    with pytest.raises(
        UserError, match=r"no class 'oak' \(data.classes\); its classes are daisy, rose, tulip"
    ):
        Photos(place, classes="oak,tulip")
    with pytest.raises(UserError, match="only one class"):
        Photos(place, classes="rose")
    assert len(Photos(place, classes="rose", min_classes=1)) == 5


def test_a_file_of_names(photo_folder: Write, tmp_path: Path) -> None:
    folder = photo_folder({"a, b": 2, "c": 2, "straße": 2})
    names = tmp_path / "names.txt"
    names.write_bytes("straße\r\n\r\n a, b \r\n".encode("utf-8-sig"))
    assert Photos(folder, classes=str(names)).classes == ("straße", "a, b")
    names.write_bytes(b"c\nstra\xdfe\n")
    with pytest.raises(UserError, match=r"names.txt: not text in UTF-8"):
        Photos(folder, classes=str(names))
    names.write_text("c\na, b\nc\n")
    with pytest.raises(UserError, match=r"names.txt: class 'c' is named twice"):
        Photos(folder, classes=str(names))
    names.write_text("\n")
    with pytest.raises(UserError, match=r"names.txt: names no class"):
        Photos(folder, classes=str(names))
    assert class_names("one") == ("one",)


def test_one_name_in_two_forms_of_unicode(photo_folder: Write) -> None:
    folder = photo_folder({"é": 2, "a": 2})
    assert Photos(folder, classes=[unicodedata.normalize("NFD", "é"), "a"]).classes == ("é", "a")


def test_bad_files_of_other_classes_do_not_count(photo_folder: Write, scans: list[Path]) -> None:
    folder = photo_folder({"a": 3, "b": 3, "c": 3})
    for file in (folder / "c").iterdir():
        file.write_bytes(b"no photo")
    assert Photos(folder, classes="b,a").bad == ()
    assert not [file for file in scans if file.parent.name == "c"]
    with pytest.raises(UserError, match="files cannot be read"):
        Photos(folder)
    for file in (folder / "c").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(
        UserError, match=r"class 'c' \(data.classes\) has no photos; add some or leave it out"
    ):
        Photos(folder, classes="c,a")
    seen = len(scans)
    Photos(folder, classes="b,a")  # beside what is kept of the whole folder
    assert len(scans) == seen
