"""In which order an epoch takes its samples: a permutation that can be read from any place at once.

A shuffled array must be made whole before its first entry is known, which holds up the first batch the longer
the more samples there are. So only up to `WHOLE` samples are shuffled as an array. Above, the permutation is
a Feistel network, computed where it is read: a place is written as two digits in a base of about the square
root of the count, and each round adds to one digit what a table of random numbers has for the other. A round
can be undone, so the network is one-to-one; what it maps outside the range goes through it again until it is
inside. Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (the generalised
Feistel construction and cycle walking). Tables, and so what comes before the first batch, grow with the
square root of the count.
"""

from math import isqrt

import numpy as np

WHOLE = 1 << 16  # samples: few enough to be shuffled without anyone noticing
_ROUNDS = 8


class Order:
    """Permutation of range(count).

    Args:
        count: how many samples there are.
        generator: draws the permutation; the same state gives the same one.
    """

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        self._count = count
        if count <= WHOLE:
            self._whole = generator.permutation(count)
        else:
            self._base = isqrt(count - 1) + 1
            self._tables = generator.integers(0, self._base, (_ROUNDS, self._base))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        """Samples at these places of the permutation, a slice or int (m,): int64, one for each."""
        if self._count <= WHOLE:
            return self._whole[places]
        numbers = np.arange(*places.indices(self._count)) if isinstance(places, slice) else places
        samples = self._network(numbers)
        while (outside := np.flatnonzero(samples >= self._count)).size:
            samples[outside] = self._network(samples[outside])
        return samples

    def _network(self, numbers: np.ndarray) -> np.ndarray:
        """Another number below base squared for each, one-to-one."""
        left, right = np.divmod(numbers, self._base)
        for table in self._tables:
            left, right = right, (left + table[right]) % self._base
        return left * self._base + right


def block_order(blocks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Permutation in which the members of each block come one after another: int64 (n,).

    Blocks are shuffled, and then each within. It is a whole array, also of many samples.

    Args:
        blocks: int (n,), the number of each sample's block, from 0.
        generator: draws the permutation; the same state gives the same one.
    """
    members = generator.permutation(len(blocks))
    turn = generator.permutation(int(blocks.max(initial=-1)) + 1)
    return members[np.argsort(turn[blocks[members]], kind="stable")]
