"""docs/loggers.md: every code block is executed as a reader would type it, the trackers' offline."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.settings import parse_overrides

PAGE = (Path(__file__).parents[1] / "docs/loggers.md").read_text(encoding="utf-8")
LINES, WANDB, MLFLOW = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TINY = {
    "model.name": "test_resnet", "model.pretrained": False, "data.image_size": 32, "data.workers": 2,
    "data.kernels": "torchvision", "train.batch_size": 8, "train.device": "cpu",
}  # fmt: skip


@pytest.fixture
def execute(
    photo_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, Any]]:
    """Function (block) → its names, once it has run on few and small photos with a tiny network."""
    import flowerfast
    from flowerfast.training.run import train

    photo_folder({"daisy": 8, "rose": 7, "tulip": 6}, name="photos")
    monkeypatch.chdir(tmp_path)

    def small(data: str, settings: dict[str, Any], **options: Any) -> object:
        return train(data, settings={**TINY, **settings}, **options)

    monkeypatch.setitem(vars(flowerfast), "train", small)

    def run(block: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "page"}
        exec(compile(block, "loggers.md", "exec"), names)
        return names

    return run


def rows(run: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_functions_of_ones_own(
    execute: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.training.run.draw", lambda *_: None)
    execute(LINES)
    first, *epochs, best = capsys.readouterr().out.splitlines()
    assert first == "runs/told: 17 photos of daisy, rose, tulip"
    assert epochs == [f"epoch {row['epoch']}: {row['val_acc']:.1%}" for row in rows("runs/told")]
    assert best == f"best: {max(row['val_acc'] for row in rows('runs/told')):.1%}"


@pytest.mark.filterwarnings("ignore")  # of which the trackers have many, none of it about us
def test_wandb_offline(
    execute: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setattr("flowerfast.training.run.draw", lambda *_: None)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "kept"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    names = execute(WANDB)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 60
    while b"best_val_acc" not in (content := file.read_bytes()):  # another process writes it
        assert time.monotonic() < until
        time.sleep(0.1)
    assert content.count(b"images_per_sec") >= 2
    assert b"test_resnet" in content
    assert names["wandb"].run is None  # finished


@pytest.mark.filterwarnings("ignore")
def test_mlflow_offline(
    execute: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database
    execute(MLFLOW)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("mlflow", "FINISHED")
    assert run.data.params["model.name"] == "test_resnet"
    told = client.get_metric_history(run.info.run_id, "val_acc")
    assert [(each.step, each.value) for each in told] == [
        (row["epoch"], row["val_acc"]) for row in rows("runs/mlflow")
    ]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_commands_set_what_there_is() -> None:
    (command,) = re.findall(r"^flowerfast train .*", PAGE, re.MULTILINE)
    words = command.split()
    assert parse_overrides([words[words.index("--set") + 1]]) == {"log.tensorboard": True}
