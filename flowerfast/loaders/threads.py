"""The `cpu` backend: an executor on threads, some batches ahead of the caller."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, place_batch
from flowerfast.loaders.buffers import Buffers
from flowerfast.loaders.cache.store import Cached, PhotoCache
from flowerfast.loaders.transfer import copy_ahead
from flowerfast.machine import usable_cores
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import Task, Workers, leave, results
from flowerfast.pixels.executor import Executors
from flowerfast.pixels.source import Files
from flowerfast.plans.plan import Plan, Sampler

_LEAST, _MOST = 8, 32  # samples per task: enough to hide the cost of a call, few enough to balance threads
_TASKS = 4  # per thread, under way or waiting


@dataclass
class _Job:
    """One batch under way: tasks fill rows of `images`; failures name rows that stay empty."""

    plan: Plan
    images: torch.Tensor
    tasks: list[Task[dict[int, str]]]


class ThreadEngine:
    """Decodes and augments on CPU threads. See `Engine` for the contract.

    Args:
        sampler: which samples come when.
        data: workers, prefetch, kernels, decode_scale.
        device: where batches are wanted.
        cache: decoded photos to read from and fill, or None.
    """

    def __init__(
        self, sampler: Sampler, data: DataConfig, device: torch.device, cache: PhotoCache | None = None
    ) -> None:
        self._sampler, self._device, self._cache = sampler, device, cache
        files = Files(sampler.photos, data.kernels != "torchvision", data.decode_scale)
        self._exact = Executors(data.kernels, sampler.photos, files)
        self._executors = self._exact  # evaluation goes past the cache, whose photos may be shrunk
        if cache is not None:
            self._executors = Executors(data.kernels, sampler.photos, Cached(cache))
        self._prefetch, threads = data.prefetch, data.workers or usable_cores()
        largest = sampler.largest_batch * sampler.size**2 * 3
        self._buffers = Buffers(largest, data.prefetch + 2)  # what is made, what is being used, and one more
        self._chunk = chunk_size(sampler.full_batch, data.prefetch, threads)
        self._pool = Workers(threads, "flowerfast-decode")

    @property
    def notes(self) -> list[str]:
        """What the cache has to say, one line each."""
        return self._cache.notes if self._cache is not None else []

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on."""
        return copy_ahead(self._batches(epoch, start_batch), self._device)

    def execute(self, plan: Plan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        job = self._submit(plan)
        for row, error in self._failures(job).items():
            raise UserError(f"{self._sampler.photos.where(int(plan.indices[row]))}: {error}")
        return job.images.numpy()

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    def _batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        jobs: deque[_Job] = deque()
        try:
            for plan in self._sampler.plans(epoch, start_batch):
                jobs.append(self._submit(plan))
                if len(jobs) > self._prefetch:
                    yield self._finish(jobs.popleft())
            while jobs:
                yield self._finish(jobs.popleft())
        finally:
            leave([task for job in jobs for task in job.tasks])

    def _submit(self, plan: Plan) -> _Job:
        shape = (len(plan), plan.size, plan.size, 3)
        if self._device.type == "cuda":
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=True)  # used again by torch
        else:
            images = self._buffers.take(shape)
        executor = (self._executors if plan.augmented else self._exact).now
        prepared, fill = executor.source.prepare(plan), executor.fill
        spans = [range(a, min(a + self._chunk, len(plan))) for a in range(0, len(plan), self._chunk)]
        samples = plan.indices
        tasks = [
            self._pool.submit(samples[span.start : span.stop], fill, prepared, images.numpy(), span)
            for span in spans
        ]
        return _Job(plan, images, tasks)

    def _finish(self, job: _Job) -> Batch:
        """The finished batch without its bad rows."""
        return finished_batch(self._sampler.photos, job.plan, job.images, self._failures(job))

    def _failures(self, job: _Job) -> dict[int, str]:
        failed: dict[int, str] = {}
        for rows in results(job.tasks, self._sampler.photos.place):
            failed |= rows
        return failed


def finished_batch(photos: Photos, plan: Plan, images: torch.Tensor, failed: dict[int, str]) -> Batch:
    """Batch of images, uint8 (n, S, S, 3), without the rows that failed; reports those."""
    for row, error in failed.items():
        photos.report_bad(int(plan.indices[row]), error)
    if failed:
        kept = np.setdiff1d(np.arange(len(plan)), list(failed))
        images[: len(kept)] = images[kept]  # in place: other memory would not be pinned, and copied in steps
        images, plan = images[: len(kept)], plan.select(kept)
    return place_batch(images, photos, plan)


def chunk_size(batch_size: int, prefetch: int, threads: int) -> int:
    """Samples per task: the more, the seldomer a thread must get hold of the interpreter."""
    return min(max(batch_size * (prefetch + 1) // (_TASKS * threads), _LEAST), _MOST)
