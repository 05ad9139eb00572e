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
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.augment import Augment
from flowerfast.bench.child import Child, Variant
from flowerfast.bench.environment import SCHEMA, environment, write_results
from flowerfast.bench.rounds import timed
from flowerfast.bench.usage import memory_bytes
from flowerfast.loaders.loader import Loader
from flowerfast.machine import user_cache_dir
from flowerfast.photos.listing import list_photos
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import make_plan
from flowerfast.training.split_file import read_split, write_split

HOURS = 4 * 3600.0
MARKS = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of an epoch at which memory is looked at."""


def make_folder(root: Path, count: int) -> None:
    """`count` JPEGs of 8 x 8 pixels in ten class folders."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 160, 40)).save(picture, "JPEG")
    for kind in range(10):
        folder = root / f"class_{kind}"
        folder.mkdir(parents=True)
        for i in range(count // 10):
            (folder / f"{6_000_000 + i}_8576bf_n.jpg").write_bytes(picture.getvalue())


def seconds(task: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of a call."""
    return median(timed(task, repeats))


def growth(root: str, batches: int) -> dict[str, Any]:
    """All figures of one folder, in this process."""
    scan = seconds(lambda: Photos(root), 1)
    load = seconds(lambda: Photos(root))
    photos = Photos(root)
    (cache,) = (user_cache_dir() / "manifests").iterdir()
    columns = [value for value in vars(photos.table).values() if isinstance(value, np.ndarray)]
    return {
        "photos": len(photos),
        "first_scan_seconds": scan,
        "load_seconds": load,
        "of_which_listing_seconds": seconds(lambda: list_photos(Path(root))),
        "arrays_alone_seconds": seconds(lambda: dict(np.load(cache).items())),
        "bytes_per_sample": sum(column.nbytes for column in columns) / len(photos),
        **before_first_batch(photos),
        "first_batch_seconds": first_batch(photos),
        "workers": epoch_memory(photos, batches),
    }


def before_first_batch(photos: Photos) -> dict[str, float]:
    """Seconds of what a run does once with all samples."""
    file, halves = user_cache_dir() / "split.json", photos.split()
    figures = {
        "make_split_seconds": seconds(photos.split),
        "write_split_seconds": seconds(lambda: write_split(*halves, file)),
        "read_split_seconds": seconds(lambda: read_split(file, photos)),
    }
    for size in (32, 256):
        chosen = np.random.default_rng(0).integers(0, len(photos), size)
        plan = (0, 1, chosen, photos.sizes(chosen), Augment(), 224)
        figures[f"plan_us_per_sample_batch_{size}"] = (
            median(timed(lambda p=plan: make_plan(*p), 51)) / size * 1e6
        )
    return figures


def open_loader(photos: Photos) -> Loader:
    """Loader of all photos with two workers."""
    return Loader(photos, size=32, augment=Augment(), device="cpu", backend="cpu", workers=2)


def first_batch(photos: Photos) -> float:
    """Seconds from the photos to the first batch, worker threads included; median of nine."""

    def first() -> None:
        with open_loader(photos) as loader:
            next(loader.epoch(0))

    with open_loader(photos) as loader:
        loader.warm_up()  # waits for the compiled loops
    first()  # imports, thread pools
    return seconds(first, 9)


def epoch_memory(photos: Photos, batches: int) -> dict[str, Any]:
    """Memory of this process that no file backs, in MiB, as an epoch goes on."""
    taken = []
    with open_loader(photos) as loader:
        count = min(batches, len(loader))
        marks = {round(count * share): share for share in MARKS}
        for done, _ in enumerate(loader.epoch(0), 1):
            if done in marks:
                held = memory_bytes(os.getsid(0)) or 0
                taken.append({"share": marks[done], "mib": round(held / 2**20, 2)})
            if done == count:
                break
    return {"batches": count, "memory": taken}


def main() -> None:
    """Make each folder, measure it in a process of its own, delete it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--folder", type=Path, help="where the photos are made; default: a temporary folder")
    parser.add_argument("--batches", type=int, default=2000, help="most batches of the epoch to go through")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    sizes = []
    for size in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            root = Path(folder) / "photos"
            make_folder(root, size)
            options = {"root": str(root), "batches": args.batches}
            variant = Variant(str(size), "benchmarks.growth:growth", options)
            with Child(variant, {"FLOWERFAST_CACHE": f"{folder}/cache"}) as child:
                sizes.append(child.call(HOURS))
            print(json.dumps(sizes[-1], indent=1), flush=True)
            shutil.rmtree(root)
    if args.out:
        env = environment(torch.device("cpu"))
        write_results(args.out, {"schema": SCHEMA, "kind": "growth", "environment": env, "sizes": sizes})


if __name__ == "__main__":
    main()
