"""MosaicML Streaming: StreamingDataset and StreamingDataLoader on MDS shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from benchmarks.loaders import SEED, Batch, Job, batches, files
from benchmarks.loaders.cropped import Cropped


def prepare(photos: Path, made: Path, shard: int) -> None:
    """Write the shards."""
    with MDSWriter(out=str(made), columns={"jpeg": "bytes", "id": "int"}, size_limit=shard) as writer:
        for file in files(photos):
            writer.write({"jpeg": file.read_bytes(), "id": int(file.stem)})


class Photos(StreamingDataset):
    """Samples as (id, pixels)."""

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self._cropped = Cropped(size)

    def __getitem__(self, at: Any) -> Any:
        entry = super().__getitem__(at)
        return entry["id"], self._cropped(entry["jpeg"], entry["id"])


class Loader:
    """One loader for all epochs, which the dataset counts itself."""

    def __init__(self, job: Job) -> None:
        clean_stale_shared_memory()  # by all ranks: there is a barrier in it
        place = {"remote": job.made, "local": job.cache} if job.cache else {"local": job.made}
        options = {"shuffle": True, "shuffle_seed": SEED, "num_canonical_nodes": 1}
        samples = Photos(job.size, **place, **options, batch_size=job.own_batch)
        for stream in samples.streams if job.cache else ():
            # The index came by a connection which forked workers of 0.13.0 would all go on to use: over plain
            # HTTP they take each other's answers. A new client is opened by each.
            stream._downloader.clean_up()
        self._loader = StreamingDataLoader(
            samples, batch_size=job.own_batch, num_workers=job.workers, drop_last=True
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of the next epoch."""
        return batches(self._loader)

    def save(self) -> Any:
        """The loader's state."""
        return self._loader.state_dict()

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """As documented, before the first iteration."""
        self._loader.load_state_dict(state)
