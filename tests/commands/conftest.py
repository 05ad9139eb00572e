"""Fixtures of the command tests: photos that a tiny network tells apart, a run that learnt to, mistakes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from flowerfast.commands import parity
from flowerfast.demo.synthetic import synthesize
from flowerfast.loaders.loader import Loader
from flowerfast.plans.plan import Plan
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


@pytest.fixture(scope="session")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered flowers, four of each kind; read only."""
    return synthesize(tmp_path_factory.mktemp("rendered") / "flowers", 4, processes=1)


def mistaken(execute: Callable[[Plan], np.ndarray], mistake: str, plan: Plan) -> np.ndarray:
    """What an executor with a mistake makes of a plan."""
    if mistake == "brighter":
        return np.minimum(execute(plan).astype(np.int16) + 4, 255).astype(np.uint8)
    if mistake == "inverted":
        return 255 - execute(plan)
    if mistake == "evaluation" and not plan.augmented:
        plan = replace(plan, from_row=plan.from_row + 2)
    elif mistake == "rotation":
        plan = replace(plan, angle=-plan.angle)
    elif mistake == "jitter":
        plan = replace(plan, brightness=plan.contrast, contrast=plan.brightness)
    elif mistake == "translate":
        plan = replace(plan, shift_x=plan.shift_y, shift_y=plan.shift_x)
    return execute(plan)


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Function (mistake): from now on the executor under test, the first of the two, makes it."""

    def arrange(mistake: str) -> None:
        opened: list[Loader] = []

        def make(*arguments: Any, **settings: Any) -> Loader:
            opened.append(Loader(*arguments, **settings))
            if len(opened) % 2:
                monkeypatch.setattr(opened[-1], "execute", partial(mistaken, opened[-1].execute, mistake))
            return opened[-1]

        monkeypatch.setattr(parity, "Loader", make)

    return arrange
