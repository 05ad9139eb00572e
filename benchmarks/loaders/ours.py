"""flowerfast's Loader on shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.loaders import SEED, Batch, Job
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader as Ours
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos

CROPPED = Augment(rotate=0, brightness=0, contrast=0, translate=0)
"""Random crop and flip alone, as the others do."""


def prepare(photos: Path, made: Path, shard: int) -> None:
    """Write the shards."""
    pack(photos, made, PackSettings(shard_bytes=shard), DataConfig())


class Loader:
    """One loader for all epochs."""

    order = "random"

    def __init__(self, job: Job) -> None:
        self._photos = Photos(job.made, cache_dir=job.cache)
        options = DataConfig.model_validate({"order": self.order})
        self._loader = Ours(
            self._photos, size=job.size, batch_size=job.batch, augment=CROPPED, seed=SEED, device="cpu",
            backend="cpu", workers=job.workers, rank=job.rank, world_size=job.world, options=options,
        )  # fmt: skip

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of an epoch."""
        for batch in self._loader.epoch(number):
            names = (self._photos.path(index) for index in batch.indices.tolist())
            yield [int(Path(name).stem) for name in names], batch.images.numpy()

    def save(self) -> Any:
        """The loader's state."""
        return self._loader.state_dict()

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """As documented."""
        self._loader.load_state_dict(state)
