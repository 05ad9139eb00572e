"""Which samples an epoch takes when all classes are to come equally often: arithmetic, without a state.

The draws of a run are counted, epoch after epoch. The classes take turns, and within a class its samples do,
in a random order that stays the same for the run. So in any stretch of draws two classes differ by one at
most, and so do two samples of a class. An epoch has as many draws as there are samples; in which order they
come is the business of `order`.
"""

import numpy as np

from flowerfast.philox import generator
from flowerfast.plans.order import Order


class Balance:
    """Draws of samples, all classes equally often.

    Args:
        labels: class of each sample, int (n,).
        seed: of the order in which the samples of a class take turns.
    """

    def __init__(self, labels: np.ndarray, seed: int) -> None:
        self._seed, self._samples = seed, len(labels)
        self._by_class = np.argsort(labels, kind="stable")
        _, self._first, self._count = np.unique(labels[self._by_class], return_index=True, return_counts=True)
        self._orders: dict[int, Order] = {}

    def draw(self, epoch: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of an epoch's draws, from 0 on, int64 (m,): (samples, how often it had each before), the same."""
        classes = len(self._count)
        rounds, first = divmod(int(epoch) * self._samples, classes)
        turn, kind = np.divmod(first + draws, classes)
        count = self._count[kind]
        # Of Python's integers: epochs may be so many that 64 bits do not hold the number of a draw.
        done = np.array([rounds % each for each in self._count.tolist()])
        rank = (done[kind] + turn) % count
        samples = np.empty(len(draws), np.int64)
        for each in np.unique(kind).tolist():
            rows = kind == each
            samples[rows] = self._by_class[self._first[each] + self._order(each)[rank[rows]]]
        return samples, (turn - (kind < first)) // count

    def _order(self, kind: int) -> Order:
        if kind not in self._orders:
            self._orders[kind] = Order(int(self._count[kind]), generator("balance", self._seed, kind))
        return self._orders[kind]
