"""What is no place of photos is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.errors import UserError
from tests.photos.tables import read_table

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "no such folder; give a folder"),
        (
            lambda root: root.write_text("x"),
            "no folder, and no table (.csv, .tsv, .tab, .parquet, .pq);",
        ),
        (lambda root: root.mkdir(), "it holds no class folders; expected photos/CLASS/photo.jpg"),
        (lambda root: (root / "daisy").mkdir(parents=True), "no photos in 1 folders; read are JPEG, PNG"),
    ],
    ids=["missing", "a file", "empty", "empty class"],
)
def test_folders_without_photos_are_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    root = tmp_path / "photos"
    make(root)
    with pytest.raises(UserError) as caught:
        read_table(root)
    assert str(caught.value).startswith(f"{root}: {said}")
    assert "\n" not in str(caught.value)


def test_photos_beside_class_folders_are_explained(tmp_path: Path, write_photo: Write) -> None:
    write_photo(tmp_path / "1.JPG")
    with pytest.raises(UserError, match=r"photos lie beside, not in, class folders; expected .*CLASS/photo"):
        read_table(tmp_path)


def test_one_class_is_too_few_to_classify(photo_folder: Write) -> None:
    root = photo_folder({"daisy": 3})
    (root / "rose").mkdir()
    with pytest.raises(UserError, match=r"only one class with photos \(daisy\); .* two or more"):
        read_table(root)
    assert read_table(root, min_classes=1).classes == ("daisy",)


def test_a_folder_of_nothing_but_corrupt_files_is_refused(photo_folder: Write) -> None:
    root = photo_folder({"daisy": 1, "rose": 1})
    for file in root.rglob("*.jpg"):
        file.write_bytes(b"no")
    with pytest.raises(
        UserError, match=r"none of 2 photos can be read; first: daisy/daisy_000\.jpg: not an image"
    ):
        read_table(root)
