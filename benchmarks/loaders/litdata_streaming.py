"""LitData: StreamingDataset and StreamingDataLoader on chunks of its own."""

from collections.abc import Iterator
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset, optimize
from litdata.streaming import downloader

from benchmarks.loaders import SEED, Batch, Job, batches, files
from benchmarks.loaders.cropped import Cropped


def entry(file: Path) -> dict[str, Any]:
    """What a chunk keeps of a photo."""
    return {"jpeg": file.read_bytes(), "id": int(file.stem)}


def prepare(photos: Path, made: Path, shard: int) -> None:
    """Write the chunks."""
    optimize(
        entry, files(photos), output_dir=str(made), chunk_bytes=shard, num_workers=1,
        start_method=get_start_method(), verbose=False,
    )  # fmt: skip


class Opened:
    """An entry of a chunk to (id, pixels)."""

    def __init__(self, size: int) -> None:
        self._cropped = Cropped(size)

    def __call__(self, entry: dict[str, Any]) -> tuple[int, Any]:
        return entry["id"], self._cropped(entry["jpeg"], entry["id"])


class Loader:
    """One loader for all epochs, which it counts itself."""

    def __init__(self, job: Job) -> None:
        if job.cache:  # chunks come by obstore, which 0.2.76 gives no leave to speak plain HTTP
            downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
        samples = StreamingDataset(
            job.made, cache_dir=job.cache, shuffle=True, drop_last=True, seed=SEED, transform=Opened(job.size)
        )
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
