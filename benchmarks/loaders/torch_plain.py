"""torch's DataLoader, which keeps no state: its seeded sampler is asked again, without what was seen."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from benchmarks.loaders import SEED, Batch, Job, batches
from benchmarks.loaders.cropped import Files


class Loader:
    """One DataLoader per epoch."""

    def __init__(self, job: Job) -> None:
        self._job, self._files, self._skip = job, Files(job.photos, job.size), 0
        self._sampler = DistributedSampler(
            self._files, job.world, job.rank, shuffle=True, seed=SEED, drop_last=True
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of an epoch."""
        self._sampler.set_epoch(number)
        chosen = BatchSampler(self._sampler, self._job.own_batch, drop_last=True)
        left = list(islice(chosen, self._skip, None))
        self._skip = 0
        return batches(DataLoader(self._files, batch_sampler=left, num_workers=self._job.workers))

    def save(self) -> Any:
        """Nothing but the numbers of epoch and batch, which the caller keeps."""
        return {}

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """Skip what was seen."""
        self._skip = batch
