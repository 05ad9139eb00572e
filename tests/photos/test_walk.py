"""What is left out of a folder, and said: own output, links, what is no photo; and what is followed."""

import io
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.errors import UserError
from flowerfast.photos.listing import photos_in
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, STATE
from flowerfast.photos.walk import Walk

Write = Callable[..., Path]


@pytest.fixture
def root(photo_folder: Write) -> Path:
    return photo_folder({"a": 2, "b": 2})


PLAIN = ["a/a_000.jpg", "a/a_001.jpg", "b/b_000.jpg", "b/b_001.jpg"]


def make_run(folder: Path, names: str = "config.yaml checkpoints/ summary.json split.json curve.png") -> None:
    for name in names.split():
        folder.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (folder / name).mkdir()
        elif name.endswith(".png"):
            Image.new("RGB", (32, 32)).save(folder / name)
        else:
            (folder / name).write_text("{}")


@pytest.mark.parametrize("names", ["config.yaml checkpoints/ c.png", "summary.json split.json c.png"])
@pytest.mark.parametrize("at", ["runs/photos-001", "out", "a/out"])
def test_a_run_folder_is_left_out(root: Path, names: str, at: str) -> None:
    before = Photos(root).table.fingerprint
    make_run(root / at, names)
    photos = Photos(root)
    assert photos.classes == ("a", "b")
    assert photos.table.paths() == PLAIN
    assert photos.notes == (f"{at}/: a run folder of flowerfast, left out",)
    assert photos.table.fingerprint == before


def test_many_run_folders_are_one_line(root: Path) -> None:
    for i in range(3):
        make_run(root / f"runs/photos-{i:03d}")
    assert Photos(root).notes == ("runs/: 3 run folders of flowerfast, left out",)


@pytest.mark.parametrize("name", [INDEX, STATE])
def test_shards_are_left_out(root: Path, write_photo: Write, name: str) -> None:
    write_photo(root / "small/x.jpg")
    (root / "small" / name).write_bytes(b"")
    assert Photos(root).notes == ("small/: a folder of shards of flowerfast, left out",)


def test_a_class_folder_with_a_file_of_the_same_name_stays(root: Path) -> None:
    (root / "a/config.yaml").write_text("a: 1")
    (root / "a/summary.json").write_text("{}")
    photos = Photos(root)
    assert photos.table.paths() == PLAIN
    assert photos.notes == (
        "2 files are not photos that can be read: 1 .yaml, 1 .json; first: a/config.yaml",
    )


def test_photos_are_found_by_content(root: Path, write_photo: Write) -> None:
    jpeg = (root / "a/a_000.jpg").read_bytes()
    for name in ("x.jfif", "x.jpe", "IMG_0001", "photo.backup", ".hidden"):
        (root / "a" / name).write_bytes(jpeg)
    write_photo(root / "b/x.tif")
    write_photo(root / "b/y.gif")
    write_photo(root / "b/z.avif")
    write_photo(root / "b/z.ppm")
    write_photo(root / "b/scan", format="TIFF")
    photos = Photos(root)
    assert photos.notes == ()
    assert not photos.bad
    found = {path for path in photos.table.paths() if path not in PLAIN}
    assert found == {
        *("a/IMG_0001", "a/photo.backup", "a/x.jfif", "a/x.jpe"),
        *("b/scan", "b/x.tif", "b/y.gif", "b/z.avif", "b/z.ppm"),
    }
    assert all(photos.decode(i).shape[2] == 3 for i in photos.indices.tolist())
    again = Photos(root)  # from the headers that are kept
    assert (again.table.paths(), again.notes) == (photos.table.paths(), photos.notes)


def test_what_is_no_photo_is_named_and_counted_at_every_start(root: Path) -> None:
    for name in ("x.heic", "y.HEIC", "notes.txt"):
        (root / "a" / name).write_bytes(b"no photo")
    for quiet in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "a" / quiet).write_bytes(b"no photo")
    (root / "b/raw.nef").write_bytes(_tiff())
    before = Photos(root).table.fingerprint
    for _ in range(2):  # scanned, then kept
        photos = Photos(root)
        assert photos.table.paths() == PLAIN
        assert not photos.bad
        assert photos.notes == (
            "4 files are not photos that can be read: 2 .heic (convert to JPEG), 1 .txt, 1 .nef (develop to "
            "JPEG); first: a/notes.txt",
        )
    (root / "a/more.txt").write_text("x")
    assert Photos(root).table.fingerprint == before


def _tiff() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "TIFF")
    return stream.getvalue()


def test_a_class_without_a_photo_is_named(root: Path) -> None:
    (root / "iphone").mkdir()
    (root / "iphone/1.heic").write_bytes(b"no photo")
    (root / "empty").mkdir()
    for _ in range(2):
        photos = Photos(root)
        assert photos.classes == ("a", "b")
        assert photos.notes == (
            "1 file is no photo that can be read: 1 .heic (convert to JPEG); first: iphone/1.heic",
            "no classes, for none of their files is a photo: iphone/",
            "left out, folders without a file: empty/",
        )


def test_nothing_but_files_that_are_no_photos_is_refused(tmp_path: Path) -> None:
    for kind in "ab":
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "1.heic").write_bytes(b"no photo")
    with pytest.raises(
        UserError, match=r"no photo in 2 folders: 2 files are not .*: 2 \.heic \(convert to JPEG\)"
    ):
        Photos(tmp_path)


