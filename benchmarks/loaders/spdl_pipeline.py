"""SPDL's pipeline of threads, which keeps no state: its seeded sampler goes on after what was seen."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import spdl.io
from spdl.pipeline import PipelineBuilder
from spdl.source import DistributedRandomSampler

from benchmarks.loaders import SEED, Batch, Job, files, note_decoded


class Loader:
    """One pipeline per epoch."""

    def __init__(self, job: Job) -> None:
        self._job, self._files, self._skip = job, files(job.photos), 0
        self._sampler = DistributedRandomSampler(len(self._files), rank=job.rank, world_size=job.world)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of an epoch."""
        self._sampler.shuffle(1000 * SEED + number)
        numbers = map(int, islice(self._sampler, self._skip * self._job.own_batch, None))
        self._skip = 0
        pool = ThreadPoolExecutor(self._job.workers)
        pipeline = (
            PipelineBuilder()
            .add_source(numbers)
            .pipe(self._decode, executor=pool, concurrency=self._job.workers, output_order="input")
            .aggregate(self._job.own_batch, drop_last=True)
            .add_sink(3)
            .build(num_threads=1)
        )
        with pool, pipeline.auto_stop():
            for samples in pipeline:
                ids, frames = zip(*samples, strict=True)
                yield [*ids], spdl.io.to_numpy(spdl.io.convert_frames([*frames]))

    def _decode(self, number: int) -> tuple[int, Any]:
        note_decoded(number)
        size = self._job.size
        packets = spdl.io.demux_image(str(self._files[number]))
        return number, spdl.io.decode_packets(packets, filter_desc=f"scale={size}:{size},format=rgb24")

    def save(self) -> Any:
        """Nothing but the numbers of epoch and batch, which the caller keeps."""
        return {}

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """Skip what was seen."""
        self._skip = batch
