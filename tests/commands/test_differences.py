"""Differences of pixels, counted."""

import numpy as np
import pytest

from flowerfast.commands.differences import Histogram


@pytest.mark.parametrize("count", [1, 2, 101, 5000])
@pytest.mark.parametrize("largest", [0, 1, 3, 255])
def test_histogram_gives_numpys_statistics(count, largest):
    rng = np.random.default_rng(count * 256 + largest)
    pairs = [rng.integers(0, largest + 1, (2, count)).astype(np.uint8) for _ in range(3)]
    histogram = Histogram()
    for found, expected in pairs:
        apart = histogram.add(found, expected)
        assert apart.tolist() == np.abs(found.astype(int) - expected).tolist()
    values = np.abs(np.diff(np.concatenate(pairs, axis=1).astype(int), axis=0))
    assert histogram.mean() == pytest.approx(values.mean())
    assert histogram.max() == values.max()
    for q in (0, 1, 50, 99, 99.9, 100):
        assert histogram.percentile(q) == pytest.approx(np.percentile(values, q))
