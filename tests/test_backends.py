"""Backends are interchangeable: one order of samples, and a run begun with one goes on with the other."""

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast import runs, train
from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.data.split import read_split
from flowerfast.loaders import BadFiles, Choice, Recipe, make_loader
from flowerfast.loaders.batch import Batch, Loader
from flowerfast.loaders.sampling import Sampler
from flowerfast.trainer import Trainer

pytest.importorskip("nvidia.dali")

OTHER = ("dali-cpu", pytest.param("dali", marks=pytest.mark.gpu))
SETTINGS = [
    argument
    for setting in (
        "model.name=test_resnet", "model.pretrained=false", "data.image_size=32", "data.workers=2",
        "train.epochs=2", "train.batch_size=4", "train.lr=0.02", "train.schedule=constant",
    )
    for argument in ("--set", setting)
]  # fmt: skip


def need(backend: str) -> str:
    """The backend, or skip the test where it cannot run."""
    if backend == "dali" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return backend


@pytest.fixture
def photos(photo_folder) -> Path:
    return photo_folder({"daisy": 10, "rose": 10})


# ------------------------------------------------------------------------------------------- order of samples


def open_loader(backend: str, root: Path) -> Loader:
    manifest = load_manifest(root)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "dali" else torch.device("cpu")
    recipe = Recipe(32, 3, seed=9, augment=AugmentConfig(), shuffle=True)
    bad, indices = BadFiles(manifest, "skip", 1.0), np.arange(1, len(manifest))
    return make_loader(Choice(backend, ""), manifest, indices, recipe, DataConfig(workers=2), device, bad)


def order(loader: Loader) -> list[list[list[int]]]:
    """Indices by batch: of two epochs, and of the second one again from its fourth batch on."""
    starts = ((0, 0), (1, 0), (1, 3))
    return [[batch.indices.tolist() for batch in loader.epoch(*start)] for start in starts]


@pytest.mark.parametrize("backend", OTHER)
def test_batches_hold_the_same_samples_with_every_backend(photos, backend):
    reference, loader = open_loader("torchvision", photos), open_loader(need(backend), photos)
    expected = order(reference)
    assert [len(batches) for batches in expected] == [7, 7, 4]
    assert order(loader) == expected
    reference.close()
    loader.close()


# ----------------------------------------------------------------------------------------- a run that changes


class Steps:
    """Stands for `train_step`: notes the samples of each step, and asks for a stop after `stop_after`."""

    def __init__(self) -> None:
        self.step = train.train_step
        self.seen: list[list[int]] = []
        self.stop_after: int | None = None

    def __call__(self, trainer: Trainer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(batch.indices.tolist())
        if len(self.seen) == self.stop_after:
            signal.raise_signal(signal.SIGTERM)
        return self.step(trainer, batch)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    watched = Steps()
    monkeypatch.setattr(train, "train_step", watched)
    return watched


@pytest.fixture
def cli_train(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`flowerfast train` without the plots at its end: (exit code, stdout, stderr)."""
    monkeypatch.setattr(runs, "draw", lambda *_: None)
    return partial(cli, "train")


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def planned(photos: Path, run: Path) -> list[list[int]]:
    """Samples of each step of the two epochs, if nothing intervenes."""
    manifest = load_manifest(photos)
    split = read_split(run / "split.json", manifest)
    sampler = Sampler(manifest, split.train, Recipe(32, 4, augment=AugmentConfig(), shuffle=True))
    return [plan.indices.tolist() for epoch in range(2) for plan in sampler.plans(epoch)]


@pytest.mark.parametrize(
    ("first", "second", "stop_after"),
    [("torchvision", "dali-cpu", 2), ("dali-cpu", "torchvision", 6), ("dali-cpu", "torchvision", 4),
     pytest.param("torchvision", "dali", 2, marks=pytest.mark.gpu),
     pytest.param("dali", "torchvision", 6, marks=pytest.mark.gpu)],
)  # fmt: skip
def test_a_stopped_run_goes_on_with_another_backend(
    cli_train, steps, photos, tmp_path, first, second, stop_after
):
    need(first)
    need(second)
    steps.stop_after, run = stop_after, tmp_path / "run"
    assert cli_train(photos, *SETTINGS, "--backend", first, "--out", run)[0] == 143
    assert len(steps.seen) == stop_after
    assert cli_train("--resume", "--backend", second, "--out", run)[0] == 0
    assert len(steps.seen) == 8
    assert steps.seen == planned(photos, run)  # no sample is lost, none comes twice
    assert [row["epoch"] for row in rows(run)] == [0, 1]
    assert json.loads((run / "summary.json").read_text())["backend"] == second


def test_a_finished_run_is_prolonged_with_another_backend(cli_train, steps, photos, tmp_path):
    run = tmp_path / "run"
    once = ("--set", "train.epochs=1", "--backend", "torchvision")
    assert cli_train(photos, *SETTINGS, *once, "--out", run)[0] == 0
    before = rows(run)
    again = ("--resume", "--backend", "dali-cpu", "--set", "train.epochs=2")
    assert cli_train(*again, "--out", run)[0] == 0
    assert [row["epoch"] for row in rows(run)] == [0, 1]
    assert rows(run)[:1] == before
    assert steps.seen == planned(photos, run)
