"""Short runs by the command line, and what commands leave."""

import json
from pathlib import Path
from typing import Any

SHORT = [
    argument
    for setting in (
        "model.name=test_resnet", "model.pretrained=false", "data.image_size=32", "data.workers=2",
        "train.epochs=2", "train.batch_size=8", "train.lr=0.05",
    )
    for argument in ("--set", setting)
]  # fmt: skip


def load(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def load_rows(run: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl without what is timed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_sec", "data_wait")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def sets(*settings: str) -> list[str]:
    return [argument for setting in settings for argument in ("--set", setting)]
