"""A run of seconds, and what of it must come out the same."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from flowerfast.training import run as run_module
from flowerfast.training.progress import Stop
from flowerfast.training.run import train

TINY: dict[str, Any] = {
    "model.name": "test_resnet",
    "model.pretrained": False,
    "data.image_size": 32,
    "data.workers": 1,
    "train.device": "cpu",
}
"""Settings of the smallest network, on which trials build."""
SHORT = {**TINY, "train.epochs": 2, "train.batch_size": 8, "train.lr": 0.05, "checkpoints.every_seconds": 0}
"""Settings of two epochs with a save after each batch."""
_SETTINGS = {
    **TINY,
    "data.backend": "cpu",
    "train.epochs": 2,
    "train.batch_size": 5,
    "checkpoints.every_seconds": 0,
    "checkpoints.keep": 1,
}
_COLOURS = {"blue": (60, 60, 200), "red": (200, 60, 60), "green": (60, 200, 60)}
_TIMED = ("seconds", "images_per_sec", "data_wait")


def paint(folder: Path, each: int = 6, size: tuple[int, int] = (40, 32), classes: int = 2) -> Path:
    """Up to three classes of so many photos of `size` (width, height), of noise around a colour each."""
    rng = np.random.default_rng(0)
    for name, colour in islice(_COLOURS.items(), classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.array(colour) + rng.integers(-40, 40, (size[1], size[0], 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.jpg", quality=90)
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """Within, one thread of torch, no pictures at the end of a run, no asking of the network for its least
    batch.
    """
    torch.set_num_threads(1)
    found = 2  # what `least_batch` finds for `TINY`, which would take long
    with (
        patch.object(run_module, "draw", lambda *_: None),
        patch.object(run_module, "least_batch", lambda *_: found),
    ):
        yield


def options(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def begin(photos: Path, run: Path, stop: Stop | None = None) -> None:
    """Train from the beginning, until `stop` says so."""
    train(photos, out=run, settings=_SETTINGS, stop=nullcontext(stop) if stop else None)


def history(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without timings."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in _TIMED} for line in lines]


def outcome(run: Path) -> dict[str, Any]:
    """What of a run follows from its settings alone: history without timings, and all weights as bytes."""
    files = sorted(run.rglob("*.safetensors"))
    weights = {
        str(file.relative_to(run)): {name: t.numpy().tobytes() for name, t in load_file(file).items()}
        for file in files
    }
    return {"rows": history(run), **weights}
