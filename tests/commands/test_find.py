"""Photos that a command line names: files, folders, patterns."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.commands.find import find_photos
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]


@pytest.fixture
def shelf(tmp_path: Path, write_photo: Write) -> Path:
    root = tmp_path / "shelf"
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "deep/d.jpeg"):
        write_photo(root / name)
    (root / "deep" / "notes.txt").write_text("no photo")
    (root / "empty").mkdir()
    (root / "folder.jpg").mkdir()
    return root


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("b.jpg", ["b.jpg"]), ("", ["a.PNG", "b.jpg", "deep/d.jpeg", "deep/er/c.webp"]),
     ("deep", ["deep/d.jpeg", "deep/er/c.webp"]), ("*.jpg", ["b.jpg"]), ("?.*", ["a.PNG", "b.jpg"]),
     ("**/*.jp*g", ["b.jpg", "deep/d.jpeg"]), ("deep/*", ["deep/d.jpeg", "deep/notes.txt"]),
     ("deep/notes.txt", ["deep/notes.txt"])],
)  # fmt: skip
def test_files_folders_and_globs(shelf: Path, argument: str, expected: list[str]) -> None:
    assert find_photos([os.path.join(shelf, argument)])[0] == [shelf / name for name in expected]


def test_arguments_keep_their_order(shelf: Path) -> None:
    found, _ = find_photos([str(shelf / "deep"), str(shelf / "b.jpg"), str(shelf / "a*")])
    assert [p.name for p in found] == ["d.jpeg", "c.webp", "b.jpg", "a.PNG"]


def test_a_name_with_brackets_is_a_file_first(tmp_path: Path, write_photo: Write) -> None:
    photo = write_photo(tmp_path / "rose [1].jpg")
    assert find_photos([str(photo)])[0] == [photo]


@pytest.mark.parametrize(
    ("argument", "what"),
    [("empty", "no photos in this folder"), ("absent.jpg", "no such file, folder or pattern"),
     ("*.gif", "no such file, folder or pattern"), ("deep/*er", "no such file, folder or pattern")],
)  # fmt: skip
def test_nothing_found(shelf: Path, argument: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        find_photos([str(shelf / "b.jpg"), str(shelf / argument)])
    assert str(shelf / argument) in str(caught.value)


def test_a_folder_stands_for_the_photos_that_training_would_take(tmp_path: Path, write_photo: Write) -> None:
    kind = tmp_path / "photos/rose"
    for name in ("a.jpg", ".hidden/b.jpg", ".thumb.jpg", "deep/c.png"):
        write_photo(kind / name)
    (kind / "up").symlink_to(kind)  # a loop
    (kind / "d.jpg").symlink_to(kind / "a.jpg")
    found, _ = find_photos([str(kind)])
    assert found == [kind / name for name in ("a.jpg", "d.jpg", "deep/c.png")]
    photos = Photos(kind.parent, min_classes=1)
    assert [photos.root / photos.path(i) for i in range(len(photos))] == found


def test_shards_are_told_from_an_empty_folder(shelf: Path) -> None:
    (shelf / "empty/shard-000000.tar").touch()
    with pytest.raises(
        UserError, match=r"empty: shards or tar files, which evaluate takes, and predict does"
    ):
        find_photos([str(shelf / "empty")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_what_is_there_and_no_file_is_not_called_absent(shelf: Path) -> None:
    os.mkfifo(shelf / "pipe.jpg")
    with pytest.raises(UserError, match=r"pipe\.jpg: no regular file; give photos"):
        find_photos([str(shelf / "pipe.jpg")])
