"""torchdata's StatefulDataLoader with its StatefulDistributedSampler."""

from collections.abc import Iterator
from typing import Any

from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from benchmarks.loaders import SEED, Batch, Job, batches
from benchmarks.loaders.cropped import Files


class Loader:
    """One loader for all epochs."""

    def __init__(self, job: Job) -> None:
        photos = Files(job.photos, job.size)
        self._sampler = StatefulDistributedSampler(
            photos, job.world, job.rank, shuffle=True, seed=SEED, drop_last=True
        )
        self._loader = StatefulDataLoader(
            photos, job.own_batch, sampler=self._sampler, num_workers=job.workers, drop_last=True
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of an epoch."""
        self._sampler.set_epoch(number)
        return batches(self._loader)

    def save(self) -> Any:
        """The loader's state, the sampler's in it."""
        return self._loader.state_dict()

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """As documented, before the first iteration."""
        self._loader.load_state_dict(state)
