"""Packed photos: the rows of the folder, the bytes of the files."""

import errno
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import packed_table
from flowerfast.photos import shards as module
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, STATE, read_index
from tests.photos.packed import SMALL, packed
from tests.photos.tables import without_orientations

Write = Callable[..., Path]
ROWS = ("label", "width", "height", "size", "fold", "path_bytes", "path_ends")


def members(tar: Path) -> list[str]:
    """Names of what is in a tar."""
    with tarfile.open(tar) as opened:
        return opened.getnames()


def test_rows_are_those_of_the_folder_and_bytes_those_of_the_files(photo_folder: Write) -> None:
    folder, shards = packed(photo_folder())
    assert shards.classes == folder.classes
    for name in ROWS:
        ours, theirs = getattr(shards.table, name), getattr(folder.table, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name
    assert len(list(shards.root.glob("*.tar"))) > 1
    for i in range(len(folder)):
        encoded = shards.read_one(i)
        assert encoded.dtype == np.uint8
        assert encoded.tobytes() == (folder.root / folder.path(i)).read_bytes()


def test_threads_read_the_same_bytes(photo_folder: Write) -> None:
    folder, shards = packed(photo_folder({"a": 9, "b": 9}))
    expected = [folder.read_one(i).tobytes() for i in range(len(folder))]
    with ThreadPoolExecutor(8) as pool:
        order = np.random.default_rng(0).integers(0, len(folder), 400).tolist()
        found = list(pool.map(lambda i: shards.read_one(i).tobytes() == expected[i], order))
    assert all(found)


def test_another_process_opens_shards_itself(photo_folder: Write) -> None:
    """What is pickled holds no descriptors: a number is another file there."""
    folder, shards = packed(photo_folder())
    shards.read(shards.indices)
    sent = pickle.loads(pickle.dumps(shards))
    assert not sent.table.shards._open
    assert sent.read_one(3).tobytes() == folder.read_one(3).tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_reads_the_same_bytes(photo_folder: Write) -> None:
    folder, shards = packed(photo_folder())
    code = (  # in an interpreter of its own: to fork one that has used DALI is asking for trouble
        "import os, sys\nfrom flowerfast.photos.photos import Photos\n"
        f"folder, shards = Photos({str(folder.root)!r}), Photos({str(shards.root)!r})\n"
        "shards.read_one(0)\n"  # one shard is mapped before, the others after
        "child = os.fork()\n"
        "reads = [[photos.read_one(i).tobytes() for i in photos.indices] for photos in (folder, shards)]\n"
        "same = reads[0] == reads[1]\n"
        "if not child: os._exit(not same)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not same)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=100).returncode == 0


@pytest.mark.parametrize("most", [0, 2])
def test_more_shards_than_may_stay_open(
    photo_folder: Write, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(module, "_MOST_OPEN", most)
    folder, shards = packed(photo_folder(), PackSettings(shard_bytes=1))
    assert len(list(shards.root.glob("*.tar"))) == len(folder)
    for compiled in (True, False, True):
        files = shards.read(shards.indices, compiled)[0]
        assert [file.tobytes() for file in files] == [
            folder.read_one(i).tobytes() for i in range(len(folder))
        ]
    assert len(shards.table.shards._open) == most


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_open_shards_make_room_for_others(photo_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shards = packed(photo_folder(), PackSettings(shard_bytes=1))
    shards.read_one(0)
    opened, taken = module.open_regular, [True]

    def full(path: Path) -> int:
        if taken and taken.pop():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path)

    monkeypatch.setattr(module, "open_regular", full)
    last = len(shards) - 1
    assert shards.table.shards.shard[0] != shards.table.shards.shard[last]
    assert shards.read_one(last).tobytes()
    assert len(shards.table.shards._open) == 1


def test_the_split_is_that_of_the_folder(photo_folder: Write) -> None:
    folder, shards = packed(photo_folder())
    for ours, theirs in zip(shards.split(0.3, seed=5), folder.split(0.3, seed=5), strict=True):
        assert np.array_equal(ours.indices, theirs.indices)


def test_train_and_val_stay_apart(photo_folder: Write) -> None:
    folder, shards = packed(photo_folder({"train/a": 3, "train/b": 2, "val/a": 2, "val/b": 1, "test/a": 1}))
    assert np.array_equal(shards.table.fold, folder.table.fold)
    assert np.array_equal(shards.split()[1].indices, folder.split()[1].indices)
    for half, count in (("train", 5), ("val", 3), ("test", 1)):
        assert sum(len(members(tar)) for tar in shards.root.glob(f"{half}-*.tar")) == 2 * count
    assert {tar.name.split("-")[0] for tar in shards.root.glob("*.tar")} == {"train", "val", "test"}
    assert [shards.path(i) for i in shards.test.indices] == ["test/a/a_000.jpg"]


def test_paths_and_classes_that_are_no_utf8(tmp_path: Path, write_photo: Write) -> None:
    names = ["photos/ros\udce9/caf\udce9.jpg", "photos/été.1/b.tar.jpg"]
    try:
        for name in names:
            write_photo(tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 names only")
    folder, shards = packed(tmp_path / "photos")
    assert shards.table.paths() == folder.table.paths()
    assert shards.classes == folder.classes


def test_messages_name_shard_and_member(photo_folder: Write) -> None:
    _, shards = packed(photo_folder())
    for i in range(len(shards)):
        shard, _, rest = shards.where(i).partition(": ")
        member, _, path = rest.partition(" ")
        assert path == f"({shards.path(i)})"
        with tarfile.open(shards.root / shard) as tar:
            content = tar.extractfile(member)
            assert content is not None
            assert content.read() == shards.read_one(i).tobytes()


def test_a_row_takes_less_than_100_bytes(photo_folder: Write) -> None:
    _, shards = packed(photo_folder({"sunflowers": 40, "dandelion": 40}), PackSettings())
    assert shards.table.shards is not None
    values = [*vars(shards.table).values(), *vars(shards.table.shards).values()]
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    assert len(arrays) == 13
    assert sum(array.nbytes for array in arrays) / len(shards) < 100


def test_shards_may_be_copied_elsewhere(photo_folder: Write, tmp_path: Path) -> None:
    folder, shards = packed(photo_folder())
    moved = tmp_path / "elsewhere/copy"
    shutil.copytree(shards.root, moved, copy_function=shutil.copy)  # with new modification times
    shutil.rmtree(shards.root)
    copy = Photos(moved)
    assert copy.table.fingerprint == shards.table.fingerprint
    assert copy.read_one(2).tobytes() == folder.read_one(2).tobytes()


def test_the_fingerprint_follows_the_photos_not_the_shards(photo_folder: Write, tmp_path: Path) -> None:
    folder, shards = packed(photo_folder())
    pack(folder.root, tmp_path / "large", PackSettings(), DataConfig())
    assert Photos(tmp_path / "large").table.fingerprint == shards.table.fingerprint
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "JPEG")
    (folder.root / folder.path(0)).write_bytes(picture.getvalue())
    pack(folder.root, tmp_path / "other", PackSettings(), DataConfig())
    assert Photos(tmp_path / "other").table.fingerprint != shards.table.fingerprint


def test_one_class_and_many_pixels_are_refused_as_in_a_folder(photo_folder: Write) -> None:
    _, shards = packed(photo_folder({"a": 2, "b": 2}, sizes=[(40, 30), (61, 47)]))
    with pytest.raises(UserError, match=r"shard-\d+\.tar: 00000000[13]\.jpg .*data\.max_pixels=2000.*2 of 4"):
        Photos(shards.root, max_pixels=2000)
    photos = shards.root.parent / "one/photos"
    shutil.copytree(shards.root.parent / "photos/a", photos / "a")
    pack(photos, photos.parent / "shards", SMALL, DataConfig())
    with pytest.raises(UserError, match=r"only one class is packed there \(a\)"):
        Photos(photos.parent / "shards")
    assert len(Photos(photos.parent / "shards", min_classes=1)) == 2


def test_the_index_needs_no_pickle_and_tells_how_it_was_made(photo_folder: Write) -> None:
    _, shards = packed(photo_folder(), PackSettings(max_side=20, quality=80, shard_bytes=10_240))
    index = read_index(shards.root)
    assert index.settings == {"max_side": 20, "quality": 80, "shard_bytes": 10_240}
    assert index.bad == ()
    assert (shards.root / STATE).is_file()
    with np.load(shards.root / INDEX, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)


def test_shards_of_earlier_versions_are_looked_through_once(
    turned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(turned[0], tmp_path / "shards", SMALL, DataConfig())
    now = Photos(tmp_path / "shards")
    without_orientations(now.root)
    stored = Photos(now.root, exif="ignore")
    assert not stored.table.orientation.any()
    looked, read = [], packed_table.read_header
    monkeypatch.setattr(packed_table, "read_header", lambda *given: looked.append(given) or read(*given))
    for _ in range(2):
        then = Photos(now.root)
        assert np.array_equal(then.table.orientation, now.table.orientation)
        assert then.fingerprint == now.fingerprint
        assert then.notes == now.notes
        assert len(looked) == 64
    pack(now.root, tmp_path / "again", SMALL, DataConfig(exif="ignore"))  # what is not known stays so
    again = Photos(tmp_path / "again")
    assert np.array_equal(again.table.orientation, now.table.orientation)
    assert len(looked) == 128


def test_shards_know_how_photos_are_turned_whoever_packed_them(
    turned: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Photos(turned[0])
    for exif in ("apply", "ignore"):
        pack(folder.root, tmp_path / exif, SMALL, DataConfig(exif=exif))
        shards = Photos(tmp_path / exif)
        for name in (*ROWS, "orientation"):
            assert np.array_equal(getattr(shards.table, name), getattr(folder.table, name)), name
        assert shards.notes == folder.notes
