"""NVIDIA DALI's CPU operators with checkpointing, by its iterator for PyTorch."""

from collections.abc import Iterator
from typing import Any

from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

from benchmarks.loaders import SEED, Batch, Job, files


class Loader:
    """One iterator for all epochs."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._iterator: Any = None

    def _open(self, checkpoint: str | None) -> None:
        job, photos = self._job, files(self._job.photos)

        @pipeline_def(
            batch_size=job.own_batch, num_threads=job.workers, device_id=None, seed=SEED,
            enable_checkpointing=True, checkpoint=checkpoint,
        )  # fmt: skip
        def graph() -> Any:
            encoded, ids = fn.readers.file(
                files=[str(file) for file in photos], labels=[int(file.stem) for file in photos],
                shuffle_after_epoch=True, shard_id=job.rank, num_shards=job.world, name="files",
            )  # fmt: skip
            pixels = fn.resize(fn.decoders.image_random_crop(encoded), size=[job.size, job.size])
            return fn.flip(pixels, horizontal=fn.random.coin_flip()), ids

        self._iterator = DALIGenericIterator(
            [graph()], ["pixels", "ids"], reader_name="files", auto_reset=True,
            last_batch_policy=LastBatchPolicy.DROP,
        )  # fmt: skip

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of the next epoch, or of what is left of it."""
        if self._iterator is None:
            self._open(None)
        for (batch,) in self._iterator:
            yield batch["ids"].flatten().tolist(), batch["pixels"].numpy()

    def save(self) -> Any:
        """The checkpoint of this rank's pipeline."""
        return self._iterator.checkpoints()[0]

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """A pipeline that is built from the checkpoint."""
        self._open(state)
