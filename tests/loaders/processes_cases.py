"""Worker processes give what threads give. Run by test_processes.py in an interpreter without DALI."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.errors import UserError
from flowerfast.loaders import BadFiles, Choice, Loader, Recipe, make_loader, use_processes
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.processes import ProcessLoader, can_fork
from flowerfast.loaders.torchvision import TorchvisionLoader

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system cannot fork")

CPU = torch.device("cpu")
RECIPE = Recipe(32, 5, seed=3, augment=AugmentConfig(), shuffle=True)
Open = Callable[..., Loader]


@pytest.fixture
def folder(photo_folder: Callable[..., Path]) -> Path:
    return photo_folder({"a": 9, "b": 8})


@pytest.fixture
def open_loader(folder: Path) -> Iterator[Open]:
    """Function (worker kind, cache, recipe, on_bad, **DataConfig fields) → loader, closed after the test."""
    opened: list[Loader] = []
    manifest = load_manifest(folder)

    def open_(
        kind: str = "processes",
        cache: str = "none",
        recipe: Recipe = RECIPE,
        on_bad: str = "skip",
        **data: object,
    ) -> Loader:
        settings = DataConfig.model_validate({"workers": 2, **data, "worker_kind": kind})
        bad = BadFiles(manifest, on_bad, 1.0)
        every = np.arange(len(manifest))
        opened.append(
            make_loader(Choice("torchvision", "", cache), manifest, every, recipe, settings, CPU, bad)
        )
        return opened[-1]

    yield open_
    for loader in opened:
        loader.close()


def content(loader: Loader, epoch: int, start_batch: int = 0) -> list[tuple[list[int], list[int], bytes]]:
    batches = list(loader.epoch(epoch, start_batch))
    assert all(b.images.is_contiguous(memory_format=torch.channels_last) for b in batches)
    return [(b.indices.tolist(), b.labels.tolist(), b.images.numpy().tobytes()) for b in batches]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_threads(open_loader: Open, workers: int) -> None:
    threads, processes = open_loader("threads"), open_loader(workers=workers)
    assert isinstance(threads, TorchvisionLoader)
    assert isinstance(processes, ProcessLoader)
    assert len(threads) == len(processes) == 4
    for epoch in (0, 1, 5):
        assert content(processes, epoch) == content(threads, epoch)
    assert content(processes, 1, 2) == content(threads, 1)[2:]
    assert content(processes, 1, 4) == []


def test_evaluation_is_that_of_threads(open_loader: Open) -> None:
    plain = Recipe(32, 5)
    assert content(open_loader(recipe=plain), 0) == content(open_loader("threads", recipe=plain), 0)


def test_an_abandoned_epoch_leaves_the_next_one_whole(open_loader: Open) -> None:
    loader, expected = open_loader(), content(open_loader("threads"), 7)
    for batch in loader.epoch(6):
        assert len(batch) == 5
        break
    assert content(loader, 7) == expected


def test_the_cache_is_shared_between_processes(open_loader: Open, folder: Path) -> None:
    manifest = load_manifest(folder)
    every = np.arange(len(manifest))
    cache = PhotoCache(manifest, every, 4000)
    loader = ProcessLoader(
        manifest, every, RECIPE, DataConfig(workers=2), CPU, BadFiles(manifest, "skip", 1.0), cache
    )
    expected = [content(open_loader("threads"), epoch) for epoch in (0, 1)]
    assert len(cache.missing(every)) == len(every)
    assert content(loader, 0) == expected[0]
    assert not len(cache.missing(every))  # filled by the workers, seen here
    for index in every.tolist():
        os.unlink(folder / manifest.path(index))  # nothing is read any more
    assert content(loader, 1) == expected[1]
    loader.close()


def test_bad_files_are_left_out_and_named(open_loader: Open, folder: Path) -> None:
    loader, strict = open_loader(), open_loader(on_bad="fail")
    file = sorted((folder / "b").iterdir())[3]
    file.write_bytes(file.read_bytes()[:100])
    batches = content(loader, 0)
    assert sum(len(indices) for indices, _, _ in batches) == 16
    assert [b.path for b in loader.bad.values()] == [f"b/{file.name}"]
    with pytest.raises(UserError, match=file.name):
        content(strict, 0)


def test_execute_gives_the_pixels_of_the_batches(open_loader: Open) -> None:
    processes, threads = open_loader(), open_loader("threads")
    assert isinstance(processes, ProcessLoader)
    assert isinstance(threads, TorchvisionLoader)
    plan = threads._sampler.plan(2, np.arange(6))
    assert np.array_equal(processes.execute(plan), threads.execute(plan))


def test_processes_are_taken_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = DataConfig(worker_kind="processes")
    assert use_processes(asked)
    assert not use_processes(DataConfig())
    assert not use_processes(DataConfig(worker_kind="threads"))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "nvidia.dali", sys)
        assert not use_processes(DataConfig())
        with pytest.raises(UserError, match="DALI is loaded"):
            use_processes(asked)
    monkeypatch.setattr("flowerfast.loaders.can_fork", lambda: False)
    with pytest.raises(UserError, match="cannot fork"):
        use_processes(asked)
