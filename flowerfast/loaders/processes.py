"""The CPU executor in worker processes, for machines with many cores and a GPU to feed.

Measured on an H100 with 16 cores: 16 threads made 700 images/s and, by holding the interpreter lock, slowed
the training loop itself. Each worker here makes a whole batch in shared memory; torch's DataLoader hands it
over without a copy and keeps the order.
"""

import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from flowerfast.config import DataConfig
from flowerfast.data.manifest import BadFile, Manifest
from flowerfast.data.plan import EvalPlan, Plan
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, Recipe
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.sampling import BadFiles, Sampler
from flowerfast.loaders.torchvision import Executor, finished_batch, usable_cores
from flowerfast.loaders.transfer import to_device

_Made = tuple[torch.Tensor, torch.Tensor, dict[int, str]]
"""(images uint8 (n, S, S, 3), sample indices int64 (n,), why rows failed)."""


def can_fork() -> bool:
    """Whether worker processes can share the manifest and the cache of their parent."""
    return "fork" in multiprocessing.get_all_start_methods()


class _Plans(Dataset[_Made]):
    """Plans as the dataset: the index of an item is the plan of a batch."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def __getitem__(self, plan: Plan | EvalPlan) -> _Made:
        images = torch.empty((len(plan), plan.size, plan.size, 3), dtype=torch.uint8)
        scaled = self._executor.scaled(plan)
        failed = self._executor.fill(scaled, images.numpy(), range(len(plan)))
        return images, torch.from_numpy(plan.indices), failed


class _Epoch:
    """Sampler whose items are the plans of the epoch that is set."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self.epoch, self.start_batch = sampler, 0, 0

    def __iter__(self) -> Iterator[Plan | EvalPlan]:
        return self._sampler.plans(self.epoch, self.start_batch)


class ProcessLoader:
    """Loader that decodes and augments in processes of its own. See `Loader` for the contract.

    Takes the arguments of `TorchvisionLoader` and gives the same batches; needs `fork`.
    """

    def __init__(
        self,
        manifest: Manifest,
        indices: np.ndarray,
        recipe: Recipe,
        data: DataConfig,
        device: torch.device,
        bad: BadFiles,
        cache: PhotoCache | None = None,
    ) -> None:
        self._manifest, self._device, self._bad = manifest, device, bad
        self._plans = _Plans(Executor(manifest, cache))
        sampler = Sampler(manifest, indices, recipe)
        self._epoch, self._count = _Epoch(sampler), len(sampler)
        workers = data.workers or usable_cores()
        self._loader: DataLoader[_Made] | None = DataLoader(
            self._plans,
            batch_size=None,
            sampler=self._epoch,
            num_workers=workers,
            prefetch_factor=max(2, -(-data.prefetch // workers)),
            collate_fn=_as_is,
            worker_init_fn=_one_thread,
            pin_memory=device.type == "cuda",
            multiprocessing_context="fork",
            persistent_workers=True,
        )

    @property
    def bad(self) -> dict[int, BadFile]:
        """Files left out so far, by sample index."""
        return self._bad.found

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were chosen: none."""
        return []

    def __len__(self) -> int:
        return self._count

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on."""
        return to_device(self._batches(epoch, start_batch), self._device)

    def execute(self, plan: Plan | EvalPlan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        images, _, failed = self._plans[plan]
        for row, error in failed.items():
            raise UserError(f"{self._manifest.path(int(plan.indices[row]))}: {error}")
        return images.numpy()

    def close(self) -> None:
        """Stop the processes."""
        self._loader = None

    def _batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        assert self._loader is not None
        self._epoch.epoch, self._epoch.start_batch = epoch, start_batch
        for images, indices, failed in self._loader:
            yield finished_batch(self._manifest, self._bad, indices.numpy(), images, failed)


def _as_is(made: Any) -> Any:
    return made


def _one_thread(_: int) -> None:
    """Each worker is one of many: torch's own threads would only get in their way."""
    torch.set_num_threads(1)
