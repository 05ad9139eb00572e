"""The vectorised Philox gives numpy's own numbers, bit by bit; each purpose has a stream of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerfast.philox import generator, philox

words = st.integers(0, 2**64 - 1)


def numpys(key: np.ndarray, counter: int, blocks: int) -> np.ndarray:
    bits = np.random.Philox(key=key)
    bits.advance(counter - 1)
    return bits.random_raw(4 * blocks).reshape(blocks, 4)


@settings(deadline=None, max_examples=200)
@given(key=st.tuples(words, words), counter=st.integers(1, 2**64 - 9), blocks=st.integers(1, 8))
def test_blocks_are_numpys(key: tuple[int, int], counter: int, blocks: int) -> None:
    pair = np.array(key, np.uint64)
    counters = np.array([counter + i for i in range(blocks)], np.uint64)
    found = philox(pair, counters)
    assert found.dtype == np.uint64
    np.testing.assert_array_equal(found, numpys(pair, counter, blocks))


@pytest.mark.parametrize("count", [0, 1, 2, 33, 2048])
def test_any_number_of_counters_in_any_order(count: int) -> None:
    key = np.array([7, 2**63 + 5], np.uint64)
    counters = np.random.default_rng(count).integers(1, 2**63, count, dtype=np.uint64)
    found = philox(key, counters)
    assert found.shape == (count, 4)
    for row in range(0, count, 100):
        np.testing.assert_array_equal(found[row], numpys(key, int(counters[row]), 1)[0])


def test_arguments_are_left_as_they_were() -> None:
    key, counters = np.array([1, 2], np.uint64), np.array([3, 4], np.uint64)
    philox(key, counters)
    assert key.tolist() == [1, 2]
    assert counters.tolist() == [3, 4]


def test_purposes_and_streams_draw_different_numbers() -> None:
    places = [
        (p, seed, stream)
        for p in ("augment", "order", "split", "pack")
        for seed in (0, 5)
        for stream in (0, 1)
    ]
    draws = [generator(*place).random(100) for place in places]
    assert len(np.unique(draws)) == 100 * len(places)
    assert (generator(*places[3]).random(100) == draws[3]).all()
