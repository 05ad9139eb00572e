"""How fast do loaders, the training step and both together run on this machine? One run, one JSON.

    python benchmarks/speed.py DATA [--out benchmarks/results/speed-NAME.json] [--quick]

Loaders make the same batches from the same photos (all five augmentations, training size), each is warmed up
by a whole epoch, and rounds alternate between them; figures are medians with the lowest and highest round.
Every loader leaves its batch on the training device; the clock stops after the device is idle.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.errors import UserError
from flowerfast.loaders import BadFiles, Batch, Choice, Loader, Recipe, choose_backend, make_loader
from flowerfast.model import build_network, with_normalisation
from flowerfast.runs import device_name, pick_device, versions
from flowerfast.train import train_step
from flowerfast.trainer import Trainer
from flowerfast.waiting import WaitClock

Epochs = Callable[[int], Iterator[Batch]]
Result = dict[str, Any]
PAPER = "paper's recipe"


def paper_recipe(data: Path, args: argparse.Namespace, device: torch.device) -> Epochs:
    """The paper's loader: ImageFolder and DataLoader, a worker process per core, floats from the CPU."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(brightness=0.2, contrast=0.2),
            transforms.RandomAffine(0, translate=(0.1, 0.1)),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    loader = torch.utils.data.DataLoader(
        ImageFolder(str(data), chain),
        args.batch_size,
        shuffle=True,
        num_workers=args.cores,
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )

    def epoch(_: int) -> Iterator[Batch]:
        for images, labels in loader:
            images, labels = (x.to(device, non_blocking=True) for x in (images, labels))
            yield Batch(images, labels, torch.empty(len(labels)))

    return epoch


def our_loaders(manifest: Manifest, args: argparse.Namespace, device: torch.device) -> dict[str, Loader]:
    """Every executor and cache that this machine has."""
    recipe = Recipe(args.image_size, args.batch_size, 0, AugmentConfig(), shuffle=True)
    dali = "dali" if device.type == "cuda" else "dali-cpu"
    wanted: dict[str, tuple[str, str, dict[str, Any]]] = {
        "torchvision, threads": ("torchvision", "none", {"worker_kind": "threads"}),
        "torchvision, processes": ("torchvision", "none", {"worker_kind": "processes"}),
        "torchvision, ram cache": ("torchvision", "ram", {}),
        dali: (dali, "none", {}),
        f"{dali}, cache": (dali, "vram" if dali == "dali" else "ram", {}),
    }
    if dali == "dali":
        wanted |= {f"dali, decoder={d}": ("dali", "none", {"decoder": d}) for d in ("gpu", "cpu")}
        del wanted["dali"]
    loaders = {}
    for name, (backend, cache, more) in wanted.items():
        data = DataConfig(backend=backend, workers=args.workers, **more)
        try:
            choose_backend(data, device)
        except UserError as error:
            print(f"left out: {name}: {error}", flush=True)
            continue
        bad = BadFiles(manifest, "skip", 1.0)
        choice = Choice(backend, "benchmark", cache)
        loaders[name] = make_loader(choice, manifest, np.arange(len(manifest)), recipe, data, device, bad)
    return loaders


