"""`flowerfast train --config paper` in a process of its own: how long until its best checkpoint is there."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.alone import run_python
from flowerfast.bench.child import ChildFailed
from flowerfast.data.manifest import load_manifest

SPLIT = ("startup_seconds", "train_seconds", "eval_seconds", "write_seconds")
"""What summary.json says of the time between the imports and the report."""


def run_recipe(
    data: Path, device: str, weights: Path | None, more: Sequence[str], limit: float
) -> dict[str, Any]:
    """The recipe's row: seconds to the best checkpoint, where they went, and what the run reached.

    Args:
        data: photos.
        device: cuda or cpu.
        weights: ImageNet weights to start from; None: random ones, which cost the same time.
        more: further `key=value` settings.
        limit: seconds after which the run is ended.

    The row has `error` when the run fails.
    """
    load_manifest(data)  # a run finds the list of photos in the cache, as any but the very first does
    start = f"model.weights={weights}" if weights else "model.pretrained=false"
    settings = [f"train.device={device}", start, *more]
    with tempfile.TemporaryDirectory(prefix="flowerfast-recipe-") as scratch:
        run = Path(scratch) / "run"
        command = ["-m", "flowerfast", "train", str(data), "--config", "paper", "--out", str(run)]
        try:
            done = run_python([*command, *(part for text in settings for part in ("--set", text))], limit)
        except ChildFailed as error:
            return {"error": str(error), "skipped": error.skipped}
        return {**split(run, done.started, done.seconds), "set": [*more], "weights": weights is not None}


def split(run: Path, started: float, seconds: float) -> dict[str, Any]:
    """Where a run's time went, from what it left behind.

    Args:
        run: its folder, just written.
        started: when its process was started, time.time.
        seconds: how long the process took in all.

    best_seconds is the age of best/, weights and settings, counted from the start of the process.
    import_seconds is what went by before training began to prepare, report_seconds what came after
    summary.json.
    """
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    summarised = (run / "summary.json").stat().st_mtime - started
    return {
        "best_seconds": max(file.stat().st_mtime for file in (run / "best").iterdir()) - started,
        "whole_seconds": seconds,
        "import_seconds": max(summarised - summary["seconds"], 0.0),
        **{key: summary[key] for key in SPLIT},
        "report_seconds": max(seconds - summarised, 0.0),
        "first_epoch_seconds": history[0]["seconds"],
        "later_epoch_seconds": sum(row["seconds"] for row in history[1:]) / max(len(history) - 1, 1),
        **{key: summary[key] for key in ("best_epoch", "best_val_acc", "epochs_run", "images_per_sec")},
        **{key: summary[key] for key in ("data_wait", "backend", "cache", "model", "train_samples")},
    }
