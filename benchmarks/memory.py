"""Does memory grow from epoch to epoch? Each loader for twenty epochs, in a process of its own, some times.

    python benchmarks/memory.py DATA [--out benchmarks/results/memory-NAME.json]

After each epoch, from /proc/self/status in MiB: RssAnon, memory that the process alone asked for (heap,
stacks, buffers), where a leak or a growing pool shows; RssFile, pages of mapped libraries and files, which
the kernel drops and reads again as it sees fit; VmRSS, their sum with shared memory.

The backend dali-cpu-malloc is dali-cpu with DALI's own choice of where buffers come from, see
flowerfast/loaders/dali_memory.py. With --rounds the backends are also timed, in turns.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.child import Variant
from flowerfast.bench.measure import Pace, Row
from flowerfast.bench.measure import measure as measure_pace
from flowerfast.bench.rounds import Source
from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders import BadFiles, Choice, Recipe, make_loader
from flowerfast.runs import versions

DEFAULT_POOL = {"DALI_MALLOC_POOL_THRESHOLD": "32M"}
"""What DALI 2.4 does when the environment says nothing."""
FIELDS = {"rss": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem"}


def memory() -> dict[str, float]:
    """This process's resident memory in MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[field].split()[0]) / 1024 for name, field in FIELDS.items()}


def measure(args: argparse.Namespace, backend: str) -> list[dict[str, float]]:
    """Memory after each epoch of one loader, in this process."""
    manifest = load_manifest(args.data)
    recipe = Recipe(args.image_size, args.batch_size, 0, AugmentConfig(), shuffle=True)
    choice, bad = Choice(backend, "benchmark", args.cache), BadFiles(manifest, "skip", 1.0)
    data = DataConfig(workers=args.workers)
    indices = np.arange(len(manifest))
    loader = make_loader(choice, manifest, indices, recipe, data, torch.device("cpu"), bad)
    taken = []
    for epoch in range(args.epochs):
        for _ in loader.epoch(epoch):
            pass
        taken.append(memory())
    loader.close()
    return taken


def summary(taken: list[dict[str, float]]) -> dict[str, Any]:
    """Change from the third epoch to the last, and between the extremes since the third, in percent of it."""
    result: dict[str, Any] = {"epochs": taken}
    for name in ("rss", "anonymous", "file"):
        since = [row[name] for row in taken[2:]]
        result[name] = {
            "after_epoch_3_mib": since[0],
            "at_the_end_mib": since[-1],
            "change_percent": 100 * (since[-1] / since[0] - 1),
            "spread_percent": 100 * (max(since) - min(since)) / since[0],
        }
    return result


def own(backend: str) -> tuple[str, dict[str, str]]:
    """The loader that a backend of this benchmark stands for, and its variables."""
    loader = backend.removesuffix("-malloc")
    return loader, {} if loader == backend else DEFAULT_POOL


def runs(args: argparse.Namespace, backend: str) -> list[dict[str, Any]]:
    """Summaries of so many processes, one after the other."""
    loader, variables = own(backend)
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", loader]
    found = []
    for _ in range(args.runs):
        environment = {**os.environ, **variables}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        found.append(summary(json.loads(done.stdout)))
        for name in ("rss", "anonymous", "file"):
            row = found[-1][name]
            start, end = row["after_epoch_3_mib"], row["at_the_end_mib"]
            change, spread = row["change_percent"], row["spread_percent"]
            print(f"{backend:15s} {name:10s} {start:7.1f} MiB after epoch 3, {end:7.1f} at the end", end=" ")
            print(f"({change:+.1f} %), spread {spread:.1f} %", flush=True)
    return found


def with_variables(data: str, settings: list[str], variables: dict[str, str]) -> Source:
    """A loader's batches, in a process that has set variables before DALI asks for them."""
    os.environ.update(variables)
    from flowerfast.bench.sources import loader

    return loader(data, settings)


def pace(args: argparse.Namespace, backends: list[str]) -> dict[str, Row]:
    """Images/s of the backends in turns, by their names."""
    settings = {
        "data.image_size": args.image_size,
        "data.cache": args.cache,
        "data.workers": args.workers,
        "train.batch_size": args.batch_size,
    }
    variants = []
    for backend in backends:
        loader, variables = own(backend)
        overrides = [f"{name}={value}" for name, value in {**settings, "data.backend": loader}.items()]
        options = {"data": str(args.data.resolve()), "settings": overrides, "variables": variables}
        variants.append(Variant(backend, "benchmarks.memory:with_variables", options))
    rows = measure_pace(variants, Pace(args.rounds, args.seconds))
    for name, row in rows.items():
        told = row.get("error") or f"{row['images_per_sec']:,.0f} ± {row['spread']:.0f} images/s"
        print(f"{name:15s} {told}", flush=True)
    return rows


def parsed() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument(
        "--backends", default="dali-cpu,torchvision", help="dali-cpu, dali-cpu-malloc, torchvision"
    )
    parser.add_argument("--cache", default="none", help="none, ram or disk")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=1, help="processes per backend")
    parser.add_argument("--rounds", type=int, default=0, help="for images/s; 0: not timed")
    parser.add_argument("--seconds", type=float, default=1.5, help="least length of a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=0, help="0: one per core")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epochs < 4 or args.runs < 1:
        parser.error("--epochs must be at least 4, --runs at least 1")
    return args


def main() -> None:
    """Measure each backend in a process of its own."""
    args = parsed()
    if args.measure:
        print(json.dumps(measure(args, args.measure)))
        return
    backends = args.backends.split(",")
    loaders = {backend: runs(args, backend) for backend in backends}
    speed = pace(args, backends) if args.rounds else {}
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "out", "measure")}
    settings["photos"], settings["folder"] = len(load_manifest(args.data)), args.data.name
    cores = len(os.sched_getaffinity(0))
    malloc = {k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "DALI_"))}
    about = {"cores": cores, "malloc": malloc, "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    result = {"schema": 2, "environment": about, "settings": settings, "loaders": loaders, "speed": speed}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
