"""Grain: MapDataset, sliced by rank, shuffled, augmented by its random_map, in its worker processes."""

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import grain
import numpy as np
from PIL import Image

from benchmarks.loaders import SEED, Batch, Job, files, note_decoded


class Crop:
    """A photo's number and Grain's generator for it to (id, pixels): a random crop and flip."""

    def __init__(self, photos: str, size: int) -> None:
        self._files, self._size = files(photos), (size, size)

    def __call__(self, number: int, random: np.random.Generator) -> tuple[int, np.ndarray]:
        note_decoded(number)
        image = Image.open(io.BytesIO(self._files[number].read_bytes())).convert("RGB")
        side = int(min(image.size) * random.uniform(0.5, 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        pixels = np.asarray(image.resize(self._size, box=(left, top, left + side, top + side)))
        return number, pixels[:, ::-1] if random.random() < 0.5 else pixels


def shuffled(job: Job) -> Any:
    """All photos in a new order each time."""
    return grain.MapDataset.range(len(files(job.photos))).seed(SEED).shuffle()


class Loader:
    """One iterator without end; an epoch is a stretch of it."""

    def __init__(self, job: Job) -> None:
        mine = shuffled(job).random_map(Crop(job.photos, job.size))[job.rank :: job.world]
        epoch = mine.batch(job.own_batch, drop_remainder=True)
        self._length, self._done = len(epoch), 0
        self._iterator = iter(
            epoch.repeat()
            .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
            .mp_prefetch(grain.MultiprocessingOptions(num_workers=job.workers))
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of the next epoch, or of what is left of it."""
        left, self._done = self._length - self._done, 0
        for ids, pixels in islice(self._iterator, left):
            yield ids.tolist(), pixels

    def save(self) -> Any:
        """The iterator's state."""
        return self._iterator.get_state()

    def load(self, state: Any, epoch: int, batch: int) -> None:
        """As documented."""
        self._done = batch
        self._iterator.set_state(state)