def synchronise(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rounds(
    tasks: dict[str, Callable[[int], tuple[int, float]]], args: argparse.Namespace
) -> dict[str, Result]:
    """Run the tasks in turn, `args.rounds` times; each returns (images, seconds)."""
    for name, task in tasks.items():
        started = time.perf_counter()
        task(0)
        print(f"  warm-up {name}: {time.perf_counter() - started:.1f} s", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for r in range(1, args.rounds + 1):
        for name, task in tasks.items():
            images, seconds = task(r)
            rates[name].append(images / seconds)
    return {name: summary(found) for name, found in rates.items()}


def summary(rates: list[float]) -> Result:
    """Median, lowest and highest of the rounds, in images/s."""
    return {
        "images_per_sec": statistics.median(rates),
        "low": min(rates),
        "high": max(rates),
        "rounds": rates,
    }


def time_epochs(
    epochs: Epochs, first: int, args: argparse.Namespace, device: torch.device
) -> tuple[int, float]:
    """Draw whole epochs for `args.seconds` at least: (images, seconds)."""
    synchronise(device)
    started, images, epoch = time.perf_counter(), 0, first * 1000
    while True:
        for batch in epochs(epoch):
            images += len(batch.labels)
        synchronise(device)
        epoch += 1
        if time.perf_counter() - started >= args.seconds or first == 0:
            return images, time.perf_counter() - started


def loader_suite(
    sources: dict[str, Epochs], args: argparse.Namespace, device: torch.device
) -> dict[str, Result]:
    """Whole loaders by themselves."""
    return rounds({n: (lambda r, e=e: time_epochs(e, r, args, device)) for n, e in sources.items()}, args)


def make_trainer(args: argparse.Namespace, device: torch.device, compiled: bool = False) -> Trainer:
    """Reference training: resnet18, AMP and channels_last on CUDA."""
    torch.manual_seed(0)
    network = build_network(ModelConfig(pretrained=False), [str(i) for i in range(5)], args.image_size, 0.875)
    model = with_normalisation(network).to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return Trainer(model, TrainConfig(schedule="constant", compile=compiled, lr=1e-4), device, 1)


def model_suite(args: argparse.Namespace, device: torch.device) -> dict[str, Result]:
    """Training steps on random uint8 pixels that lie on the device: the most that a loader could feed."""
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    generator = torch.Generator().manual_seed(0)
    images = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device).permute(0, 3, 1, 2)
    )
    labels = torch.randint(0, 5, (args.batch_size,), generator=generator).to(device)
    batch = Batch(images, labels, labels)

    def steps(trainer: Trainer, r: int) -> tuple[int, float]:
        synchronise(device)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < (args.seconds if r else 0) or count < 3:
            for _ in range(10 if device.type == "cuda" else 1):
                train_step(trainer, batch)
                count += 1
            synchronise(device)
        return count * args.batch_size, time.perf_counter() - started

    variants = {"eager": False} | ({"torch.compile": True} if device.type == "cuda" else {})
    trainers = {name: make_trainer(args, device, compiled) for name, compiled in variants.items()}
    return rounds({n: (lambda r, t=t: steps(t, r)) for n, t in trainers.items()}, args)


def train_suite(
    sources: dict[str, Epochs], args: argparse.Namespace, device: torch.device
) -> dict[str, Result]:
    """Real loader and real training step; `data_wait` is the share of the time without a batch."""
    waits: dict[str, list[float]] = {name: [] for name in sources}
    trainers = {name: make_trainer(args, device) for name in sources}
    if PAPER in trainers:  # its batches are normalised floats already
        trainers[PAPER].forward = trainers[PAPER].model.network

    def one(name: str, r: int) -> tuple[int, float]:
        synchronise(device)
        images, epoch, clock = 0, r * 1000 + 500, WaitClock(device)
        while True:
            for batch in clock.watch(sources[name](epoch)):
                train_step(trainers[name], batch)
                images += len(batch.labels)
            synchronise(device)
            epoch += 1
            if clock.total >= args.seconds or r == 0:
                seconds = clock.total
                if r:
                    waits[name].append(clock.waited() / seconds)
                return images, seconds

    results = rounds({name: (lambda r, n=name: one(n, r)) for name in sources}, args)
    return {name: {**result, "data_wait": statistics.median(waits[name])} for name, result in results.items()}


def environment(device: torch.device) -> Result:
    """What the figures depend on."""
    root = Path(__file__).resolve().parents[1]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "device": device_name(device),
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "versions": versions(),
        "git": git.stdout.strip() if git.returncode == 0 else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def show(title: str, results: dict[str, Result]) -> None:
    """One suite as text."""
    print(f"\n{title:32s} images/s      low     high")
    for name, r in results.items():
        wait = f"  waiting {r['data_wait']:.1%}" if "data_wait" in r else ""
        print(f"  {name:28s} {r['images_per_sec']:9,.0f} {r['low']:9,.0f} {r['high']:9,.0f}{wait}")


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument("--suite", default="loader,model,train", help="any of loader,model,train")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="least length of a measurement")
    parser.add_argument("--workers", type=int, default=0, help="threads of our loaders; 0: one per core")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    args.cores = len(os.sched_getaffinity(0))
    device = pick_device("auto")
    manifest = load_manifest(args.data)
    pixels = float((manifest.width.astype(np.int64) * manifest.height).mean())
    photos = {"folder": args.data.name, "photos": len(manifest), "mean_pixels": pixels}
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "out")}
    result: Result = {"schema": 1, "environment": environment(device), "data": photos, "settings": settings}
    loaders = our_loaders(manifest, args, device) if {"loader", "train"} & set(args.suite.split(",")) else {}
    sources: dict[str, Epochs] = {name: loader.epoch for name, loader in loaders.items()}
    if sources:
        sources = {PAPER: paper_recipe(args.data, args, device), **sources}
    if "loader" in args.suite:
        result["loader"] = loader_suite(sources, args, device)
        show("loader", result["loader"])
    if "model" in args.suite:
        result["model"] = model_suite(args, device)
        show("training step, synthetic pixels", result["model"])
    if "train" in args.suite:
        result["train"] = train_suite(sources, args, device)
        show("training", result["train"])
    for loader in loaders.values():
        loader.close()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
