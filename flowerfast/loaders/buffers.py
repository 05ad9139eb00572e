"""Memory of batches on the CPU, used again as soon as nobody holds a batch that lies in it."""

import math
import weakref
from collections import deque

import numpy as np
import torch


class Buffers:
    """Gives memory for one batch after the other.

    Batches are large and die in turns: from the heap of the C library each is new memory, which the kernel
    clears page by page, and what the heap keeps grows by its gaps.

    Args:
        length: bytes of the largest batch.
        most: buffers kept for later; who holds more batches than that at a time gets more.
    """

    def __init__(self, length: int, most: int) -> None:
        self._length = length
        self._free: deque[np.ndarray] = deque(maxlen=most)

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Memory of this shape, uint8, that holds anything; back here once the last view of it is gone."""
        length = math.prod(shape)
        if not 0 < length <= self._length:
            return torch.empty(shape, dtype=torch.uint8)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._length, np.uint8)
        lent = memory.data[:length]  # lives as long as the tensor's memory is in use
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.frombuffer(lent, dtype=torch.uint8).view(shape)
