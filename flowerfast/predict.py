"""A trained run at work: evaluate it on a folder, predict single photos.

Preprocessing (size, crop, mean, standard deviation, class names) comes from the folder that was saved with
the weights, never from the caller.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError

from flowerfast.checkpoint import RunFolder
from flowerfast.config import DataConfig
from flowerfast.data.listing import SUFFIXES
from flowerfast.data.manifest import BadFile, Manifest, Progress, load_manifest, read_size
from flowerfast.data.plan import make_eval_plan
from flowerfast.data.split import read_split
from flowerfast.errors import UserError
from flowerfast.loaders import BadFiles, Recipe, choose_backend, make_loader
from flowerfast.loaders.decode import DecodeError, decode
from flowerfast.loaders.torchvision import resize_and_crop
from flowerfast.model import Classifier, with_normalisation
from flowerfast.scores import classification_report
from flowerfast.train import evaluate
from flowerfast.trainer import Precision


@dataclass(frozen=True)
class Trained:
    """A trained classifier and what it expects.

    Attributes:
        model: uint8 (N, 3, S, S) to logits (N, classes), in evaluation mode.
        classes: names of the logits.
        image_size, crop_pct: of the evaluation plan.
        device: where the model is.
    """

    model: Classifier
    classes: tuple[str, ...]
    image_size: int
    crop_pct: float
    device: torch.device


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one photo, best first: (name, probability)."""

    path: str
    top: tuple[tuple[str, float], ...]


def load_trained(run: Path, device: torch.device) -> Trained:
    """Best model of a run folder (or of its best/). Raises UserError when there is none."""
    folder = run / "best" if (run / "best").is_dir() else run
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        cfg, classes = stored["pretrained_cfg"], tuple(stored["label_names"])
        network = timm.create_model(f"local-dir:{folder}", pretrained=True)  # else random weights
        size, crop_pct = int(cfg["input_size"][-1]), float(cfg["crop_pct"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{run}: no trained model there ({reason}); give the --out folder of a finished epoch"
        ) from error
    model = with_normalisation(network).to(device).eval()
    return Trained(model, classes, size, crop_pct, device)


def evaluate_run(
    run: Path,
    data: Path,
    settings: DataConfig,
    device: torch.device,
    half: str,
    batch_size: int,
    bar: Progress | None,
) -> dict[str, Any]:
    """Accuracy of a run's best model on a folder of class folders, on clean images.

    `half` is "all", or "train" or "val" for that half of the run's own split. Classes are matched by name;
    the model may know more than the folder has. Raises UserError when a folder is no class of the model.
    """
    trained = load_trained(run, device)
    manifest = load_manifest(data, settings.max_pixels, bar, min_classes=1)
    unknown = [name for name in manifest.classes if name not in trained.classes]
    if unknown:
        raise UserError(
            f"{data / unknown[0]}: the model knows no such class; it knows {', '.join(trained.classes)}"
        )
    indices = _half(run, manifest, half)
    choice = choose_backend(settings, device)
    bad = BadFiles(manifest, settings.on_bad, settings.max_bad)
    recipe = Recipe(trained.image_size, batch_size, crop_pct=trained.crop_pct)
    relabelled = manifest.with_labels(trained.classes)
    loader = make_loader(choice, relabelled, indices, recipe, settings, device, bad)
    started = time.perf_counter()
    try:
        precision = Precision.choose("auto", device)
        result = evaluate(trained.model, loader.epoch(0), len(trained.classes), precision)
    finally:
        loader.close()
    return {
        "data": str(data),
        "half": half,
        "samples": int(result.confusion.sum()),
        "loss": result.loss,
        **classification_report(result.confusion, trained.classes),
        "classes": list(trained.classes),
        "confusion": result.confusion.tolist(),
        "bad_files": [{"path": b.path, "error": b.error} for b in (*manifest.bad, *bad.found.values())],
        "backend": choice.backend,
        "seconds": time.perf_counter() - started,
    }


def _half(run: Path, manifest: Manifest, half: str) -> np.ndarray:
    if half == "all":
        return np.arange(len(manifest))
    split = read_split(RunFolder(run).split, manifest)
    return split.train if half == "train" else split.val


def find_photos(arguments: Sequence[str]) -> list[Path]:
    """Photos named by files, folders (searched through) and glob patterns. Raises UserError for none."""
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_file():
            found.append(path)
            continue
        inside = path.rglob("*") if path.is_dir() else map(Path, glob(argument, recursive=True))
        photos = sorted(p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file())
        if not photos:
            what = "no photos in this folder" if path.is_dir() else "no such file, folder or pattern"
            raise UserError(
                f"{argument}: {what}; give photos ({', '.join(sorted(SUFFIXES))}), folders or globs"
            )
        found += photos
    return found


@torch.inference_mode()
def predict(
    trained: Trained, photos: Sequence[Path], top_k: int, max_pixels: int
) -> tuple[list[Prediction], list[BadFile]]:
    """The `top_k` most likely classes of each photo, and the files that cannot be read."""
    predictions, bad = [], []
    for path in photos:
        try:
            width, height = read_size(path, max_pixels)
            photo = decode(np.fromfile(path, np.uint8), width, height)
        except (OSError, ValueError, DecodeError) as error:
            bad.append(BadFile(str(path), str(error)))
            continue
        plan = make_eval_plan(
            np.zeros(1), (np.array([width]), np.array([height])), trained.image_size, trained.crop_pct
        )
        pixels = np.empty((trained.image_size, trained.image_size, 3), np.uint8)
        resize_and_crop(photo, plan, 0, pixels)
        images = torch.from_numpy(pixels).to(trained.device).permute(2, 0, 1)[None]
        chances = trained.model(images)[0].float().softmax(0)
        best = chances.topk(min(top_k, len(trained.classes)))
        names = [trained.classes[i] for i in best.indices.tolist()]
        predictions.append(Prediction(str(path), tuple(zip(names, best.values.tolist(), strict=True))))
    return predictions, bad
