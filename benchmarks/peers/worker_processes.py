"""flowerfast's executor in DataLoader's worker processes, beside its own threads: which feeds faster?"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from flowerfast.bench.rounds import Batch, Source
from flowerfast.config import load_config
from flowerfast.data.manifest import load_manifest
from flowerfast.data.plan import EvalPlan, Plan
from flowerfast.loaders.batch import Recipe
from flowerfast.loaders.sampling import Sampler
from flowerfast.loaders.torchvision import Executes, make_executor


class Plans(Dataset[Batch]):
    """Plans as the dataset: the index of an item is the plan of a batch, made in memory that is shared."""

    def __init__(self, executor: Executes, label: np.ndarray) -> None:
        self._executor, self._label = executor, label

    def __getitem__(self, plan: Plan | EvalPlan) -> Batch:
        images = torch.empty((len(plan), plan.size, plan.size, 3), dtype=torch.uint8)
        failed = self._executor.fill(self._executor.prepare(plan), images.numpy(), range(len(plan)))
        assert not failed
        return images, torch.from_numpy(self._label[plan.indices].astype(np.int64))


class Epoch:
    """Sampler whose items are the plans of the epoch that is set."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self.number = sampler, 0

    def __iter__(self) -> Iterator[Plan | EvalPlan]:
        return self._sampler.plans(self.number)


def epochs(
    data: str, image_size: int, batch_size: int, cores: int, cache: str, workers: int, settings: Sequence[str]
) -> Source:
    """Batches of uint8 (n, S, S, 3), made by `workers` processes of one thread each."""
    config = load_config(None, settings, {"data.path": data})
    manifest = load_manifest(Path(data))
    recipe = Recipe(image_size, batch_size, 0, config.augment, shuffle=True)
    epoch = Epoch(Sampler(manifest, np.arange(len(manifest)), recipe))
    loader: DataLoader[Any] = DataLoader(
        Plans(make_executor(config.data, manifest, None)[0], manifest.label),
        batch_size=None,
        sampler=epoch,
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=one_thread,
        persistent_workers=True,
    )

    def drawn(number: int) -> Iterator[Batch]:
        epoch.number = number
        return iter(loader)

    return Source(drawn(number) for number in count())


def as_it_is(made: Any) -> Any:
    """A batch is whole already."""
    return made


def one_thread(_: int) -> None:
    """Each worker is one of many: torch's own threads would only get in their way."""
    torch.set_num_threads(1)
