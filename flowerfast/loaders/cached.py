"""Batches out of a cache of decoded photos, augmented where these lie by kernels of our own, without DALI."""

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, place_batch
from flowerfast.loaders.cache.filling import CachedPhotos
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.ranges import stage
from flowerfast.loaders.reading import Reading
from flowerfast.loaders.threads import ThreadEngine
from flowerfast.machine import usable_cores
from flowerfast.photos.workers import leave
from flowerfast.pixels.finish_batch import finish_images
from flowerfast.pixels.gpu import Windows, run_plan, windows_of
from flowerfast.plans.plan import Plan, Sampler

_Photos = tuple[Windows, list[torch.Tensor]]
"""Where the windows lie, and the memory that must stay until their kernels have run."""


class CachedEngine:
    """Decodes on the CPU what the cache lacks, and augments on the cache's device. See `Engine`.

    Args:
        sampler: which samples come when.
        data: workers, prefetch; kernels and decode_scale for plans without augmentation.
        device: of the cache, and where batches are wanted.
        cache: decoded photos to read from and fill.

    On CUDA the kernels of a batch are queued on the stream that is current when it is drawn, and its memory
    is reused in the order of that stream: work on another one must be waited for before the batch is dropped.
    """

    def __init__(self, sampler: Sampler, data: DataConfig, device: torch.device, cache: PhotoCache) -> None:
        self._sampler, self._data, self._device, self._store = sampler, data, device, cache.store
        self._photos = CachedPhotos(cache, data.workers or usable_cores(), _find)
        self._exact: ThreadEngine | None = None

    @property
    def notes(self) -> list[str]:
        """What the cache has to say, one line each."""
        return self._photos.notes

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on."""
        readings: deque[Reading] = deque()
        try:
            for plan in self._sampler.plans(epoch, start_batch):
                readings.append(self._photos.start(plan))
                if len(readings) > self._data.prefetch:
                    yield self._batch(readings.popleft())
            while readings:
                yield self._batch(readings.popleft())
        finally:
            leave([task for reading in readings for task in reading.tasks])

    def execute(self, plan: Plan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        if not plan.augmented:  # an evaluation goes past the cache, whose photos may be shrunk
            if self._exact is None:
                self._exact = ThreadEngine(self._sampler, self._data, torch.device("cpu"))
            return self._exact.execute(plan)
        ready, photos, bad = self._photos.start(plan).result()
        for index, error in bad.items():
            raise UserError(f"{self._sampler.photos.where(index)}: {error}")
        return self._run(ready, photos).cpu().numpy()

    def close(self) -> None:
        """Stop the threads."""
        self._photos.close()
        if self._exact is not None:
            self._exact.close()

    def _batch(self, reading: Reading) -> Batch:
        """The batch without its bad files; reports those."""
        plan, photos, bad = reading.result()
        for index, error in bad.items():
            self._sampler.photos.report_bad(index, error)
        return place_batch(self._run(plan, photos), self._sampler.photos, plan)

    def _run(self, plan: Plan, photos: _Photos) -> torch.Tensor:
        windows, loose = photos
        with stage("augment"):
            if self._device.type == "cuda":
                # The kernels know addresses alone: whoever frees the memory must wait for them.
                for memory in (self._store, *loose):
                    memory.record_stream(torch.cuda.current_stream(self._device))
            return finish_images(run_plan(plan, windows, self._device), plan.finish)


def _find(cache: PhotoCache, plan: Plan, loose: Mapping[int, torch.Tensor]) -> tuple[Plan, _Photos]:
    scaled = plan.at(cache.sizes(plan.indices))
    photos = cache.starts(plan.indices) + cache.store.data_ptr()
    for row in np.flatnonzero(np.isin(plan.indices, [*loose])).tolist():
        photos[row] = loose[int(plan.indices[row])].data_ptr()
    return scaled, (windows_of(scaled, photos), [*loose.values()])
