"""Trained here, served there: one trained run, and photos decoded and resized by other people's libraries.

    python benchmarks/serving.py RUN DATA [--photos N] [--only NAME[;NAME]] [--out FILE]

DATA is a folder of class folders of photos that the run was not trained on, larger than what the network
takes; with --photos N of them, evenly spread. A way that is not installed where it runs is named as that.
"""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decoder_calls import DECODERS
from benchmarks.serving_ways import WAYS
from flowerfast.bench.environment import describe_photos, environment, write_results
from flowerfast.bench.sources import sample
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import make_eval_plan
from flowerfast.training.evaluation import answer
from flowerfast.training.trained import TrainedModel, load_run

RESULTS = Path(__file__).resolve().parent / "results" / "serving.json"
_PACKAGES = (
    *("opencv-python-headless", "torchcodec", "spdl-io", "nvidia-dali-cuda120", "onnxruntime"),
    "tensorflow-cpu",
)
_TOGETHER = 32


def made(name: str, files: list[Path], size: int, crop_pct: float) -> np.ndarray:
    """See `squares`. SPDL works in a process of its own: it does not live beside DALI."""
    if WAYS[name].decoder != "SPDL":
        return squares(name, files, size, crop_pct)
    with get_context("spawn").Pool(1) as apart:
        found = apart.apply(squares, (name, files, size, crop_pct))
        apart.close()
        apart.join()  # or it would be killed, and print where it was
    return found


def squares(name: str, files: list[Path], size: int, crop_pct: float) -> np.ndarray:
    """Photos as the network takes them, uint8 (n, S, S, 3)."""
    way = WAYS[name]
    decode, resize = DECODERS[way.decoder].make(), way.resize()
    found = np.zeros((len(files), size, size, 3), np.uint8)
    for square, file in zip(found, files, strict=True):
        pixels = np.ascontiguousarray(decode(file.read_bytes()))
        sides = np.array([pixels.shape[1]]), np.array([pixels.shape[0]])
        plan = make_eval_plan(np.zeros(1), sides, size, crop_pct)
        top, left = int(plan.from_row[0]), int(plan.from_column[0])
        whole = resize(pixels, int(plan.out_height[0]), int(plan.out_width[0]))
        square[...] = whole[top : top + size, left : left + size]
    return found


def answered(trained: TrainedModel, images: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (n, classes)."""
    found = []
    for start in range(0, len(images), _TOGETHER):
        part = torch.from_numpy(images[start : start + _TOGETHER]).permute(0, 3, 1, 2)
        with torch.inference_mode():
            found.append(answer(trained.model, part, trained.flip).softmax(1).numpy())
    return np.concatenate(found)


def compared(found: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """How far squares are from those of training, in levels of 255, and how many values differ."""
    apart = np.abs(found.astype(np.int16) - base)
    shares = {"differ": (apart > 0).mean(), "beyond_one": (apart > 1).mean(), "mean": apart.mean()}
    return {**{name: round(float(value), 5) for name, value in shares.items()}, "most": int(apart.max())}


def measure(run: Path, photos: Photos, chosen: list[str]) -> dict[str, Any]:
    """One row for each way; the first is training's own."""
    trained = load_run(run, "cpu")
    files = [photos.root / photos.path(int(index)) for index in photos.indices]
    labels = np.array([trained.classes.index(photos.classes[label]) for label in photos.labels.tolist()])
    rows: dict[str, Any] = {}
    base = expected = None
    for name, way in WAYS.items():
        if name not in chosen:
            continue
        if lacking := way.missing():
            rows[name] = {"missing": f"{lacking} is not installed"}
            continue
        print(name, flush=True)
        images = made(name, files, trained.image_size, trained.crop_pct)
        if base is None or expected is None:
            base, expected = images, answered(trained, images)
        # A photo of the same pixels has the same answer.
        other = np.flatnonzero((images != base).reshape(len(base), -1).any(1))
        chances = expected.copy()
        if len(other):
            chances[other] = answered(trained, images[other])
        top = expected.argmax(1)
        rows[name] = {
            **compared(images, base),
            "top1": round(float((chances.argmax(1) == labels).mean()), 5),
            "changed": round(float((chances.argmax(1) != top).mean()), 5),
            "shift": round(float(np.abs(chances - expected)[np.arange(len(top)), top].mean()), 5),
        }
    architecture = str(trained.model.network.pretrained_cfg["architecture"])
    return {"model": architecture, "image_size": trained.image_size, "ways": rows}


def main(arguments: list[str] | None = None) -> int:
    """Writes the results file. Exit code 2: run or photos cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("data", type=Path, help="folder of class folders that it was not trained on")
    parser.add_argument("--photos", type=int, metavar="N", help="so many of them; all if not given")
    parser.add_argument("--only", help="ways, separated by ;")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    given = parser.parse_args(arguments)
    only = given.only.split(";") if given.only else []
    chosen = [name for number, name in enumerate(WAYS) if not only or not number or name in only]
    try:
        photos = Photos(given.data, exif="ignore")
        photos = sample(photos, given.photos) if given.photos else photos
        result = measure(given.run, photos, chosen)
    except UserError as error:
        print(f"serving.py: error: {error}", file=sys.stderr)
        return 2
    packages = tuple(name for name in _PACKAGES if _there(name))
    env = environment(torch.device("cpu"), packages)
    head = {"kind": "serving", "environment": env, "data": describe_photos(photos, given.data.name)}
    write_results(given.out, {**head, **result})
    return 0


def _there(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
