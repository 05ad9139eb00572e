"""How a folder is read: a table of layouts as people have them, and what becomes of each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]


def fill(root: Path, write_photo: Write, folders: str, count: int = 2) -> Path:
    """Photos in each folder named; one named `x/*` holds photos and no folder per class."""
    for folder in folders.split():
        for i in range(count):
            write_photo(root / folder.removesuffix("/*") / f"{i}.jpg", (24, 24), seed=i)
    return root


def read(root: Path, **options: Any) -> dict[str, list[str]]:
    """Folders of the photos by what they are for."""
    photos = Photos(root, **options)
    train, val = photos.split(0.5)
    parts = {"train": train, "val": val, "test": photos.test}
    assert sum(map(len, parts.values())) == len(photos)
    return {
        what: sorted({part.path(i).rpartition("/")[0] for i in part.indices.tolist()})
        for what, part in parts.items()
        if len(part)
    }


SPLITS = [
    ("train/a train/b val/a val/b", "train", "val", None),
    ("Train/a Train/b VALID/a VALID/b", "Train", "VALID", None),
    ("training/a training/b validation/a validation/b", "training", "validation", None),
    ("train/a train/b dev/a dev/b test/a test/b", "train", "dev", "test"),
    ("train/a train/b valid/a valid/b Testing/a", "train", "valid", "Testing"),
    ("train/a train/b test/a test/b", "train", "train", "test"),
    ("train/a train/b", "train", "train", None),
]


@pytest.mark.parametrize(("folders", "train", "val", "test"), SPLITS)
def test_halves_in_any_usual_spelling(
    tmp_path: Path, write_photo: Write, folders: str, train: str, val: str, test: str | None
) -> None:
    found = read(fill(tmp_path, write_photo, folders))
    assert found["train"] == [f"{train}/a", f"{train}/b"]
    assert found["val"] == [f"{val}/a", f"{val}/b"]
    assert {path.split("/")[0] for path in found.get("test", [])} == ({test} if test else set())
    assert Photos(tmp_path).classes == ("a", "b")
    assert Photos(tmp_path).notes == ()


CLASSES = [
    ("bus/* car/* train/*", ("bus", "car", "train"), ["train/: photos without class folders, so a class"]),
    ("bus/* test/* train/*", ("bus", "test", "train"), ["test/: photos without", "train/: photos without"]),
    ("trains/* tests/*", ("tests", "trains"), []),
    ("bus/old bus/new car/*", ("bus", "car"), []),
]


@pytest.mark.parametrize(("folders", "classes", "said"), CLASSES)
def test_classes_with_the_names_of_halves(
    tmp_path: Path, write_photo: Write, folders: str, classes: tuple[str, ...], said: list[str]
) -> None:
    photos = Photos(fill(tmp_path, write_photo, folders))
    assert photos.classes == classes
    assert not photos.table.fold.any()
    for note, start in zip(photos.notes, said, strict=True):
        assert note.startswith(start)


REFUSED = [
    ("train/a train/b val/a valid/a", "val/ and valid/ could each be the validation half"),
    ("train/a training/a test/a", "train/ and training/ could each be the training half"),
    ("train/a train/b a/* b/*", "class folders lie in train/ and beside: a/ and b/"),
    ("train/a train/b test/a test/b a/*", "class folders lie in .* and beside: a/"),
    ("train/steam train/diesel bus/* car/*", "class folders lie in train/ and beside: bus/ and car/"),
    ("train/a train/b test/c test/d", r"test/ has other classes \(c, d\) than train/ \(a, b\)"),
    ("train/* test/*", "test/ and train/ hold photos but no class folders"),
]


@pytest.mark.parametrize(("folders", "said"), REFUSED)
def test_what_people_would_read_in_two_ways_is_refused(
    tmp_path: Path, write_photo: Write, folders: str, said: str
) -> None:
    fill(tmp_path, write_photo, folders)
    with pytest.raises(UserError, match=said) as caught:
        Photos(tmp_path)
    assert "to read a split, " in str(caught.value)
    assert "to read all as classes, set data.layout=classes" in str(caught.value)
    assert "\n" not in str(caught.value)
    photos = Photos(tmp_path, layout="classes")
    assert set(photos.classes) == {folder.split("/")[0] for folder in folders.split()}


def test_a_split_can_be_asked_for_beside_class_folders(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, "train/a train/b a/* b/*")
    assert read(tmp_path, layout="split")["train"] == ["train/a", "train/b"]
    assert Photos(tmp_path, layout="split").notes == (
        "a/: beside train/, left out",
        "b/: beside train/, left out",
    )


def test_a_split_that_is_asked_for_must_be_there(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, "a/* b/*")
    with pytest.raises(UserError, match=r"data\.layout=split, but there is no train/; it holds a, b"):
        Photos(tmp_path, layout="split")


def test_what_lies_beside_a_whole_split_is_left_out_and_said(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, "train/a train/b val/a val/b unlabelled/*")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.json").write_text("{}")
    photos = Photos(tmp_path)
    assert photos.classes == ("a", "b")
    assert photos.notes == ("unlabelled/: beside train/ and val/, left out",)


def test_a_test_folder_without_labels_is_left_out_and_said(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, "train/a train/b test/*", count=3)
    photos = Photos(tmp_path)
    assert (len(photos), len(photos.test)) == (6, 0)
    assert photos.notes == ("test/: 3 photos in no class folder, which have no label; left out",)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ("train/a train/b val/*", r"val: photos lie in no class folder; expected val/CLASS/photo\.jpg"),
        ("train/* val/a val/b", r"train: photos lie in no class folder"),
        ("val/a val/b test/a", r"val/, but no train/ to train on"),
        ("train/a train/b test/a test/b test/c", r"train/c: no photos to train on, but test/ has them"),
        ("train/a train/b Valid/a Valid/c", r"train/c: no photos to train on, but Valid/ has them"),
    ],
)
def test_halves_that_cannot_be_trained_on(
    tmp_path: Path, write_photo: Write, folders: str, said: str
) -> None:
    fill(tmp_path, write_photo, folders)
    with pytest.raises(UserError, match=said):
        Photos(tmp_path).split()


def test_a_half_of_nothing_but_damaged_files_is_no_missing_half(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, "train/a train/b val/a val/b")
    for file in (tmp_path / "val").rglob("*.jpg"):
        file.write_bytes(b"no")
    with pytest.raises(UserError, match=r"val: no readable photos; first: val/a/0\.jpg: not an image"):
        Photos(tmp_path, max_bad=1)


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_one_class_in_two_forms_of_unicode(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, f"train/{NFD} train/b val/{NFC} val/b")
    photos = Photos(tmp_path)
    assert photos.classes == ("b", NFD)  # as train/ spells it
    train, val = photos.split()
    assert val.labels.tolist() == train.labels.tolist() == [0, 0, 1, 1]
    assert photos.with_classes((NFC, "b")).labels.tolist() == [1, 1, 0, 0] * 2


def test_one_class_in_two_forms_beside_each_other(tmp_path: Path, write_photo: Write) -> None:
    fill(tmp_path, write_photo, f"{NFD}/* {NFC}/* b/*")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes both for one")
    photos = Photos(tmp_path)
    assert photos.classes == ("b", NFD)
    assert photos.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert photos.notes == (f"read as one class, for the names differ in Unicode's form only: {NFD}",)