def test_pixels_that_pillow_clips_are_said_and_stay(root: Path) -> None:
    deep = np.full((30, 40), 40_000, np.uint16)
    Image.fromarray(deep).save(root / "a/deep.png")
    for _ in range(2):
        photos = Photos(root)
        assert photos.notes == (
            "1 photo has more than 8 bits a channel, which Pillow turns white where it passes 255: "
            "a/deep.png; convert to 8 bits",
        )
    assert (photos.decode(photos.table.paths().index("a/deep.png")) == 255).all()


def test_photos_beside_class_folders_are_named(root: Path, write_photo: Write) -> None:
    write_photo(root / "loose.jpg")
    assert Photos(root).notes == ("left out, photos that lie in no class folder: loose.jpg",)


# ---------------------------------------------------------------------------------------------- links


def link(at: Path, to: Path | str) -> None:
    try:
        at.symlink_to(to)
    except OSError:
        pytest.skip("this file system has no links")


def test_loops_between_folders_end(photo_folder: Write) -> None:
    root = photo_folder({"a/x": 2, "a/y": 2, "a/z": 2, "b": 2})
    for one in "xyz":
        for other in "xyz":
            link(root / "a" / one / f"to_{other}", f"../{other}")
    photos = Photos(root)
    assert len(photos) == 8
    assert photos.notes == ()


@pytest.mark.parametrize("half", ["", "train/"])
def test_a_link_up_labels_no_class_as_another(photo_folder: Write, half: str) -> None:
    root = photo_folder({f"{half}{name}": 2 for name in "ab"})
    link(root / half / "a/up", "..")
    link(root / half / "up", "..")
    (root.parent / "other").mkdir()
    shutil.copy(root / half / "b/b_000.jpg", root.parent / "other")
    photos = Photos(root)
    assert photos.table.paths() == [f"{half}{path}" for path in PLAIN]


def test_a_file_under_two_classes_is_named(root: Path) -> None:
    link(root / "b/again.jpg", "../a/a_000.jpg")
    os.link(root / "a/a_001.jpg", root / "b/linked.jpg")
    photos = Photos(root)
    assert len(photos) == 6  # ordinary links are followed
    assert photos.notes == ("one file under two classes: a/a_000.jpg and b/again.jpg, and 1 more",) or (
        photos.notes == ("one file under two classes: a/a_001.jpg and b/linked.jpg, and 1 more",)
    )


def test_a_file_in_two_halves_is_named(photo_folder: Write) -> None:
    root = photo_folder({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1})
    os.link(root / "train/a/a_000.jpg", root / "val/a/same.jpg")
    assert Photos(root).notes == ("one file in two halves: train/a/a_000.jpg and val/a/same.jpg",)


def test_links_that_lead_nowhere_are_named(root: Path) -> None:
    link(root / "a/gone.jpg", "nowhere.jpg")
    link(root / "a/gone", "nowhere")
    link(root / "b/itself", "itself")
    photos = Photos(root, max_bad=1)
    assert [bad.path for bad in photos.bad] == ["a/gone.jpg"]
    assert photos.notes == ("left out, links that lead nowhere: a/gone, b/itself",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_regular_file_is_never_opened(root: Path) -> None:
    os.mkfifo(root / "a/pipe.jpg")
    at = socket.socket(socket.AF_UNIX)
    at.bind(os.path.relpath(root / "b/socket"))
    at.close()
    assert Photos(root).notes == (
        "left out, what is no regular file (pipe, socket, device): a/pipe.jpg, b/socket",
    )


@pytest.mark.parametrize("shut", ["a", "a/shut", "shut"])
def test_a_folder_that_cannot_be_read_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, shut: str
) -> None:
    """Else a class, or some of its photos, would go without a word. Predicting takes what there is."""
    (root / shut).mkdir(exist_ok=True)
    refuse_to_list(monkeypatch, root / shut)
    with pytest.raises(
        UserError, match=rf"{shut}: cannot be read \(Permission denied\), so its photos would be"
    ):
        Photos(root)
    assert photos_in(root)[1] == [f"left out, folders that cannot be read: {shut}/"]


def test_what_a_file_system_makes_for_itself_may_be_shut(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "lost+found").mkdir()
    refuse_to_list(monkeypatch, root / "lost+found")
    photos = Photos(root)
    assert photos.table.paths() == PLAIN
    assert "left out, folders that cannot be read: lost+found/" in photos.notes


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As for a user who may not; root may list everything."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


# ------------------------------------------------------------------------------------- without classes


def test_photos_of_a_folder_are_those_that_train_would_list(root: Path, write_photo: Write) -> None:
    write_photo(root / "top.jpg")
    write_photo(root / ".cache/x.jpg")
    shutil.copy(root / "top.jpg", root / "b/bare")
    (root / "b/x.heic").write_bytes(b"no photo")
    make_run(root / "runs/photos-001")
    link(root / "a/up", "..")
    photos, notes = photos_in(root)
    assert [path.relative_to(root).as_posix() for path in photos] == [
        "top.jpg",
        *PLAIN,
        "b/bare",
    ]
    assert notes == [
        "1 file is no photo that can be read: 1 .heic (convert to JPEG); first: b/x.heic",
        "runs/photos-001/: a run folder of flowerfast, left out",
    ]


def test_a_folder_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, scanned, scandir = Walk(root), [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    assert walk.has_photos("a")
    assert [names for _, names in walk.below("a")] == [["a_000.jpg", "a_001.jpg"]]
    assert len(scanned) == 1
