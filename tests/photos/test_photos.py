"""Photos: subsets that keep each sample's identity, bytes as they are now, bad files named and counted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]


def test_attributes_are_those_of_the_set(photo_folder: Write) -> None:
    root = photo_folder({"rose": 2, "daisy": 3}, sizes=[(40, 30), (33, 57)])
    photos = Photos(root)
    assert (photos.root, photos.classes, len(photos)) == (root, ("daisy", "rose"), 5)
    assert photos.indices.tolist() == [0, 1, 2, 3, 4]
    assert photos.labels.tolist() == [0, 0, 0, 1, 1]
    assert photos.path(4) == photos.where(4) == "rose/rose_001.jpg"
    width, height = photos.sizes(np.array([4, 0]))
    assert (width.tolist(), height.tolist()) == ([33, 40], [57, 30])
    assert {a.dtype.type for a in (photos.indices, photos.labels, width, height)} == {np.int64}
    assert not photos.bad
    assert not photos.bad_indices
    assert "5 samples of 2 classes" in repr(photos)
    assert len(Photos(str(root))) == 5


def test_open_takes_the_settings_of_the_section_data(photo_folder: Write) -> None:
    root = photo_folder({"a": 2, "b": 2}, sizes=[(40, 30), (41, 30)])
    small = Photos.open(root, DataConfig(max_pixels=1200, max_bad=0.5))
    assert [bad.path for bad in small.bad] == ["a/a_001.jpg", "b/b_001.jpg"]
    with pytest.raises(UserError, match=r"a_001\.jpg: 41x30 pixels, more than .* \(data\.on_bad=skip\)"):
        Photos.open(root, DataConfig(max_pixels=1200, on_bad="fail"))
    with pytest.raises(UserError, match=r"2 of 4 files cannot be read, more than data\.max_bad=0\.05"):
        Photos.open(root, DataConfig(max_pixels=1200))


def test_a_subset_keeps_order_and_identity_and_shares_what_is_bad(photo_folder: Write) -> None:
    whole = Photos(photo_folder({"a": 4, "b": 4}), max_bad=1)
    part = whole.subset([6, 1, 2])
    assert part.indices.tolist() == [6, 1, 2]
    assert part.labels.tolist() == [1, 0, 0]
    assert part.subset(part.indices[1:]).labels.tolist() == [0, 0]
    assert len(whole.subset([])) == 0
    for index in part.indices.tolist():
        assert part.path(index) == whole.path(index)
        assert np.array_equal(part.decode(index), whole.decode(index))
    part.report_bad(2, "no good")
    assert whole.bad_indices == part.bad_indices == {2}
    assert [(bad.path, bad.error) for bad in whole.bad] == [("a/a_002.jpg", "no good")]
    assert len(whole) == 8


def test_with_classes_takes_the_order_of_another_list(photo_folder: Write) -> None:
    photos = Photos(photo_folder({"daisy": 1, "rose": 2}))
    other = photos.with_classes(["tulip", "rose", "aster", "daisy"])
    assert other.classes == ("tulip", "rose", "aster", "daisy")
    assert other.labels.tolist() == [3, 1, 1]
    assert other.table.label.dtype == np.int32
    assert other.table.paths() == photos.table.paths()
    assert photos.labels.tolist() == [0, 1, 1]


# ------------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize("change", [0, -1, 1, -200, 3_000_000], ids=str)
def test_bytes_are_those_of_the_file_now(photo_folder: Write, change: int) -> None:
    photos = Photos(photo_folder({"a": 2, "b": 1}))
    file = photos.root / photos.path(1)
    data = file.read_bytes()
    now = data[:change] if change < 0 else data + bytes(range(250)) * (change // 250 + 1) if change else data
    file.write_bytes(now)
    found = photos.read_one(1)
    assert found.dtype == np.uint8
    assert found.tobytes() == now


def test_empty_missing_and_damaged_files(photo_folder: Write, write_photo: Write) -> None:
    photos = Photos(photo_folder({"a": 4, "b": 1}))
    empty, gone, other, whole = (photos.root / photos.path(i) for i in range(4))
    empty.write_bytes(b"")
    gone.unlink()
    write_photo(other, (9, 8))
    assert len(photos.read_one(0)) == 0
    with pytest.raises(FileNotFoundError):
        photos.read_one(1)
    with pytest.raises(DecodeError, match="is 9x8 now, was 33x33 when scanned"):
        photos.decode(2)
    assert [photos.problem(i) is None for i in range(4)] == [False, False, False, True]
    assert "\n" not in "".join(str(photos.problem(i)) for i in range(4))
    with Image.open(whole) as image:
        assert np.array_equal(photos.decode(3), np.asarray(image))
    assert not photos.bad  # nobody has reported any


# -------------------------------------------------------------------------------------------- bad files


def test_too_many_bad_files_raise_and_one_is_never_too_many(photo_folder: Write) -> None:
    photos = Photos(photo_folder({"a": 6, "b": 9}), max_bad=0.2)  # 3 of 15
    for index in (0, 1, 2, 2, 1):  # counted once each
        photos.report_bad(index, "bad")
    with pytest.raises(
        UserError, match=r"4 of 15 files.*data\.max_bad=0\.2.*a_003\.jpg: worse; mend or remove"
    ):
        photos.report_bad(3, "worse")
    Photos(photos.root, max_bad=0).report_bad(0, "bad")
    strict = Photos(photos.root, on_bad="fail")
    for _ in range(2):  # whoever goes on all the same is told again
        with pytest.raises(UserError, match=r"photos/a/a_000\.jpg: bad; mend .* \(data\.on_bad=skip\)"):
            strict.report_bad(0, "bad")


def test_files_left_out_at_the_scan_count(photo_folder: Write) -> None:
    root = photo_folder({"a": 6, "b": 9})
    for i in range(3):
        (root / f"a/a_{i:03d}.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"a_000\.jpg.*data\.on_bad=skip"):
        Photos(root, on_bad="fail")
    with pytest.raises(UserError, match=r"3 of 15 files"):
        Photos(root, max_bad=0.1)
    photos = Photos(root, max_bad=0.2)
    assert [bad.path for bad in photos.bad] == [f"a/a_{i:03d}.jpg" for i in range(3)]
    assert not photos.bad_indices  # they have no index
    with pytest.raises(UserError, match=r"4 of 15 files"):
        photos.report_bad(5, "bad")


@pytest.mark.parametrize("wrong", [[1.5], [[1, 2], [3, 4]], "abc", 5, [True, False], [99], [-1]], ids=str)
def test_what_is_no_index_is_refused(photo_folder: Write, wrong: object) -> None:
    photos = Photos(photo_folder())
    with pytest.raises(UserError, match=r"subset: got|no sample"):
        photos.subset(wrong)
    if wrong == [True, False]:
        return  # a mask of another length
    for method in (photos.targets, photos.sizes, photos.orientations, photos.read):
        with pytest.raises(UserError, match=r"no sample|indices=.*: give whole numbers in one row"):
            method(wrong)


def test_no_indices_are_right_everywhere(photo_folder: Write) -> None:
    photos = Photos(photo_folder())
    assert len(photos.subset([])) == len(photos.targets([])) == len(photos.sizes([])[0]) == 0
    assert photos.read([])[0] == []


def test_a_subset_without_a_class_is_split_all_the_same(photo_folder: Write) -> None:
    photos = Photos(photo_folder({"a": 6, "b": 9, "c": 3}))
    train, val = photos.subset(range(15)).split(0.2)
    assert (len(train), len(val)) == (12, 3)
    assert sorted([*train.indices, *val.indices]) == list(range(15))


@pytest.mark.parametrize("given", [{"on_bad": "ignore"}, {"max_bad": 5}, {"max_pixels": 0}], ids=str)
def test_settings_out_of_bounds_are_refused(photo_folder: Write, given: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"Photos: {next(iter(given))}="):
        Photos(photo_folder(), **given)


def test_turned_photos_are_upright_or_as_they_are_stored(turned: tuple[Path, Path]) -> None:
    upright, stored, plain = Photos(turned[0]), Photos(turned[0], exif="ignore"), Photos(turned[1])
    assert len(upright) == 64
    assert [Path(upright.path(i)).stem for i in range(64)] == [Path(plain.path(i)).stem for i in range(64)]
    assert all(map(np.array_equal, upright.sizes(upright.indices), plain.sizes(plain.indices)))
    orientations = [int(Path(path).name[0]) if "tiff" not in path else 1 for path in upright.table.paths()]
    assert upright.orientations(upright.indices).tolist() == orientations
    assert set(stored.orientations(stored.indices).tolist()) == {1}
    for index in range(64):
        assert np.array_equal(upright.decode(index), plain.decode(index))
        with Image.open(stored.root / stored.path(index)) as image:
            pixels = np.asarray(image.convert("RGB"))
        for found in (stored.decode(index), upright.decode(index, upright=False)):
            assert np.array_equal(found, pixels)
        assert stored.sizes(np.array([index]))[0][0] == pixels.shape[1]


def test_how_photos_are_turned_is_said_only_where_some_are(
    turned: tuple[Path, Path], photo_folder: Callable[..., Path]
) -> None:
    upright, stored = Photos(turned[0]), Photos.open(turned[0], DataConfig(exif="ignore"))
    assert upright.notes == ("49 of 64 photos are stored turned and are turned upright (data.exif=apply)",)
    assert upright.with_classes(["b", "z", "a"]).subset([1]).notes == upright.notes
    assert upright.fingerprint != stored.fingerprint == stored.table.fingerprint
    assert not stored.notes
    plain = Photos(photo_folder())
    assert (plain.notes, plain.fingerprint) == ((), plain.table.fingerprint)
    with pytest.raises(UserError, match=r"exif='no'"):
        Photos(turned[0], exif="no")


def test_a_file_that_grows_beyond_all_photos_is_not_read(photo_folder: Callable[..., Path]) -> None:
    root = photo_folder({"a": 2, "b": 2})
    photos = Photos(root)
    with (root / "a/a_000.jpg").open("ab") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(OSError, match="has 1099511627776 bytes"):
        photos.decode(0)
    for compiled in (False, True):
        files, _ = photos.read(photos.indices, compiled)
        assert [isinstance(file, OSError) for file in files] == [True, False, False, False]
