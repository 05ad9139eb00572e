"""Which photo is in which half: stratified and seeded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowerfast.errors import UserError
from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.photos import Photos
from flowerfast.photos.split import divide
from flowerfast.photos.table import Table

Write = Callable[..., Path]


def make_table(counts: dict[str, int]) -> Table:
    """A table of so many photos per class, without files."""
    label = np.repeat(np.arange(len(counts), dtype=np.int32), list(counts.values()))
    paths = [f"{name}/{i:04d}.jpg".encode() for name, count in counts.items() for i in range(count)]
    n = len(paths)
    return Table(
        root=Path("/photos"),
        classes=tuple(counts),
        label=label,
        width=np.full(n, 500, np.int32),
        height=np.full(n, 375, np.int32),
        orientation=np.ones(n, np.uint8),
        size=np.full(n, 1000, np.int64),
        fold=np.zeros(n, np.uint8),
        path_bytes=np.frombuffer(b"".join(paths), np.uint8),
        path_ends=np.cumsum([len(p) for p in paths], dtype=np.int64),
        fingerprint="0" * 64,
    )


def halves(table: Table, val_fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train and to validate on, of all samples of a table."""
    return divide(table, np.arange(len(table)), val_fraction, seed)


def held_per_class(table: Table, val_fraction: float) -> list[int]:
    counts: list[int] = np.bincount(table.label[halves(table, val_fraction)[1]]).tolist()
    return counts


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_each_photo_is_in_one_half(seed: int) -> None:
    both = halves(make_table({"daisy": 17, "rose": 2, "tulip": 40}), 0.2, seed)
    assert sorted(np.concatenate(both).tolist()) == list(range(59))
    for half in both:
        assert half.dtype == np.int64
        assert (np.diff(half) > 0).all()


def test_a_part_is_divided_within_itself_and_in_any_order() -> None:
    table = make_table({"daisy": 20, "rose": 20})
    part = np.arange(0, 40, 2)
    train, val = divide(table, part, 0.2, 1)
    assert sorted([*train.tolist(), *val.tolist()]) == part.tolist()
    assert np.bincount(table.label[val]).tolist() == [2, 2]


def test_of_no_photos_both_halves_are_empty(photo_folder: Write) -> None:
    photos = Photos(photo_folder())
    for none in (photos.test, photos.subset([])):
        assert [len(half) for half in none.split()] == [0, 0]


def test_each_class_gives_the_same_share() -> None:
    table = make_table({"daisy": 633, "dandelion": 898, "roses": 641, "sunflowers": 699, "tulips": 799})
    assert held_per_class(table, 0.2) == [127, 180, 128, 140, 160]
    assert held_per_class(table, 0.5) == [316, 449, 320, 350, 400]


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
def test_each_class_is_in_both_halves(fraction: float) -> None:
    table = make_table({"a": 2, "b": 3, "c": 9})
    for half in halves(table, fraction):
        assert set(table.label[half].tolist()) == {0, 1, 2}


def test_the_seed_decides() -> None:
    table = make_table({"a": 100, "b": 100})
    one, again, other = (halves(table, 0.2, seed) for seed in (5, 5, 6))
    assert [half.tolist() for half in one] == [half.tolist() for half in again]
    # Two independent fifths share about 8 of 40.
    assert len(np.intersect1d(one[1], other[1])) < 20


def test_classes_are_shuffled_independently_and_thoroughly() -> None:
    val = halves(make_table({"a": 1000, "b": 1000}), 0.2)[1]
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
        halves(make_table(order), 0.2)
    assert "\n" not in str(e.value)


def test_a_class_of_corrupt_photos_is_named(photo_folder: Write) -> None:
    root = photo_folder({"daisy": 3, "rose": 2})
    for file in (root / "rose").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(UserError, match="class 'rose' has 0 readable photo"):
        Photos(root, max_bad=1).split()


def test_train_and_val_folders_are_the_split(photo_folder: Write) -> None:
    photos = Photos(photo_folder({"train/a": 3, "train/b": 1, "val/a": 1, "val/b": 2}))
    for fraction, seed in ((0.2, 0), (0.9, 7)):
        train, val = photos.split(fraction, seed)
        assert train.indices.tolist() == [0, 1, 2, 3]
        assert val.indices.tolist() == [4, 5, 6]
        assert all(photos.path(i).startswith("val/") for i in val.indices.tolist())
        assert val.labels.tolist() == [0, 1, 1]


def test_val_may_lack_a_class_but_train_may_not(photo_folder: Write) -> None:
    fine = Photos(photo_folder({"train/a": 1, "train/b": 1, "val/a": 1}, name="fine"))
    assert fine.split()[1].indices.tolist() == [2]
    lacking = Photos(photo_folder({"train/a": 1, "val/a": 1, "val/b": 1}, name="lacking"))
    with pytest.raises(UserError, match=r"lacking/train/b: no photos to train on, but val/ has them"):
        lacking.split()


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_train_or_val_folder_is_named(photo_folder: Write, part: str) -> None:
    full = "val" if part == "train" else "train"
    root = photo_folder({f"{full}/a": 1, f"{full}/b": 1})
    (root / part).mkdir()
    with pytest.raises(UserError, match=rf"photos/{part}: no readable photos"):
        Photos(root, max_bad=1).split()


def make_sets(sets: list[list[int]], classes: int) -> Table:
    """A table of photos with these labels, without files."""
    found, label = LabelSets.numbered(sets)
    table = make_table({"photos": len(sets)})
    names = tuple(f"c{number}" for number in range(classes))
    return replace(table, classes=names, label=label, sets=found)


def test_several_labels_are_held_out_as_near_as_can_be() -> None:
    """Of each the share asked for, within one photo; frequent ones, rare ones, and photos without any."""
    draw = np.random.default_rng(0)
    chance = np.array([0.5, 0.3, 0.1, 0.03, 0.01])
    sets = [np.flatnonzero(draw.random(5) < chance).tolist() for _ in range(400)]
    table = make_sets(sets, 5)
    for seed in (0, 1):
        train, val = halves(table, 0.2, seed)
        assert sorted([*train, *val]) == list(range(400))
        assert abs(len(val) - 80) <= 8
        assert (np.abs(table.counts(val) - 0.2 * table.counts(np.arange(400))) <= 2).all()
        assert (table.counts(train) > 0).all()
        assert (table.counts(val) > 0).all()
        again = halves(table, 0.2, seed)
        assert [each.tolist() for each in again] == [train.tolist(), val.tolist()]
    assert halves(table, 0.2, 0)[1].tolist() != halves(table, 0.2, 1)[1].tolist()


def test_a_label_of_one_photo_is_trained_on() -> None:
    table = make_sets([[0], [0], [0], [0, 1], [0]], 2)
    for seed in range(5):
        train, val = halves(table, 0.2, seed)
        assert 3 in train
        assert len(val) == 1


def test_no_label_is_held_out_altogether() -> None:
    """Of two rare ones that come together with a third, each would give the validation its only photo."""
    table = make_sets([[0, 2], [0], [1, 2], [1], [], []], 3)
    for seed in range(8):
        train, _ = halves(table, 0.5, seed)
        assert (table.counts(train) > 0).all()


def test_several_labels_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(UserError, match=r"photos: too few photos for two halves, 1; add some, or say in a c"):
        halves(make_sets([[0]], 1), 0.2)
    with pytest.raises(UserError, match=r"class 'c1' has no photos to train on; add some to train"):
        halves(make_sets([[0], [0], []], 2), 0.2)
