"""Images/s of many ranks, from what one costs: measured here on one and two, predicted for 8 and 64 GPUs.

    python benchmarks/scale.py DATA --out benchmarks/results/scale-NAME.json

Measured, each rank on a core of its own: the loader and training on one rank, the time in which two ranks add
up their gradients, and then the loader and training on two, which is what was to be predicted. What is
predicted for GPUs is arithmetic on results files: see benchmarks/scale_model.py.
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

import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ranks import drawn
from benchmarks.scale_model import Costs, images_per_sec
from benchmarks.torture import crew
from flowerfast import ranks
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.photos.photos import Photos
from flowerfast.training import run as run_module
from flowerfast.training.run import train

MODEL = "resnet10t"
BATCH = 32
"""Images of a rank."""
_SETTINGS = {
    "model.name": MODEL,
    "model.pretrained": False,
    "data.image_size": 64,
    "data.workers": 1,
    "train.epochs": 3,
    "train.device": "cpu",
}
_ROUNDS = 20  # of adding up gradients


def gradient_bytes(model: str) -> int:
    """Of a network, in float32."""
    with torch.device("meta"):
        network = timm.create_model(model)
    return 4 * sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def _on_one_core() -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ.get("RANK", "0")) % len(cores)]})


def loaded(data: Path, size: int) -> tuple[int, float, float]:
    """What a rank has drawn on a core of its own, see `drawn`."""
    _on_one_core()
    return drawn(data, 1, size, 2)


def trained(data: Path, out: Path, count: int) -> float:
    """Images/s of a short run, of all ranks."""
    _on_one_core()
    settings = {**_SETTINGS, "train.batch_size": BATCH * count}
    with patch.object(run_module, "draw", lambda *_: None):
        return float(train(data, out=out, settings=settings).summary["images_per_sec"])


def added(model: str) -> float:
    """Seconds in which ranks add up the gradients of a network; median."""
    _on_one_core()
    gradients, taken = torch.zeros(gradient_bytes(model) // 4), []
    with ranks.joined():
        for _ in range(_ROUNDS):
            ranks.gather(None, patient=True)
            started = time.perf_counter()
            torch.distributed.all_reduce(gradients)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[2:])


def measure(data: Path, folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """One rank and two, in turns, and what one predicts of two."""
    rates: dict[str, list[float]] = {f"{what}, {n}": [] for what in ("loader", "training") for n in (1, 2)}
    for number in range(rounds):
        for count in (1, 2):
            parts = crew.start(count, folder, loaded, data, size).results(900)
            rates[f"loader, {count}"].append(sum(n for n, *_ in parts) / max(s for *_, s in parts))
            out = folder / f"run-{number}-{count}"
            rates[f"training, {count}"].append(
                crew.start(count, folder, trained, data, out, count).results(900)[0]
            )
        print({what: round(found[-1], 1) for what, found in rates.items()}, flush=True)
    exchange = max(crew.start(2, folder, added, MODEL).results(300))
    median = {what: statistics.median(found) for what, found in rates.items()}
    alone = Costs(median["loader, 1"], median["training, 1"], BATCH, exchange)
    # Training of one rank has its loader in it: what it trains with photos at hand is not less.
    predicted = {
        "loader": 2 * alone.loader,
        "training": images_per_sec(Costs(float("inf"), alone.model, BATCH, exchange), 2),
    }
    return {
        "images_per_sec": rates,
        "median": median,
        "exchange_seconds": exchange,
        "gradient_bytes": gradient_bytes(MODEL),
        "predicted": predicted,
        "error": {what: rate / median[f"{what}, 2"] - 1 for what, rate in predicted.items()},
    }


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224, help="of the images of the loader, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    data = args.data.resolve()
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        measured = measure(data, Path(place), args.size, args.rounds)
    result = {
        "kind": "scale",
        "schema": SCHEMA,
        "environment": environment(torch.device("cpu")),
        "data": describe_photos(Photos(data), data.name),
        "model": MODEL,
        "batch": BATCH,
        **measured,
    }
    write_results(args.out, result)
    print({what: f"{error:+.1%}" for what, error in result["error"].items()})


if __name__ == "__main__":
    main()
