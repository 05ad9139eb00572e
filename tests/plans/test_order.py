"""The order of an epoch's samples: one-to-one, the same wherever reading begins, random like a shuffle."""

import numpy as np
import pytest

from flowerfast.plans.order import WHOLE, Order, block_order

LARGE = [WHOLE + 1, 257 * 257, 257 * 257 + 1, 100_003]


def order(count: int, seed: int = 0) -> Order:
    return Order(count, np.random.Generator(np.random.Philox(seed)))


@pytest.mark.parametrize("count", [0, 1, 2, 1000, WHOLE, *LARGE])
def test_every_sample_comes_once(count: int) -> None:
    samples = order(count)[:]
    assert len(order(count)) == len(samples) == count
    assert samples.dtype == np.int64
    assert np.array_equal(np.sort(samples), np.arange(count))


@pytest.mark.parametrize("count", [1000, *LARGE])
def test_any_piece_is_that_of_the_whole(count: int) -> None:
    whole, pieces = order(count)[:], order(count)
    assert np.array_equal(np.concatenate([pieces[i : i + 999] for i in range(0, count, 999)]), whole)
    assert np.array_equal(pieces[count - 40 : count + 60], whole[-40:])
    assert len(pieces[count : count + 32]) == 0


def test_what_is_read_is_all_that_is_computed() -> None:
    """Ten thousand million samples would take 80 GB as an array."""
    samples = order(10**10)[5 * 10**9 : 5 * 10**9 + 1000]
    assert len(np.unique(samples)) == 1000
    assert 0 <= samples.min() < 10**8
    assert 9.9 * 10**9 < samples.max() < 10**10


def test_computed_orders_are_as_random_as_shuffled_ones() -> None:
    count, orders = WHOLE + 1, 120
    fixed, neighbours, pairs, place = 0, 0, np.zeros((8, 8)), []
    for seed in range(orders):
        samples = order(count, seed)[:]
        fixed += int((samples == np.arange(count)).sum())
        neighbours += int((np.abs(np.diff(samples)) == 1).sum())
        pairs += np.histogram2d(samples[:-1], samples[1:], bins=8)[0]
        place.append(samples[777] / count)
    # Poisson counts with means of 1 and 2 an order; a margin of five standard deviations.
    assert abs(fixed - orders) < 5 * orders**0.5
    assert abs(neighbours - 2 * orders) < 5 * (2 * orders) ** 0.5
    expected = pairs.sum() / pairs.size
    assert ((pairs - expected) ** 2 / expected).sum() < 63 + 5 * (2 * 63) ** 0.5  # chi-squared, 63 degrees
    assert abs(np.mean(place) - 0.5) < 5 / (12 * orders) ** 0.5
    assert len({tuple(order(count, seed)[:8]) for seed in range(orders)}) == orders


@pytest.mark.parametrize("count", [1000, LARGE[0]])
def test_places_may_be_any(count: int) -> None:
    places = np.random.default_rng(0).integers(0, count, 50)
    before = places.copy()
    assert np.array_equal(order(count)[places], order(count)[:][places])
    assert np.array_equal(places, before)


def test_blocks_come_one_after_another_and_are_shuffled_within() -> None:
    blocks = np.random.default_rng(0).integers(0, 20, 5000)
    blocks[blocks == 7] = 8  # one without a member
    found = block_order(blocks, np.random.default_rng(3))
    assert np.array_equal(np.sort(found), np.arange(5000))
    turns = blocks[found]
    first = np.flatnonzero(np.diff(turns, prepend=-1))
    assert len(first) == 19
    assert not np.array_equal(np.sort(turns[first]), turns[first])
    inside = found[turns == 8]
    assert not np.array_equal(np.sort(inside), inside)
    assert np.array_equal(found, block_order(blocks, np.random.default_rng(3)))
    assert not np.array_equal(found, block_order(blocks, np.random.default_rng(4)))
    assert len(block_order(np.zeros(0, np.int64), np.random.default_rng(0))) == 0
