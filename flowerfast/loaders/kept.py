"""Evaluation batches that are decoded once."""

from collections.abc import Iterator

import numpy as np

from flowerfast.loaders.batch import Batch
from flowerfast.loaders.engine import Engine
from flowerfast.plans.plan import Plan


class KeptEngine:
    """Yields the batches of an engine without randomness; from the second epoch on, the kept ones.

    Args:
        inner: its batches are the same in every epoch. It is closed once all are kept.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self._kept: list[Batch] | None = None

    @property
    def notes(self) -> list[str]:
        """What the inner engine has to say."""
        return self._inner.notes

    @property
    def has_all(self) -> bool:
        """No photo is read any more."""
        return self._kept is not None

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """All batches; `epoch` makes no difference. A first pass that is abandoned keeps nothing."""
        if self._kept is None:
            fresh = []
            for batch in self._inner.epoch(0):
                fresh.append(batch)
                yield from [batch] if len(fresh) > start_batch else []
            self._kept = fresh
            self._inner.close()
        else:
            yield from self._kept[start_batch:]

    def execute(self, plan: Plan) -> np.ndarray:
        """Pixels of one plan, until the batches are kept."""
        return self._inner.execute(plan)

    def close(self) -> None:
        """Free the kept batches and the inner engine."""
        self._kept = None
        self._inner.close()
