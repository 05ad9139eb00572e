"""Packing in parts: the photos and rows of packing whole, whoever finishes last, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import Packed, pack
from flowerfast.packing.parts import merge, parse_part
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.target import Folder
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import COLUMNS, INDEX, read_index

Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)


def pack_part(photos: Path, out: Path, part: str, settings: PackSettings = SMALL) -> Packed:
    return pack(photos, out, settings, DataConfig(max_bad=1), part=parse_part(part))


@pytest.mark.parametrize("folds", [False, True])
def test_parts_are_together_what_is_packed_whole(photo_folder: Write, tmp_path: Path, folds: bool) -> None:
    halves = [f"{half}/{name}" for half in ("train", "val") for name in ("daisy", "rose")]
    photos = photo_folder(dict.fromkeys(halves, 9) if folds else {"daisy": 12, "rose": 10})
    bad = next(photos.glob("**/daisy*_003.jpg"))
    bad.write_bytes(b"no photo")
    whole, out = tmp_path / "whole", tmp_path / "out"
    pack(photos, whole, SMALL, DataConfig(max_bad=1))
    notes = [pack_part(photos, out, f"{number}/3").notes[-1] for number in (2, 1, 3)]
    assert notes[:2] == ["part 2 of 3: packed; to come: 1, 3", "part 1 of 3: packed; to come: 3"]
    assert notes[2] == f"part 3 of 3: all parts are there, {out} is complete"
    one, all_parts = Photos(whole), Photos(out)
    expected, found = read_index(whole), read_index(out)
    assert found.fingerprint == expected.fingerprint
    for name in (name for name in COLUMNS if name not in ("shard", "offset")):
        assert np.array_equal(found.columns[name], expected.columns[name]), name
    assert (found.classes, found.bad, found.suffixes) == (expected.classes, expected.bad, expected.suffixes)
    assert [p.tobytes() for p in all_parts.read(all_parts.indices)[0]] == [
        p.tobytes() for p in one.read(one.indices)[0]
    ]
    content = (out / INDEX).read_bytes()
    (out / INDEX).unlink()
    assert not pack_part(photos, out, "2/3").fresh  # joins them all the same
    assert (out / INDEX).read_bytes() == content


def test_each_part_is_counted_alone(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder({"daisy": 12, "rose": 11}, sizes=((80, 60), (20, 20)))
    parts = [
        pack_part(photos, tmp_path / "out", f"{n}/2", PackSettings(max_side=30, shard_bytes=20_480))
        for n in (1, 2)
    ]
    whole = pack(photos, tmp_path / "whole", PackSettings(max_side=30, shard_bytes=20_480), DataConfig())
    for name in ("photos", "shrunk", "bytes_before"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name), name


def test_parts_of_other_photos_or_settings_are_not_joined(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    pack_part(photos, out, "1/2")
    pack_part(photos, tmp_path / "other", "2/2", PackSettings(max_side=20, shard_bytes=20_480))
    shutil.copytree(tmp_path / "other" / "part-002-of-002", out / "part-002-of-002")  # as at the same time
    with pytest.raises(UserError, match=r"part-002-of-002: packed from other photos or settings than"):
        merge(Folder(out), 2)
    assert not (out / INDEX).exists()
    with pytest.raises(UserError, match=r"out: holds photos packed in 2 parts; name another folder"):
        pack_part(photos, out, "1/3")
    with pytest.raises(UserError, match=r"out: holds photos packed in 2 parts; name another folder"):
        pack(photos, out, SMALL, DataConfig())
    pack(photos, tmp_path / "whole", SMALL, DataConfig())
    with pytest.raises(UserError, match=r"whole: holds photos packed whole"):
        pack_part(photos, tmp_path / "whole", "1/3")


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/4", "1/200000"])
def test_a_part_is_one_of_so_many(part: str) -> None:
    with pytest.raises(UserError, match=rf"^--part {part}: give K/N"):
        parse_part(part)


def test_there_are_no_more_parts_than_photos(photo_folder: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--part 1/16: there are only 15 photos; make fewer parts"):
        pack_part(photo_folder(), tmp_path / "out", "1/16")


def test_the_command_packs_a_part(
    photo_folder: Write, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    photos = photo_folder()
    code, said, notes = cli("pack", photos, tmp_path / "out", "--part", "1/2")
    assert (code, "part 1 of 2: packed; to come: 2" in said + notes) == (0, True)
    assert cli("pack", photos, tmp_path / "out", "--part", "2/2")[0] == 0
    assert cli("pack", "--verify", tmp_path / "out")[0] == 0
    code, _, error = cli("pack", photos, tmp_path / "out", "--part", "3/2")
    assert (code, error.startswith("flowerfast: error: --part 3/2: give K/N")) == (2, True)
