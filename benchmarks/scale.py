"""Images/s of many ranks, from what one costs: measured here on one and two, predicted for 8 and 64 GPUs.

    python benchmarks/scale.py DATA --out benchmarks/results/scale-NAME.json

Measured, on two cores: the loader and training of one rank on each, that know nothing of each other and share
the memory of the machine; the time in which two ranks add up their gradients; and then two ranks of one run,
a core each, which is what was to be predicted. What is predicted for GPUs is arithmetic on results files: see
benchmarks/scale_model.py.
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
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.photos.photos import Photos
from flowerfast.ranks.meeting import joined
from flowerfast.ranks.telling import gather
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
    "train.epochs": 2,
    "train.device": "cpu",
}
_ROUNDS = 20  # of adding up gradients


def gradient_bytes(model: str) -> int:
    """Of a network, in float32."""
    with torch.device("meta"):
        network = timm.create_model(model)
    return 4 * sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def _on_one_core(first: int) -> None:
    """Keep to a core: rank 0 to the `first`, the others to those that follow."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(first + int(os.environ["RANK"])) % len(cores)]})


def loaded(first: int, data: Path, size: int) -> tuple[int, float, float]:
    """What a rank has drawn on a core of its own, see `drawn`."""
    _on_one_core(first)
    return drawn(data, 1, size, 8)


def trained(first: int, data: Path, folder: Path, count: int) -> float:
    """Images/s of a short run, of all ranks, in a new folder in `folder`."""
    _on_one_core(first)
    out = folder / f"run-{os.environ['MASTER_PORT']}"
    settings = {**_SETTINGS, "train.batch_size": BATCH * count}
    with patch.object(run_module, "draw", lambda *_: None):
        return float(train(data, out=out, settings=settings).summary["images_per_sec"])


def added(model: str) -> float:
    """Seconds in which ranks add up the gradients of a network; median."""
    _on_one_core(0)
    gradients, taken = torch.zeros(gradient_bytes(model) // 4), []
    with joined():
        for _ in range(_ROUNDS):
            gather(None, patient=True)
            started = time.perf_counter()
            torch.distributed.all_reduce(gradients)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[2:])


def measure(data: Path, folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Runs of one rank, a core each, and a run of two, in turns, and what one predicts of two."""
    rates: dict[str, list[float]] = {f"{what}, {n}": [] for what in ("loader", "training") for n in (1, 2)}
    for _ in range(rounds):
        for count in (1, 2):
            crews = [crew.start(count, folder, loaded, k, data, size) for k in range(0, 2, count)]
            drawn_by = [part for each in crews for part in each.results(900)]
            images, seconds = sum(n for n, *_ in drawn_by), max(s for *_, s in drawn_by)
            rates[f"loader, {count}"].append(images / seconds / len(crews))
            crews = [crew.start(count, folder, trained, k, data, folder, count) for k in range(0, 2, count)]
            rates[f"training, {count}"].append(statistics.mean(each.results(900)[0] for each in crews))
        print({what: round(found[-1], 1) for what, found in rates.items()}, flush=True)
    exchange = max(crew.start(2, folder, added, MODEL).results(300))
    median = {what: statistics.median(found) for what, found in rates.items()}
    errors = {
        what: [
            _of_two(what, one, exchange) / two - 1
            for one, two in zip(rates[f"{what}, 1"], rates[f"{what}, 2"], strict=True)
        ]
        for what in ("loader", "training")
    }
    return {
        "images_per_sec": rates,
        "median": median,
        "exchange_seconds": exchange,
        "gradient_bytes": gradient_bytes(MODEL),
        "predicted": {what: _of_two(what, median[f"{what}, 1"], exchange) for what in errors},
        "errors": errors,
    }


def _of_two(what: str, rate: float, exchange: float) -> float:
    """Images/s of two ranks, predicted from those of one."""
    if what == "loader":
        return 2 * rate
    # Training of one rank has its loader in it: what it trains with photos at hand is not less.
    return images_per_sec(Costs(float("inf"), rate, BATCH, exchange), 2)


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
    print({what: f"{statistics.median(errors):+.1%}" for what, errors in result["errors"].items()})


if __name__ == "__main__":
    main()
