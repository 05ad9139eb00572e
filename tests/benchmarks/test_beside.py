"""What benchmarks/beside.py gives its programs, and how it clocks them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.beside import FASTAI, ROOT, accuracy, divided, programs


def test_all_get_the_same_halves_and_settings(photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    place, photos, classes = divided(photo_folder({"a": 10, "b": 10}), tmp_path / "halves")
    assert (photos, classes) == (len([*place.glob("train/*/*")]), 2)
    assert photos + len([*place.glob("val/*/*")]) == 20
    assert all(link.is_file() for link in place.glob("*/*/*"))
    for name, words in programs(place, tmp_path, 3, classes).items():
        typed = " ".join(words)
        assert f"{place}" in typed
        assert "32" in typed, name
        assert "3" in typed.split() or "epochs=3" in typed
    assert "nc: 2" in (tmp_path / "resnet18-cls.yaml").read_text()


def test_steps_are_clocked_whoever_makes_them(tmp_path: Path) -> None:
    script = tmp_path / "three.py"
    script.write_text("import torch\nfor _ in range(3): torch.ones(1, requires_grad=True).sum().backward()\n")
    command = [
        sys.executable,
        f"{ROOT / 'benchmarks' / 'beside_run.py'}",
        f"{tmp_path / 'told.json'}",
        f"{script}",
    ]
    subprocess.run(command, check=True, env={**os.environ, "BESIDE_BEGAN": "0"}, timeout=100)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["steps"] == 3
    assert told["first_step_seconds"] > 1e9  # since 1970
    assert told["seconds"] >= 0


def test_accuracy_is_read_where_each_leaves_it(tmp_path: Path) -> None:
    assert accuracy("fastai", tmp_path, "x\naccuracy 0.5\n") == 0.5
    (tmp_path / "yolo/train").mkdir(parents=True)
    (tmp_path / "yolo/train/results.csv").write_text(
        "epoch, metrics/accuracy_top1\n1, 0.25\n2, 0.75\n", encoding="utf-8"
    )
    assert accuracy("ultralytics", tmp_path, "") == 0.75
    assert FASTAI.is_file()
