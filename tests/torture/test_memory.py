"""What a trial takes is told apart from what its process took before."""

import numpy as np
import pytest
import torch

from benchmarks.torture.memory import Growth
from flowerfast.training.allocator import keep_freed_memory

_BYTES = 200 << 20


@pytest.mark.parametrize("kept", [False, True])  # for the rest of the process
def test_an_earlier_peak_does_not_count(kept: bool) -> None:
    if kept:
        keep_freed_memory(torch.device("cpu"))
    before = np.ones(2 * _BYTES, np.uint8)
    del before
    growth = Growth()
    assert growth.most() < _BYTES // 2
    taken = np.ones(_BYTES, np.uint8)
    del taken
    assert 0.9 * _BYTES < growth.most() < 1.5 * _BYTES
