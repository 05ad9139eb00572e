"""What a trial takes is told apart from what its process took before."""

import numpy as np

from benchmarks.torture.memory import Growth

_BYTES = 200 << 20


def test_an_earlier_peak_does_not_count() -> None:
    before = np.ones(2 * _BYTES, np.uint8)
    del before
    growth = Growth()
    assert growth.most() < _BYTES // 2
    taken = np.ones(_BYTES, np.uint8)
    del taken
    assert 0.9 * _BYTES < growth.most() < 1.5 * _BYTES
