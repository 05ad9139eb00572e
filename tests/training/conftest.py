"""Fixtures of the training tests: photos that a tiny network tells apart, runs of seconds."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import nn

from flowerfast.config import ModelConfig
from flowerfast.errors import Stopped
from flowerfast.training import run as run_module
from flowerfast.training.model import build_network
from flowerfast.training.progress import Stop
from flowerfast.training.run import TrainResult, train
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.trained import TrainedModel, load_run
from tests.training.saved_run import save_run

_TINY = {
    "model.name": "test_resnet",
    "model.pretrained": False,
    "data.image_size": 32,
    "data.workers": 2,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.lr": 0.05,
    "train.device": "cpu",
}


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """No writer is at work after a run, however it ended."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("writer")]


@pytest.fixture
def photos(paint: Callable[[Path], Path], tmp_path: Path) -> Path:
    """Photos of this test alone."""
    return paint(tmp_path / "photos")


@pytest.fixture
def train_tiny(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainResult]:
    """Function (out="run", settings={}, data=photos, plots=False, **options of `train`) → TrainResult.

    A run of a tiny network on `photos`, without plots and report at its end. With `resume` it is called with
    the settings given and no others.
    """
    draw = run_module.draw

    def run(
        out: str | None = "run",
        settings: dict[str, Any] | None = None,
        data: Path | None = photos,
        plots: bool = False,
        **options: Any,
    ) -> TrainResult:
        monkeypatch.setattr(run_module, "draw", draw if plots else lambda *_: None)
        folder = None if out is None else tmp_path / out
        if options.get("resume"):
            return train(out=folder, settings=settings, **options)
        given = {} if "config" in options else _TINY
        return train(data, out=folder, settings={**given, **(settings or {})}, **options)

    return run


@pytest.fixture(scope="session")
def stop_after() -> Callable[[int], AbstractContextManager[Stop]]:
    """Function (steps) → `stop` of `train`: SIGTERM once so many steps have been trained and validated."""

    def stop(steps: int) -> AbstractContextManager[Stop]:
        asked = count(1)
        return nullcontext(lambda: signal.SIGTERM if next(asked) >= steps else None)

    return stop


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, float]]]:
    """Function (run folder) → rows of metrics.jsonl, without what is timed."""
    timed = ("seconds", "images_per_sec", "data_wait")

    def read(run: Path) -> list[dict[str, float]]:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]

    return read


@pytest.fixture(scope="session")
def build() -> Callable[..., nn.Module]:
    """Function (timm name="test_resnet", classes=daisy, rose, tulip, size=32, **of ModelConfig) → network."""

    def make(
        name: str = "test_resnet",
        classes: tuple[str, ...] = ("daisy", "rose", "tulip"),
        size: int = 32,
        **config: Any,
    ) -> nn.Module:
        settings = ModelConfig(**{"name": name, "pretrained": False, **config})
        return build_network(settings, classes, size, 0.875)

    return make


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of the run that is interrupted."""
    return tmp_path / "run"


@pytest.fixture
def run_folder(run: Path) -> RunFolder:
    """The same, as the run sees it."""
    return RunFolder(run)


@pytest.fixture
def begin(
    train_tiny: Callable[..., TrainResult], stop_after: Callable[[int], AbstractContextManager[Stop]]
) -> Callable[..., None]:
    """Function (settings={}, steps=2) that begins a run in `run` and stops it after so many steps."""

    def start(settings: dict[str, Any] | None = None, steps: int = 2) -> None:
        with pytest.raises(Stopped, match="stopped by SIGTERM after saving"):
            train_tiny(settings=settings, stop=stop_after(steps))

    return start


@pytest.fixture
def outcome(rows: Callable[[Path], list[dict[str, float]]]) -> Callable[[Path], dict[str, Any]]:
    """Function (run folder) → metrics without timings, and all weights."""

    def read(folder: Path) -> dict[str, Any]:
        weights = sorted(folder.rglob("*.safetensors"))
        return {"rows": rows(folder), **{str(f.relative_to(folder)): load_file(f) for f in weights}}

    return read


@pytest.fixture
def network(tmp_path: Path) -> nn.Module:
    """The network that is saved in `run`, see `save_run`."""
    return save_run(tmp_path / "run")


@pytest.fixture
def trained(network: nn.Module, tmp_path: Path) -> TrainedModel:
    """The same, loaded."""
    return load_run(tmp_path / "run", "cpu")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved, so that their contents can be read without reading pixels."""
    figures: list[Figure] = []
    save = Figure.savefig

    def record(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return figures
