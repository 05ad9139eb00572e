"""Evaluation batches that are decoded once."""

from collections.abc import Iterator

from flowerfast.data.manifest import BadFile
from flowerfast.loaders.batch import Batch, Loader


class KeptLoader:
    """Yields the batches of a loader without randomness; from the second epoch on, the kept ones.

    Args:
        inner: loader whose batches are the same in every epoch. It is closed once all are kept.
    """

    def __init__(self, inner: Loader) -> None:
        self._inner, self._count = inner, len(inner)
        self._kept: list[Batch] | None = None

    @property
    def bad(self) -> dict[int, BadFile]:
        """Files left out so far, by sample index."""
        return self._inner.bad

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were chosen, one line each."""
        return self._inner.notes

    def __len__(self) -> int:
        return self._count

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

    def close(self) -> None:
        """Free the kept batches and the inner loader."""
        self._kept = None
        self._inner.close()
