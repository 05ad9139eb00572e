"""Shards and indexes that are damaged, lost or altered, before a run and in the middle of one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.errors import UserError
from flowerfast.photos.arrays import load_arrays, save_arrays
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from tests.photos.packed import packed

Write = Callable[..., Path]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-512])


def shards_missing(root: Path) -> None:
    (root / "shard-000001.tar").unlink()


def index_cut(root: Path) -> None:
    cut(root / INDEX)


def index_of_text(root: Path) -> None:
    (root / INDEX).write_text("no index")


def index_of_another_version(root: Path) -> None:
    about, columns = load_arrays(root / INDEX)
    save_arrays(root / INDEX, {**about, "version": 99}, columns)


def index_altered(root: Path) -> None:
    about, columns = load_arrays(root / INDEX)
    columns["label"][:] = 0
    save_arrays(root / INDEX, about, columns)


def index_elsewhere(root: Path) -> None:
    about, columns = load_arrays(root / INDEX)
    about["shards"][0][0] = "../" + about["shards"][0][0]
    save_arrays(root / INDEX, about, columns)


def index_without_a_shard(root: Path) -> None:
    about, columns = load_arrays(root / INDEX)
    columns["shard"][0] = -1
    save_arrays(root / INDEX, about, columns)


def as_shard_folder(root: Path) -> None:
    (root / "shard-000001.tar").unlink()
    (root / "shard-000001.tar").mkdir()


def index_missing(root: Path) -> None:
    (root / INDEX).unlink()


def index_as_folder(root: Path) -> None:
    (root / INDEX).unlink()
    (root / INDEX).mkdir()


def unfinished(root: Path) -> None:
    (root / INDEX).unlink()
    for shard in root.glob("*.tar"):
        shard.unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shards_missing, r"shard-000001\.tar: no such shard, though it was packed; bring back"),
        (lambda root: cut(root / "shard-000001.tar"), r"shard-000001\.tar: has \d+ bytes, \d+ were packed"),
        (index_cut, rf"{INDEX}: no index of this flowerfast \(.*\); bring back"),
        (index_of_text, rf"{INDEX}: no index of this flowerfast"),
        (index_of_another_version, r"version 99, this flowerfast reads 1"),
        (index_elsewhere, r"'\.\./shard-000000\.tar' is no name of a shard"),
        (index_without_a_shard, r"a photo lies in no shard"),
        (as_shard_folder, r"shard-000001\.tar: no regular file"),
        (index_altered, r"its rows are not those that were written"),
        (index_missing, rf"shards: holds shards without their index, {INDEX}; bring back"),
        (index_as_folder, rf"{INDEX}: no index of this flowerfast \(Is a directory\); bring back"),
        (unfinished, r"shards: packing was not finished; run the same `flowerfast pack` again"),
    ],
)
def test_harm_is_told_in_one_line(photo_folder: Write, harm: Callable[[Path], None], message: str) -> None:
    _, shards = packed(photo_folder())
    harm(shards.root)
    with pytest.raises(UserError, match=message) as caught:
        Photos(shards.root)
    assert "\n" not in str(caught.value)


def lost(shard: Path) -> None:
    shard.unlink()


def swapped(shard: Path) -> None:
    """For another one of the same length."""
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[512:] + content[:512])


def flipped(shard: Path) -> None:
    """Everything is there, but for one bit of the first photo."""
    content = bytearray(shard.read_bytes())
    content[3 * 512 + 300] ^= 1
    shard.write_bytes(content)


def as_folder(shard: Path) -> None:
    shard.unlink()
    shard.mkdir()


def as_pipe(shard: Path) -> None:
    shard.unlink()
    os.mkfifo(shard)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("harm", [lost, cut, swapped, flipped, as_folder, as_pipe])
def test_what_befalls_a_shard_in_mid_run_costs_its_photos(
    photo_folder: Write, harm: Callable[[Path], None], used: bool, compiled: bool
) -> None:
    """Each photo comes right or not at all, and can be named."""
    folder, _ = packed(photo_folder())
    shards = Photos(folder.root.parent / "shards", on_bad="skip", max_bad=1)
    if used:
        shards.read_one(0)
    harm(shards.root / shards.table.shards.files[int(shards.table.shards.shard[0])].name)
    for index, file in enumerate(shards.read(shards.indices, compiled)[0]):
        if isinstance(file, OSError):
            shards.report_bad(index, str(file))
        else:
            assert file.tobytes() == folder.read_one(index).tobytes()
    harmed = [
        i for i in shards.indices.tolist() if shards.table.shards.shard[i] == shards.table.shards.shard[0]
    ]
    assert shards.bad_indices <= set(harmed)
    assert all(bad.path.startswith("shard-") for bad in shards.bad)
    if not used:
        assert shards.bad_indices


def test_a_shard_that_comes_back_is_read_again(photo_folder: Write) -> None:
    folder, _ = packed(photo_folder())
    fresh = Photos(folder.root.parent / "shards")
    shard = fresh.root / fresh.table.shards.files[int(fresh.table.shards.shard[0])].name
    content = shard.read_bytes()
    cut(shard)
    with pytest.raises(OSError, match=r"shard-\d+\.tar: has \d+ bytes, \d+ were packed"):
        fresh.read_one(0)
    shard.write_bytes(content)
    assert fresh.read_one(0).tobytes() == folder.read_one(0).tobytes()
