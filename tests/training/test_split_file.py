"""split.json: which photo is in which half, written once and read back on resume."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.training.resuming import photo_sizes
from flowerfast.training.split_file import read_split, write_split

Write = Callable[..., Path]


def test_a_written_split_is_read_back(photo_folder: Write, write_photo: Write, tmp_path: Path) -> None:
    root = photo_folder({"daisy": 6, "Gänseblümchen": 5})
    try:
        write_photo(root / "daisy" / os.fsdecode(b"caf\xe9.jpg"))
    except OSError:  # this file system takes UTF-8 names only
        write_photo(root / "daisy" / "café.jpg")
    photos, file = Photos(root), tmp_path / "split.json"
    halves = photos.split(0.3, 1)
    write_split(*halves, file)
    for again, half in zip(read_split(file, Photos(root)), halves, strict=True):
        assert again.indices.tolist() == half.indices.tolist()
        assert again.indices.dtype == np.int64
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["classes"] == ["Gänseblümchen", "daisy"]
    assert content["fingerprint"] == photos.table.fingerprint
    assert sorted(content["train"] + content["val"]) == sorted(photos.table.paths())


def test_a_split_stays_readable_when_files_are_only_touched(photo_folder: Write, tmp_path: Path) -> None:
    root = photo_folder({"a": 3, "b": 3})
    train, val = Photos(root).split(0.3, 1)
    write_split(train, val, tmp_path / "split.json")
    os.utime(root / "a/a_000.jpg", ns=(1, 1))
    again = read_split(tmp_path / "split.json", Photos(root))[1]
    assert again.indices.tolist() == val.indices.tolist()


def test_a_split_outlives_the_change_to_packed_photos(photo_folder: Write, tmp_path: Path) -> None:
    photos = Photos(photo_folder())
    pack(photos.root, tmp_path / "shards", PackSettings(), DataConfig())
    train, val = photos.split(0.3, seed=5)
    write_split(train, val, tmp_path / "split.json")
    resumed = read_split(tmp_path / "split.json", Photos(tmp_path / "shards"))[0]
    assert np.array_equal(resumed.indices, train.indices)


def test_a_split_outlives_another_form_of_unicode(photo_folder: Write, tmp_path: Path) -> None:
    """As on a disk of macOS, from which photos were copied."""
    photos = Photos(photo_folder({"caf\u00e9": 4, "rose": 4}))
    train, val = photos.split(0.3, seed=5)
    write_split(train, val, tmp_path / "split.json")
    (photos.root / "caf\u00e9").rename(photos.root / "cafe\u0301")
    for file in (photos.root / "cafe\u0301").iterdir():
        file.rename(file.with_name(file.name.replace("\u00e9", "e\u0301")))
    found = read_split(tmp_path / "split.json", Photos(photos.root))
    assert [half.indices.tolist() for half in found] == [half.indices.tolist() for half in (train, val)]


def test_names_that_differ_in_their_unicode_form_alone_stay_apart(
    photo_folder: Write, tmp_path: Path
) -> None:
    root = photo_folder({"a": 4, "b": 4})
    for old, new in (("a_000", "caf\u00e9"), ("a_001", "cafe\u0301")):
        (root / f"a/{old}.jpg").rename(root / f"a/{new}.jpg")
    halves = Photos(root).split(0.3, seed=5)
    write_split(*halves, tmp_path / "split.json")
    found = read_split(tmp_path / "split.json", Photos(root))
    assert [half.indices.tolist() for half in found] == [half.indices.tolist() for half in halves]


@pytest.mark.parametrize("name", ["a_001.jpg", "a_001"])
def test_a_photo_that_is_damaged_now_is_not_called_gone(
    photo_folder: Write, tmp_path: Path, name: str
) -> None:
    root = photo_folder({"a": 3, "b": 3})
    (root / "a/a_001.jpg").rename(root / "a" / name)
    write_split(*Photos(root).split(0.3, 1), tmp_path / "split.json")
    (root / "a" / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"a/{name}: cannot be taken any more \(.+\); put it back"):
        read_split(tmp_path / "split.json", Photos(root))


def test_what_lies_in_test_is_named_and_decides_nothing(
    photo_folder: Write, write_photo: Write, tmp_path: Path
) -> None:
    root, file = (
        photo_folder({f"{half}/{kind}": 3 for half in ("train", "test") for kind in "ab"}),
        tmp_path / "split.json",
    )
    halves = Photos(root).split(0.3, seed=5)
    write_split(*halves, file)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["test"] == [f"test/{kind}/{kind}_{i:03d}.jpg" for kind in "ab" for i in range(3)]
    write_photo(root / "test/a/new.jpg")
    found = read_split(file, Photos(root))
    assert [half.indices.tolist() for half in found] == [half.indices.tolist() for half in halves]
    del content["test"]  # as earlier versions wrote it, which left test/ alone
    file.write_text(json.dumps(content))
    assert read_split(file, Photos(root))[0].indices.tolist() == halves[0].indices.tolist()


def test_an_earlier_split_knows_nothing_of_formats_that_were_not_read_then(
    photo_folder: Write, write_photo: Write, tmp_path: Path
) -> None:
    root, file = photo_folder({"a": 3, "b": 3}), tmp_path / "split.json"
    halves = Photos(root).split(0.3, 1)
    paths = [[half.path(i) for i in half.indices.tolist()] for half in halves]
    write_split(*halves, file)
    write_photo(root / "a/a_000.tif")
    with pytest.raises(UserError, match=r"a/a_000\.tif is new"):
        read_split(file, Photos(root))
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["formats"]
    file.write_text(json.dumps(content))
    found = read_split(file, Photos(root))
    assert [[half.path(i) for i in half.indices.tolist()] for half in found] == paths
    assert photo_sizes(*found) == photo_sizes(*halves)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a/a_001.jpg", None, r"photos/a/a_001\.jpg: gone since the run began; put it back"),
        ("a/a_001.jpg", "b/a_001.jpg", r"photos/a/a_001\.jpg: gone since the run began"),
        ("a/a_001.jpg", "a/zzz.jpg", r"photos/a/a_001\.jpg: gone since the run began"),
        (None, "b/new.jpg", r"photos: b/new\.jpg is new since the run began; remove it"),
        (None, "c/new.jpg", r"photos: c/new\.jpg is new since the run began; remove it"),
    ],
    ids=["gone", "moved to another class", "renamed", "new", "new class"],
)
def test_a_split_of_other_photos_is_refused(
    photo_folder: Write, write_photo: Write, tmp_path: Path, old: str | None, new: str | None, said: str
) -> None:
    root = photo_folder({"a": 3, "b": 3})
    write_split(*Photos(root).split(0.3, 1), tmp_path / "split.json")
    if old:
        (root / old).unlink()
    if new:
        write_photo(root / new)
    with pytest.raises(UserError, match=said) as caught:
        read_split(tmp_path / "split.json", Photos(root))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("half", ["train", "val"])
def test_a_split_that_names_a_photo_twice_is_refused(photo_folder: Write, tmp_path: Path, half: str) -> None:
    photos, file = Photos(photo_folder({"a": 3, "b": 3})), tmp_path / "split.json"
    write_split(*photos.split(0.3, 1), file)
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["sha256"]
    gone, again = content[half][0], content["train"][1]
    content[half][0] = again
    file.write_text(json.dumps(content))
    assert gone != again
    with pytest.raises(UserError, match=rf"split\.json: damaged, it names {again} twice; bring a good copy"):
        read_split(file, photos)


def test_every_flipped_bit_of_a_split_is_seen(photo_folder: Write, tmp_path: Path) -> None:
    photos, file = Photos(photo_folder({"a": 2, "b": 2})), tmp_path / "split.json"
    write_split(*photos.split(0.3, 1), file)
    good = file.read_bytes()
    for place in range(len(good)):
        file.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        with pytest.raises(UserError, match=r"split\.json: damaged, its checksum does not fit"):
            read_split(file, photos)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff", b'{"train": []}', b'{"train": null, "val": 1, "classes": []}'],
)
def test_a_damaged_split_is_named(photo_folder: Write, tmp_path: Path, content: bytes) -> None:
    file, photos = tmp_path / "split.json", Photos(photo_folder({"a": 2, "b": 2}))
    file.write_bytes(content)
    with pytest.raises(
        UserError, match=r"split\.json: not a split that flowerfast wrote .*; start a new run"
    ):
        read_split(file, photos)
