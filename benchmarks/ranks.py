"""What ranks cost and change: two ranks of one core beside one of two as loaders, and training on 1, 2 and 4.

    python benchmarks/ranks.py DATA --out FILE

Training is that of two tiny networks, one without batch normalisation and one with it, by as many ranks as
are named; what differs from one process is written down: the losses of all steps and the last validation.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.torture import crew
from flowerfast.augment import Augment
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.ranks.meeting import joined
from flowerfast.ranks.telling import gather
from flowerfast.training import run as run_module
from flowerfast.training.run import train
from flowerfast.training.state import TrainState

_NETWORKS = {"without batch normalisation": "test_convnext", "with batch normalisation": "test_resnet"}
_RANKS = (1, 2, 4)
_SETTINGS = {
    "model.pretrained": False,
    "data.image_size": 64,
    "data.workers": 1,
    "train.epochs": 2,
    "train.batch_size": 32,
    "train.lr": 0.01,
    "train.device": "cpu",
}


def drawn(data: Path, workers: int, size: int, epochs: int) -> tuple[int, float, float]:
    """Images of this rank in some epochs after the first, its CPU seconds for them, and seconds until all
    ranks have theirs.
    """
    with (
        joined(),
        Loader(
            Photos(data),
            size=size,
            batch_size=64,
            augment=Augment(),
            device="cpu",
            backend="cpu",
            workers=workers,
        ) as loader,
    ):
        loader.warm_up()  # the compiled loops: the first round waits for the compiler
        for _ in loader.epoch(0):
            pass
        gather(None, patient=True)
        started, before, images = time.perf_counter(), time.process_time(), 0
        for epoch in range(1, epochs + 1):
            images += sum(len(batch) for batch in loader.epoch(epoch))
        cpu = time.process_time() - before
        gather(None, patient=True)
        return images, cpu, time.perf_counter() - started


def trained(data: Path, out: Path, model: str) -> dict[str, Any]:
    """Losses of all steps of a short run, and its last epoch."""
    losses: list[float] = []
    gradients = TrainState.gradients

    def noted(state: TrainState, batch: Batch, due: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        loss, correct = gradients(state, batch, due)
        losses.append(loss.item())
        return loss, correct

    with patch.object(TrainState, "gradients", noted), patch.object(run_module, "draw", lambda *_: None):
        summary = train(data, out=out, settings={**_SETTINGS, "model.name": model}).summary
    return {"losses": losses, **{key: summary["history"][-1][key] for key in ("val_loss", "val_acc")}}


def as_loaders(data: Path, folder: Path, size: int, rounds: int, epochs: int) -> dict[str, Any]:
    """Images/s of one rank with two threads and of two with one each, in turn, and CPU time of an image."""
    speeds: dict[str, list[float]] = {"1 rank x 2 cores": [], "2 ranks x 1 core": []}
    cpu: dict[str, list[float]] = {name: [] for name in speeds}
    for _ in range(rounds):
        for name, count in zip(speeds, (1, 2), strict=True):
            parts = crew.start(count, folder, drawn, data, 3 - count, size, epochs).results(600)
            images = sum(part[0] for part in parts)
            speeds[name].append(images / max(seconds for *_, seconds in parts))
            cpu[name].append(1000 * sum(busy for _, busy, _ in parts) / images)
    medians = {name: statistics.median(measured) for name, measured in speeds.items()}
    one, two = medians.values()
    return {
        "images_per_sec": speeds,
        "cpu_ms_per_image": {name: statistics.median(measured) for name, measured in cpu.items()},
        "median": medians,
        "ratio": two / one,
    }


def as_training(data: Path, folder: Path) -> list[dict[str, Any]]:
    """What training on several ranks gives beside one process, network by network."""
    rows = []
    for about, model in _NETWORKS.items():
        results = {
            count: crew.start(count, folder, trained, data, folder / f"{model}-{count}", model).results(600)[
                0
            ]
            for count in _RANKS
        }
        alone = results[1]
        for count, result in results.items():
            pairs = zip(result["losses"], alone["losses"], strict=True)
            apart = [abs(loss - other) for loss, other in pairs]
            rows.append(
                {
                    "model": model,
                    "about": about,
                    "ranks": count,
                    "samples_per_rank": _SETTINGS["train.batch_size"] // count,
                    "steps": len(apart),
                    "most_loss_difference": max(apart),
                    "mean_loss_difference": statistics.mean(apart),
                    "val_loss": result["val_loss"],
                    "val_acc": result["val_acc"],
                }
            )
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224, help="of the images of the loaders, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="per round")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    data = args.data.resolve()
    with tempfile.TemporaryDirectory(prefix="ranks-") as place:
        folder = Path(place)
        result = {
            "kind": "ranks",
            "schema": SCHEMA,
            "environment": environment(torch.device("cpu")),
            "data": describe_photos(Photos(data), data.name),
            "loaders": as_loaders(data, folder, args.size, args.rounds, args.epochs),
            "training": as_training(data, folder),
        }
    write_results(args.out, result)
    print(f"2 ranks x 1 core: {result['loaders']['ratio']:.3f} of 1 rank x 2 cores")
    for row in result["training"]:
        print({key: row[key] for key in ("model", "ranks", "most_loss_difference", "val_loss", "val_acc")})


if __name__ == "__main__":
    main()
