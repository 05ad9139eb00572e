"""serving.py: ways to make squares are compared with training's own, and with what the network answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import serving
from benchmarks.decoder_tables import serving as table_of
from benchmarks.serving_ways import WAYS, Way
from tests.training.saved_run import save_run

NAMES = ("as in training", "Pillow, bilinear", "Pillow, nearest", "torchvision v2, uint8")


@pytest.fixture
def result(tmp_path: Path, photo_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    few: dict[str, Way] = {name: WAYS[name] for name in NAMES}
    few["absent"] = Way("Pillow", WAYS["as in training"].resize, ("no_such_module",))
    monkeypatch.setattr(serving, "WAYS", few)
    save_run(tmp_path / "run", ["daisy", "rose", "tulip"])
    folder = photo_folder({"rose": 2, "tulip": 2}, sizes=[(90, 70), (80, 130)])
    code = serving.main([str(tmp_path / "run"), str(folder), "--out", str(tmp_path / "x.json")])
    assert code == 0
    return json.loads((tmp_path / "x.json").read_text())


def test_ways_are_compared_with_training(result: Any) -> None:
    ways = result["ways"]
    still = {"differ": 0, "beyond_one": 0, "mean": 0, "most": 0, "changed": 0, "shift": 0}
    for name in ("as in training", "torchvision v2, uint8"):
        assert ways[name].items() >= still.items()
    assert ways["Pillow, bilinear"]["most"] <= 1
    assert ways["Pillow, nearest"]["most"] > 10
    assert ways["Pillow, nearest"]["shift"] > ways["Pillow, bilinear"]["shift"]
    assert ways["absent"] == {"missing": "no_such_module is not installed"}
    made = table_of("x.json", result)
    assert "| absent | no_such_module is not installed |" in made
    assert made.count("\n| ") == 1 + len(ways)


def test_every_resize_that_is_installed_makes_a_picture_of_the_size_asked_for() -> None:
    pixels = np.full((40, 60, 3), 77, np.uint8)
    for name, way in WAYS.items():
        if way.missing() is None:
            found = way.resize()(pixels, 20, 30)
            assert (found.shape, found.dtype) == ((20, 30, 3), np.uint8), name
            assert (found == 77).all(), name


def test_a_folder_without_photos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serving.main([str(tmp_path), str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("serving.py: error: ")
