"""Fixtures of the command tests: photos that a tiny network tells apart, and a run that has learnt to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowerfast.training import run as run_module
from flowerfast.training.run import train


class Trained(NamedTuple):
    """A run folder, its photos, and its summary."""

    run: Path
    photos: Path
    summary: dict[str, Any]


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without curves and report, which take longer than the training."""
    monkeypatch.setattr(run_module, "draw", lambda *_: None)


@pytest.fixture
def photos(paint: Callable[[Path], Path], tmp_path: Path) -> Path:
    """Photos of this test alone."""
    return paint(tmp_path / "photos")


@pytest.fixture(scope="session")
def trained(paint: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that tells its photos apart; read only."""
    root = tmp_path_factory.mktemp("trained")
    settings = {
        "model.name": "test_resnet",
        "model.pretrained": False,
        "data.image_size": 32,
        "data.workers": 2,
        "train.epochs": 6,
        "train.batch_size": 8,
        "train.lr": 0.05,
        "train.device": "cpu",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERFAST_CACHE", str(root / "cache"))
        patch.setattr(run_module, "draw", lambda *_: None)
        result = train(paint(root / "photos"), out=root / "run", settings=settings)
    return Trained(result.folder, root / "photos", result.summary)
