"""Which photo is in which half: stratified, seeded, written once and read back on resume."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.split import make_split, read_split, write_split
from flowerfast.errors import UserError

Write = Callable[..., Path]


def make_manifest(counts: dict[str, int]) -> Manifest:
    """A manifest of so many photos per class, without files."""
    label = np.repeat(np.arange(len(counts), dtype=np.int32), list(counts.values()))
    paths = [f"{name}/{i:04d}.jpg".encode() for name, count in counts.items() for i in range(count)]
    n = len(paths)
    return Manifest(
        root=Path("/photos"),
        classes=tuple(counts),
        label=label,
        width=np.full(n, 500, np.int32),
        height=np.full(n, 375, np.int32),
        size=np.full(n, 1000, np.int64),
        fold=np.zeros(n, np.uint8),
        path_bytes=np.frombuffer(b"".join(paths), np.uint8),
        path_ends=np.cumsum([len(p) for p in paths], dtype=np.int64),
        fingerprint="0" * 64,
    )


def held_per_class(manifest: Manifest, val_fraction: float, seed: int = 0) -> list[int]:
    val = make_split(manifest, val_fraction, seed).val
    counts = np.bincount(manifest.label[val], minlength=len(manifest.classes))
    return [int(count) for count in counts]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_each_photo_is_in_one_half(seed: int) -> None:
    manifest = make_manifest({"daisy": 17, "rose": 2, "tulip": 40})
    split = make_split(manifest, 0.2, seed)
    assert sorted([*split.train.tolist(), *split.val.tolist()]) == list(range(59))
    for half in (split.train, split.val):
        assert half.dtype == np.int64
        assert (np.diff(half) > 0).all()


def test_each_class_gives_the_same_share() -> None:
    manifest = make_manifest({"daisy": 633, "dandelion": 898, "roses": 641, "sunflowers": 699, "tulips": 799})
    assert held_per_class(manifest, 0.2) == [127, 180, 128, 140, 160]
    assert held_per_class(manifest, 0.5) == [316, 449, 320, 350, 400]


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
def test_each_class_is_in_both_halves(fraction: float) -> None:
    manifest = make_manifest({"a": 2, "b": 3, "c": 9})
    split = make_split(manifest, fraction, 0)
    assert set(manifest.label[split.train].tolist()) == {0, 1, 2}
    assert set(manifest.label[split.val].tolist()) == {0, 1, 2}


def test_the_seed_decides() -> None:
    manifest = make_manifest({"a": 100, "b": 100})
    one, again, other = (make_split(manifest, 0.2, seed) for seed in (5, 5, 6))
    assert one.val.tolist() == again.val.tolist()
    assert one.train.tolist() == again.train.tolist()
    # Two independent fifths share about 8 of 40.
    assert len(set(one.val.tolist()) & set(other.val.tolist())) < 20


def test_classes_are_shuffled_independently_and_thoroughly() -> None:
    manifest = make_manifest({"a": 1000, "b": 1000})
    val = make_split(manifest, 0.2, 0).val
    first, second = val[val < 1000], val[val >= 1000] - 1000
    assert len(set(first.tolist()) & set(second.tolist())) < 80  # about 40 by chance
    for part in (first, second):  # no stretch of the folder is over-represented
        assert np.histogram(part, bins=4, range=(0, 1000))[0] == pytest.approx([50] * 4, abs=25)


@pytest.mark.parametrize("order", [{"daisy": 5, "rose": 1}, {"aster": 1, "rose": 5}])
def test_a_class_of_one_photo_is_named(order: dict[str, int]) -> None:
    lonely = min(order, key=lambda name: order[name])
    with pytest.raises(
        UserError, match=rf"class '{lonely}' has 1 readable photo \({lonely}/0000.jpg\); .*two"
    ) as e:
        make_split(make_manifest(order), 0.2, 0)
    assert "\n" not in str(e.value)


def test_a_class_of_corrupt_photos_is_named(photo_folder: Write) -> None:
    root = photo_folder({"daisy": 3, "rose": 2})
    for file in (root / "rose").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(UserError, match="class 'rose' has 0 readable photo"):
        make_split(load_manifest(root), 0.2, 0)


def test_train_and_val_folders_are_the_split(photo_folder: Write) -> None:
    manifest = load_manifest(photo_folder({"train/a": 3, "train/b": 1, "val/a": 1, "val/b": 2}))
    for fraction, seed in ((0.2, 0), (0.9, 7)):
        split = make_split(manifest, fraction, seed)
        assert split.train.tolist() == [0, 1, 2, 3]
        assert split.val.tolist() == [4, 5, 6]
        assert all(manifest.path(i).startswith("val/") for i in split.val)


def test_val_may_lack_a_class_but_train_may_not(photo_folder: Write) -> None:
    fine = load_manifest(photo_folder({"train/a": 1, "train/b": 1, "val/a": 1}, name="fine"))
    assert make_split(fine, 0.2, 0).val.tolist() == [2]
    lacking = load_manifest(photo_folder({"train/a": 1, "val/a": 1, "val/b": 1}, name="lacking"))
    with pytest.raises(UserError, match=r"lacking/train/b: no photos to train on, but val/ has them"):
        make_split(lacking, 0.2, 0)


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_train_or_val_folder_is_named(photo_folder: Write, part: str) -> None:
    full = "val" if part == "train" else "train"
    root = photo_folder({f"{full}/a": 1, f"{full}/b": 1})
    (root / part).mkdir()
    with pytest.raises(UserError, match=rf"photos/{part}: no readable photos"):
        make_split(load_manifest(root), 0.2, 0)


def test_a_written_split_is_read_back(photo_folder: Write, write_photo: Write, tmp_path: Path) -> None:
    root = photo_folder({"daisy": 6, "Gänseblümchen": 5})
    try:
        write_photo(root / "daisy" / os.fsdecode(b"caf\xe9.jpg"))
    except OSError:  # this file system takes UTF-8 names only
        write_photo(root / "daisy" / "café.jpg")
    manifest = load_manifest(root)
    split = make_split(manifest, 0.3, 1)
    file = tmp_path / "split.json"
    write_split(split, manifest, file)
    again = read_split(file, load_manifest(root))
    assert again.train.tolist() == split.train.tolist()
    assert again.val.tolist() == split.val.tolist()
    assert again.train.dtype == again.val.dtype == np.int64
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["classes"] == ["Gänseblümchen", "daisy"]
    assert content["fingerprint"] == manifest.fingerprint
    assert sorted(content["train"] + content["val"]) == sorted(manifest.paths())


def test_a_split_stays_readable_when_files_are_only_touched(photo_folder: Write, tmp_path: Path) -> None:
    root = photo_folder({"a": 3, "b": 3})
    manifest = load_manifest(root)
    split = make_split(manifest, 0.3, 1)
    write_split(split, manifest, tmp_path / "split.json")
    os.utime(root / "a/a_000.jpg", ns=(1, 1))
    assert read_split(tmp_path / "split.json", load_manifest(root)).val.tolist() == split.val.tolist()


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
    manifest = load_manifest(root)
    write_split(make_split(manifest, 0.3, 1), manifest, tmp_path / "split.json")
    if old:
        (root / old).unlink()
    if new:
        write_photo(root / new)
    with pytest.raises(UserError, match=said) as caught:
        read_split(tmp_path / "split.json", load_manifest(root))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[]", b"3", b"\xff", b'{"train": []}', b'{"train": null, "val": 1, "classes": []}'],
)
def test_a_damaged_split_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "split.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        UserError, match=r"split\.json: not a split that flowerfast wrote .*; start a new run"
    ):
        read_split(file, make_manifest({"a": 2, "b": 2}))
