"""Photos that are the same are found without comparing all pairs, and none that are not."""

import numpy as np
import pytest
from PIL import Image

from flowerfast.scanning import alike
from flowerfast.scanning.alike import FARTHEST, GRID, TONES, distances, groups, perceptual_hash
from tests.zoo.pictures import structured


def grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX).convert("L"))


def bits(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_a_hash_stays_with_size_quality_and_brightness_and_changes_with_the_photo() -> None:
    photos = [structured(200, 150, seed) for seed in range(12)]
    hashes = [perceptual_hash(grey(photo)) for photo in photos]
    for photo, mine in zip(photos, hashes, strict=True):
        assert bits(mine, perceptual_hash(grey(photo.resize((90, 67))))) <= 4
        darker = Image.fromarray((np.asarray(photo) * 0.8).astype(np.uint8))
        assert bits(mine, perceptual_hash(grey(darker))) <= 4
    assert min(bits(a, b) for a in hashes for b in hashes if a != b) > FARTHEST


def test_the_hash_is_that_of_the_cosine_transform_by_its_definition() -> None:
    picture = grey(structured(80, 60, 3)).astype(float)
    x = np.arange(GRID)
    waves = [
        (picture * np.outer(np.cos(np.pi * (x + 0.5) * v / GRID), np.cos(np.pi * (x + 0.5) * u / GRID))).sum()
        for v in range(8)
        for u in range(8)
    ]
    above = np.array(waves) > np.median(waves[1:])
    assert perceptual_hash(picture.astype(np.uint8)).bit_count() == above.sum()


def test_distances_count_bits() -> None:
    one = np.array([0, 2**64 - 1, 0b1011], np.uint64)
    assert distances(one, np.array([1, 0, 0b0110], np.uint64)).tolist() == [1, 64, 3]


def slowly(hashes: list[int], distance: int) -> list[list[int]]:
    """Groups by comparing all pairs."""
    left, found = {*range(len(hashes))}, []
    while left:
        group, fresh = set[int](), {min(left)}
        while fresh:
            group |= fresh
            fresh = {o for o in left - group for m in fresh if bits(hashes[m], hashes[o]) <= distance}
        left -= group
        if len(group) > 1:
            found.append(sorted(group))
    return found


@pytest.mark.parametrize("distance", range(FARTHEST + 1))
def test_all_pairs_within_the_distance_are_found_and_no_other(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes: list[int] = []
    for _ in range(60):
        base = int(rng.integers(0, 2**63))
        hashes.append(base)
        for away in rng.integers(0, 12, 3).tolist():  # beside each some that are near, and some just beyond
            flipped = rng.choice(64, away, replace=False).tolist()
            hashes.append(base ^ sum(1 << bit for bit in flipped))
    found, crowded = same(hashes, distance)
    assert (found, crowded) == (slowly(hashes, distance), False)


def same(hashes: list[int], distance: int, blank: bool = False) -> tuple[list[list[int]], bool]:
    """Groups of different files with the same tones."""
    count = len(hashes)
    tones = np.tile(np.arange(TONES, dtype=np.uint8), (count, 1))
    names = np.array([b"%07d" % number for number in range(count)], "V8")
    found, crowded = groups(names, np.array(hashes, np.uint64), tones, np.full(count, blank), distance)
    return [rows.tolist() for rows in found], crowded


def test_a_chain_is_one_group_and_blank_photos_are_none() -> None:
    chain = [0, 0b111, 0b111111, 1 << 40]
    assert same(chain, 3)[0] == [[0, 1, 2, 3]]  # the last is near the first
    assert same(chain, 3, blank=True)[0] == []
    assert same([5, 5, 9], 0)[0] == [[0, 1]]


def test_equal_files_are_a_group_whatever_their_hashes_say() -> None:
    tones = np.random.default_rng(0).integers(0, 256, (3, TONES), dtype=np.uint8)
    names = np.array([b"a", b"b", b"a"], "V8")
    hashes = np.array([0, 0, 2**63], np.uint64)
    found, _ = groups(names, hashes, tones, np.ones(3, bool), FARTHEST)
    assert [rows.tolist() for rows in found] == [[0, 2]]


def test_like_hashes_of_other_tones_are_no_group() -> None:
    """As of a flower before black and another before black."""
    tones = np.random.default_rng(0).integers(0, 200, (3, TONES), dtype=np.uint8)
    tones[2] = tones[1] // 2 + 30  # darker, with less contrast, and the same
    names, blank = np.array([b"a", b"b", b"c"], "V8"), np.zeros(3, bool)
    for hashes in ([8, 8, 8], [8, 8, 9], [9, 8, 8], [8, 9, 9]):
        found, _ = groups(names, np.array(hashes, np.uint64), tones, blank, 1)
        assert [rows.tolist() for rows in found] == [[1, 2]]


def test_a_crowd_is_not_gone_through_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_CROWD", 4)
    rng = np.random.default_rng(0)
    film = [int(high) << 48 for high in rng.choice(2**16, 50, replace=False)]  # three bands are alike
    assert same(film, 1)[1]
    assert not same(film[:4], 1)[1]


def test_many_photos_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [int(h) for h in np.random.default_rng(1).integers(0, 2**63, 300)] * 2
    hashes[300:] = [h ^ 1 << 9 for h in hashes[300:]]
    wanted = [[row, row + 300] for row in range(300)]
    for pairs in (40, 1 << 20):
        monkeypatch.setattr(alike, "_PAIRS", pairs)
        assert same(hashes, 1)[0] == wanted


def test_progress_is_told_to_its_end() -> None:
    told: list[tuple[int, int]] = []
    tones = np.zeros((2, TONES), np.uint8)
    blank = np.zeros(2, bool)
    groups(
        np.array([b"a", b"b"], "V8"),
        np.array([1, 2], np.uint64),
        tones,
        blank,
        1,
        lambda *at: told.append(at),
    )
    assert told[-1][0] == told[-1][1] == len(told)
