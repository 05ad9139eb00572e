"""Grain's ElasticIterator, which slices and batches itself, over the same shuffled and augmented photos."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import grain
from grain.experimental import ElasticIterator

from benchmarks.loaders import Batch, Job
from benchmarks.loaders.grain_dataset import Crop, shuffled


class Loader:
    """One iterator without end; an epoch is a stretch of it."""

    def __init__(self, job: Job) -> None:
        photos = shuffled(job).random_map(Crop(job.photos, job.size))
        self._length, self._done = len(photos) // job.batch, 0
        self._iterator = ElasticIterator(
            photos.repeat(),
            job.batch,
            grain.sharding.ShardOptions(job.rank, job.world, drop_remainder=True),
            multiprocessing_options=grain.MultiprocessingOptions(num_workers=job.workers),
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of the next epoch, or of what is left of it."""
        left, self._done = self._length - self._done, 0
        for ids, pixels in islice(iter(self._iterator), left):
            yield ids.tolist(), pixels

    def save(self) -> Any:
        """The iterator's state, the same on all ranks."""
        return self._iterator.get_state()

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """As documented."""
        self._done = batch
        self._iterator.set_state(state)
