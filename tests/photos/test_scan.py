"""The scan of a folder: what counts as a photo, and in which order."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from flowerfast.photos import header
from flowerfast.photos import scan as module
from flowerfast.photos.header import read_header
from tests.photos.tables import read_table

Write = Callable[..., Path]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and ends before the pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", b"")


def undecodable(folder: Path) -> Path:
    """A path whose name is no UTF-8; the test is skipped where the file system refuses such names."""
    path = folder / os.fsdecode(b"caf\xe9.jpg")
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return path


def test_classes_and_order_are_those_of_imagefolder(tmp_path: Path, write_photo: Write) -> None:
    names = ["Zin/b.jpg", "Zin/a.png", "aster/10.jpg", "aster/2.jpg", "10/x.bmp", "2/x.bmp", "été/é.png"]
    nested = ["aster/wild/near/1.jpg", "aster/wild/9.JPEG", "aster/garden/Z.webp", "aster/garden/a.PNG"]
    for name in names + nested:
        write_photo(tmp_path / name)
    ours, theirs = read_table(tmp_path), ImageFolder(str(tmp_path))
    assert list(ours.classes) == theirs.classes == ["10", "2", "Zin", "aster", "été"]
    samples = [(Path(path).relative_to(tmp_path).as_posix(), label) for path, label in theirs.samples]
    assert list(zip(ours.paths(), ours.label.tolist(), strict=True)) == samples
    assert len(samples) == len(names + nested)


@pytest.mark.parametrize(
    "suffix", [".jpg", ".JPG", ".jpeg", ".Jpeg", ".png", ".PNG", ".webp", ".WEBP", ".bmp"]
)
def test_suffixes_in_either_case(photo_folder: Write, suffix: str) -> None:
    table = read_table(photo_folder({"a": 1, "b": 1}, sizes=[(21, 13)], suffix=suffix))
    assert [(w, h) for w, h in zip(table.width, table.height, strict=True)] == [(21, 13)] * 2


def test_other_and_hidden_files_and_folders_are_left_alone(photo_folder: Write, write_photo: Write) -> None:
    root = photo_folder({"daisy": 1, "rose": 1})
    before = read_table(root).paths()
    for hidden in (".git/x.jpg", "daisy/.thumbs/x.jpg", "daisy/.x.jpg", "rose/._rose_000.jpg", "loose.jpg"):
        write_photo(root / hidden)
    (root / "daisy/notes.txt").write_text("x")
    (root / "daisy/jpg").write_text("x")
    (root / "daisy/folder.jpg").mkdir()
    (root / "empty").mkdir()
    (root / "only_text/deep").mkdir(parents=True)
    (root / "only_text/deep/a.txt").write_text("x")
    after = read_table(root)
    assert after.paths() == before
    assert after.classes == ("daisy", "rose")
    assert not after.bad


def test_folder_without_photos_leaves_no_gap_in_the_labels(photo_folder: Write) -> None:
    root = photo_folder({"a": 1, "c": 2})
    (root / "b").mkdir()
    assert read_table(root).label.tolist() == [0, 1, 1]


def test_train_val_and_test_folders_bring_their_fold(photo_folder: Write) -> None:
    root = photo_folder({"train/daisy": 2, "train/rose": 1, "val/daisy": 1, "val/rose": 1, "test/rose": 1})
    table = read_table(root)
    assert table.classes == ("daisy", "rose")
    assert table.paths() == [
        "train/daisy/daisy_000.jpg",
        "train/daisy/daisy_001.jpg",
        "train/rose/rose_000.jpg",
        "val/daisy/daisy_000.jpg",
        "val/rose/rose_000.jpg",
        "test/rose/rose_000.jpg",
    ]
    assert table.fold.tolist() == [1, 1, 1, 2, 2, 3]
    assert table.label.tolist() == [0, 0, 1, 0, 1, 1]


def test_classes_of_train_and_val_are_joined(photo_folder: Write) -> None:
    table = read_table(photo_folder({"train/b": 1, "train/c": 1, "val/a": 1, "val/c": 1}))
    assert table.classes == ("a", "b", "c")
    assert table.label.tolist() == [1, 2, 0, 2]


def test_a_class_may_be_named_train(photo_folder: Write) -> None:
    table = read_table(photo_folder({"train": 1, "ship": 1}))
    assert table.classes == ("ship", "train")
    assert table.fold.tolist() == [0, 0]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_size_is_of_the_stored_pixels_and_orientation_beside_it(
    tmp_path: Path, write_photo: Write, scans: list[Path], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_photo(tmp_path / "a/x.jpg", (50, 20), exif=exif)
    write_photo(tmp_path / "b/x.jpg", (50, 20))
    for _ in range(2):  # scanned, then cached
        table = read_table(tmp_path)
        assert (table.width.tolist(), table.height.tolist()) == ([50, 50], [20, 20])
        assert table.orientation.tolist() == [orientation, 1]
    assert len(scans) == 2


def test_headers_alone_are_read(photo_folder: Write) -> None:
    root = photo_folder({"a": 1, "b": 1})
    (root / "a/huge.png").write_bytes(png_header(6000, 4000))
    table = read_table(root)
    assert table.width[table.paths().index("a/huge.png")] == 6000


def test_corrupt_files_are_named_with_a_reason(photo_folder: Write) -> None:
    root = photo_folder({"daisy": 2, "rose": 2})
    (root / "daisy/garbage.jpg").write_bytes(b"not a photo at all")
    (root / "daisy/empty.jpg").write_bytes(b"")
    (root / "rose/cut.jpg").write_bytes((root / "rose/rose_000.jpg").read_bytes()[:40])
    (root / "rose/dangling.jpg").symlink_to(root / "nowhere.jpg")
    table = read_table(root)
    assert len(table) == 4
    reasons = {bad.path: bad.error for bad in table.bad}
    assert sorted(reasons) == ["daisy/empty.jpg", "daisy/garbage.jpg", "rose/cut.jpg", "rose/dangling.jpg"]
    assert reasons["daisy/garbage.jpg"] == "not an image"
    assert reasons["rose/dangling.jpg"] == "No such file or directory"
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert set(reasons).isdisjoint(table.paths())


def test_max_pixels_is_the_largest_size_taken(photo_folder: Write) -> None:
    root = photo_folder({"a": 2, "b": 2}, sizes=[(40, 30), (41, 30)])
    table = read_table(root, max_pixels=1200)
    assert table.width.tolist() == [40, 40]
    assert [bad.path for bad in table.bad] == ["a/a_001.jpg", "b/b_001.jpg"]
    assert table.bad[0].error == "41x30 pixels, more than data.max_pixels=1200"
    assert len(read_table(root, max_pixels=1230)) == 4  # another limit, another scan


def test_huge_photos_are_judged_by_max_pixels_without_a_warning() -> None:
    hundred_million = png_header(10_000, 10_000)  # Pillow warns from 89 million on
    assert read_header(io.BytesIO(hundred_million), 100_000_000)[:3] == (10_000, 10_000, 1)
    with pytest.raises(OSError, match=r"10000x10000 pixels, more than data\.max_pixels=80000000"):
        read_header(io.BytesIO(hundred_million), 80_000_000)
    with pytest.raises(ValueError, match="pixels"):
        read_header(io.BytesIO(png_header(100_000, 100_000)), 80_000_000)


def test_names_beyond_ascii(tmp_path: Path, write_photo: Write) -> None:
    names = ["Gänseblümchen/ä b.jpg", "向日葵/ひまわり.jpg", "🌷/🌷🌷.jpg"]
    for name in names:
        write_photo(tmp_path / name)
    for _ in range(2):  # scanned, then cached
        table = read_table(tmp_path)
        assert table.paths() == names


def test_names_that_are_no_utf8(photo_folder: Write, write_photo: Write, scans: list[Path]) -> None:
    root = photo_folder({"a": 1, "b": 1})
    good, bad = undecodable(root / "a"), undecodable(root / "b")
    write_photo(good, (17, 19))
    for _ in range(2):  # scanned, then cached
        table = read_table(root)
        assert table.paths() == ["a/a_000.jpg", f"a/{good.name}", "b/b_000.jpg"]
        assert [b.path for b in table.bad] == [f"b/{bad.name}"]
    assert len(scans) == 4


def test_progress_is_told_in_a_long_scan_only(photo_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photo_folder({"a": 3, "b": 2})
    told: list[tuple[int, int]] = []
    clock = iter(np.arange(0, 100, 0.06).tolist())  # a file and a look at the clock take 0.06 s
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    read_table(root, progress=lambda done, total: told.append((done, total)))
    assert told
    assert all(1 <= done <= total == 5 for done, total in told)
    assert told == sorted(told)
    told.clear()
    read_table(root, progress=lambda done, total: told.append((done, total)))
    assert not told  # cached


@pytest.mark.real_data
def test_real_photos(real_photos: Path) -> None:
    table = read_table(real_photos)
    assert not table.bad
    assert table.width.min() > 32
    assert table.height.min() > 32
    assert list(table.classes) == ImageFolder(str(real_photos)).classes
    with Image.open(real_photos / table.path(7)) as image:
        assert image.size == (table.width[7], table.height[7])


def test_a_file_too_large_for_a_photo_is_never_read(photo_folder: Write) -> None:
    root = photo_folder({"a": 2, "b": 2})
    with (root / "a/a_000.jpg").open("ab") as file:
        file.truncate(1 << 40)  # sparse
    (bad,) = read_table(root).bad
    assert bad.path == "a/a_000.jpg"
    assert bad.error == "has 1099511627776 bytes, more than 1280000000: no photo is that large"


def test_a_header_that_makes_the_decoder_stumble_is_a_bad_file(
    photo_folder: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, opened = photo_folder({"a": 2, "b": 2}), header.open_image

    def stumble(file: Path) -> AbstractContextManager[Image.Image]:
        if file.name == "a_000.jpg":
            raise NotImplementedError("unknown\nvariant")
        return opened(file)

    monkeypatch.setattr(header, "open_image", stumble)
    table = read_table(root)
    assert [(bad.path, bad.error) for bad in table.bad] == [("a/a_000.jpg", "unknown")]
