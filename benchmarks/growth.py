"""What does a sample cost when there are many? Folders of a thousand to a million tiny photos.

    python benchmarks/growth.py [--sizes 1000,10000] [--out benchmarks/results/growth-NAME.json]

Each photo is a file of its own (an inode each, no links), 10 class folders, file names of 20 characters. A
process per size: the header scan, then loads with a valid cache, what comes before the first batch, the first
batch itself, and the memory of the process as two workers go through an epoch (or `--batches` of it). A
million files take 4 GB in `--folder` and are deleted at the end.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.listing import list_photos
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.plan import make_plan
from flowerfast.data.split import make_split, read_split, write_split
from flowerfast.loaders import BadFiles, Choice, Recipe, make_loader
from flowerfast.runs import versions

RECIPE = Recipe(32, 32, 0, AugmentConfig(), shuffle=True)
CPU = torch.device("cpu")


def make_folder(root: Path, count: int) -> None:
    """`count` JPEGs of 8 x 8 pixels in ten class folders."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 160, 40)).save(picture, "JPEG")
    content = picture.getvalue()
    for kind in range(10):
        folder = root / f"class_{kind}"
        folder.mkdir(parents=True)
        for i in range(count // 10):
            with open(folder / f"{6_000_000 + i}_8576bf_n.jpg", "wb") as file:
                file.write(content)


def timed(task: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """(median seconds, last result)."""
    seconds, result = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        result = task()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def measure(root: Path, batches: int) -> dict[str, Any]:
    """All figures of one folder, in this process."""
    scan, _ = timed(lambda: load_manifest(root), 1)
    load, manifest = timed(lambda: load_manifest(root))
    listing, _ = timed(lambda: list_photos(root))
    (cache,) = (Path(os.environ["FLOWERFAST_CACHE"]) / "manifests").iterdir()
    arrays, _ = timed(lambda: dict(np.load(cache).items()))
    held = sum(value.nbytes for value in vars(manifest).values() if isinstance(value, np.ndarray))
    return {
        "photos": len(manifest),
        "first_scan_seconds": scan,
        "load_seconds": load,
        "of_which_listing_seconds": listing,
        "arrays_alone_seconds": arrays,
        "bytes_per_sample": held / len(manifest),
        **before_first_batch(manifest),
        **first_batch(manifest),
        "workers": workers(manifest, batches),
    }


def before_first_batch(manifest: Manifest) -> dict[str, float]:
    """Seconds of what a run does once with all samples."""
    file = Path(os.environ["FLOWERFAST_CACHE"]) / "split.json"
    split_seconds, split = timed(lambda: make_split(manifest, 0.2, 0))
    write, _ = timed(lambda: write_split(split, manifest, file))
    read, _ = timed(lambda: read_split(file, manifest))
    result = {"make_split_seconds": split_seconds, "write_split_seconds": write, "read_split_seconds": read}
    for size in (32, 256):
        chosen = np.random.default_rng(0).integers(0, len(manifest), size)
        sizes = manifest.width[chosen], manifest.height[chosen]
        seconds, _ = timed(lambda c=chosen, s=sizes: make_plan(0, 1, c, s, AugmentConfig(), 224), 51)
        result[f"plan_us_per_sample_batch_{size}"] = seconds / size * 1e6
    return result


def open_loader(manifest: Manifest) -> Any:
    """Loader of all photos with two workers."""
    data = DataConfig(workers=2)
    bad = BadFiles(manifest, "fail", 0)
    return make_loader(
        Choice("torchvision", "benchmark"), manifest, np.arange(len(manifest)), RECIPE, data, CPU, bad
    )


def first_batch(manifest: Manifest) -> dict[str, float]:
    """Seconds from the manifest to the first batch, worker threads included; median of nine."""

    def first() -> None:
        loader = open_loader(manifest)
        next(loader.epoch(0))
        loader.close()

    first()  # imports, thread pools
    return {"first_batch_seconds": timed(first, 9)[0]}


def workers(manifest: Manifest, batches: int) -> dict[str, Any]:
    """Memory that the process alone holds (USS, MiB), as an epoch goes on."""
    loader, taken = open_loader(manifest), []
    count = min(batches, len(loader))
    marks = {round(count * share): share for share in (0.1, 0.25, 0.5, 0.75, 1.0)}
    for done, _ in enumerate(loader.epoch(0), 1):
        if done in marks:
            uss = psutil.Process().memory_full_info().uss
            taken.append({"share": marks[done], "mib": round(uss / 2**20, 2)})
        if done == count:
            break
    loader.close()
    return {"batches": count, "memory": taken}


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu, "cores": cores, "versions": versions(), "date": time.strftime("%Y-%m-%d")}


def main() -> None:
    """Make each folder, measure it in a process of its own, delete it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--folder", type=Path, help="where the photos are made; default: a temporary folder")
    parser.add_argument("--batches", type=int, default=2000, help="most batches of the epoch to go through")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.batches)))
        return
    results = []
    for size in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            root = Path(folder) / "photos"
            make_folder(root, size)
            env = {**os.environ, "FLOWERFAST_CACHE": f"{folder}/cache"}
            command = [sys.executable, __file__, "--measure", str(root), "--batches", str(args.batches)]
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout))
            print(json.dumps(results[-1], indent=1), flush=True)
            shutil.rmtree(root)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": 1, "environment": environment(), "sizes": results}, indent=1)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
