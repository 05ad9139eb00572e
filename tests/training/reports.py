"""Run folders as they are read for a report, and what is on a page."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flowerfast.training.figures import CONFUSION_PNG, CURVES_PNG
from flowerfast.training.scores import classification_report

HOSTILE = '<script>alert("1")</script>'


def make_history(val_acc: list[float]) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 0.9 / (epoch + 1),
            "train_acc": 0.6,
            "val_loss": 0.25,
            "val_acc": accuracy,
            "lr": 0.001,
            "images_per_sec": 1234.4,
            "data_wait": 0.021,
            "seconds": 3.5,
        }
        for epoch, accuracy in enumerate(val_acc)
    ]


def make_run(run: Path, **changes: Any) -> Path:
    classes = ["daisy", HOSTILE]
    confusion = np.array([[8, 2], [1, 9]])
    summary: dict[str, Any] = {
        "best_epoch": 1,
        "best_val_acc": 0.875,
        "epochs_run": 3,
        "stopped_early": True,
        "backend": "cpu",
        "backend_reason": "no CUDA device & no DALI",
        "device": "cpu",
        "images_per_sec": 1234.4,
        "data_wait": 0.021,
        "seconds": 247.0,
        "classes": classes,
        "train_samples": 2936,
        "val_samples": 20,
        "per_class": classification_report(confusion, classes)["per_class"],
        "confusion": confusion.tolist(),
        "bad_files": [{"path": "roses/<b>x</b>\x1b\udcff.jpg", "error": "cut short"}],
        "versions": {"torch": "2.9.1", "timm": "1.0.0"},
        "model": "resnet18",
        "parameters": 11179077,
    }
    summary |= changes
    run.mkdir(exist_ok=True)
    (run / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if v is not None}))
    rows = make_history([0.8, 0.875, 0.85])
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.yaml").write_text("train:\n  lr: 0.001 # a < b\n")
    for name in (CURVES_PNG, CONFUSION_PNG):
        Image.new("RGB", (3, 2), "red").save(run / name)
    return run


class Page(HTMLParser):
    """Collects tags, every address that a browser would follow, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))
