"""A trained run asked about labelled photos: a folder, shards, or a half of its own split."""

import time
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from flowerfast.arguments import of_kind, place, whole
from flowerfast.config import DataConfig, EvalConfig
from flowerfast.errors import UserError
from flowerfast.loaders.loader import Loader
from flowerfast.machine import Progress
from flowerfast.photos.layout import nfc
from flowerfast.photos.open_table import has_columns
from flowerfast.photos.photos import Photos
from flowerfast.places import is_table, spelled
from flowerfast.training.evaluation import Evaluation, LabelEvaluation, evaluate_labels
from flowerfast.training.evaluation import evaluate as evaluate_model
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.split_file import read_split
from flowerfast.training.state import Precision
from flowerfast.training.trained import TrainedModel, load_run

Half = Literal["all", "train", "val", "test"]


def evaluate(
    run: Path | str,
    data: Path | str,
    *,
    half: Half = "all",
    batch_size: int = 64,
    device: str | torch.device = "auto",
    options: DataConfig | None = None,
    protocol: EvalConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy of a run's best model on a folder of class folders, on clean images.

    Classes are matched by name; the model may know more than the folder has.

    Args:
        run: run folder, or its best/.
        data: folder of class folders, or shards.
        half: "all" photos, "train" or "val" for that half of the run's own split, or "test" for those in the
            test/ of `data`.
        batch_size: samples per batch.
        device: auto, cpu or cuda.
        options: settings of section `data`: backend, workers, on_bad, ...; the image size and whether EXIF
            orientation is applied are the model's.
        protocol: settings of section `eval`: those of image_size, crop_pct, flip and threshold that it was
            given take the place of the model's.
        progress: is told (files looked at, files in all) at the first scan.

    Returns the content of `flowerfast evaluate --json`: loss, accuracy, top5 (of more than five classes),
    macro_f1 and per class precision, recall and f1 as shares of 1, accuracy_interval and macro_f1_interval
    (`scores.intervals`, seed 0), calibration (`calibration.Calibration`), confusion (the pairs of classes
    that occur: places in `classes` of the true and the predicted one, and the count), bad_files, notes. Of
    several labels a photo: loss, accuracy (share of right decisions), map, macro_f1, micro_f1, and per class
    average_precision too (None: no photo has it), counts at `threshold`; no confusion, no calibration.
    Raises UserError when a folder is no class of the model, or the photos are not those of the split.
    """
    if half not in get_args(Half):
        raise UserError(f"half={half!r}: give one of {', '.join(get_args(Half))}")
    of_kind("options", options, DataConfig | None, "ff.DataConfig(...)")
    batch_size = whole("batch_size", batch_size, 1)
    started, data, settings = time.perf_counter(), place("data", data), options or DataConfig()
    trained = load_run(run, device).at(EvalConfig() if protocol is None else protocol)
    settings = settings.model_copy(
        update={"exif": trained.exif, "classes": _classes(Path(run), half, settings)}
    )
    settings = _as_labelled(Path(run), Path(data), half, settings)
    photos = Photos.open(data, settings, progress, min_classes=1)
    check_classes(trained, photos)
    taken = trained.classes
    if trained.multilabel:  # of one label a photo an answer beyond those there is a mistake
        there = {*map(nfc, photos.classes)}
        taken = tuple(name for name in taken if nfc(name) in there)
    part = _half(Path(run), photos, half).with_classes(taken)
    with evaluation_loader(trained, part, batch_size, settings) as loader:
        result = answers(trained, loader)
    return {
        "data": spelled(data),
        "half": half,
        "samples": result.samples,
        **result.report(taken),
        "image_size": trained.image_size,
        "crop_pct": trained.crop_pct,
        "flip": trained.flip,
        "classes": list(taken),
        "bad_files": [{"path": b.path, "error": b.error} for b in photos.bad],
        "notes": loader.notes,
        "backend": loader.backend,
        "seconds": time.perf_counter() - started,
    }


def check_classes(trained: TrainedModel, photos: Photos) -> None:
    """Raise UserError where photos are of a class that the model does not know, or have one label a photo
    where it gives several, or the other way round.
    """
    if photos.multilabel != trained.multilabel:
        there, here = ("several labels", "one") if photos.multilabel else ("one label", "several")
        raise UserError(
            f"{photos.source}: {there} a photo, and the model gives {here}; see data.label_separator and "
            "data.label_columns"
        )
    known = {*map(nfc, trained.classes)}
    unknown = [name for name in photos.classes if nfc(name) not in known]
    if unknown:
        where, classes = photos.table.inside(unknown[0]), ", ".join(trained.classes)
        if photos.table.file is not None or photos.multilabel:
            where = f"{photos.source}: {unknown[0]}"
        raise UserError(
            f"{where}: the model knows no such class; it knows {classes}; data.classes leaves others out"
        )


def evaluation_loader(trained: TrainedModel, photos: Photos, batch_size: int, options: DataConfig) -> Loader:
    """Loader of clean images as the model takes them: of all, whatever other ranks there are."""
    return Loader(
        photos,
        size=trained.image_size,
        batch_size=batch_size,
        crop_pct=trained.crop_pct,
        device=trained.device,
        options=options,
        rank=0,
        world_size=1,
    )


def answers(trained: TrainedModel, loader: Loader, amp: str = "auto") -> Evaluation | LabelEvaluation:
    """Loss and scores of a trained model on a loader's photos, labelled as its classes; where a photo has
    several labels, as some of them.
    """
    precision, classes = Precision.choose(amp, trained.device), loader.photos.classes
    asked = trained.model, loader.epoch(0), len(classes), precision, trained.flip
    if trained.threshold is None:
        return evaluate_model(*asked)
    taken = [*map(trained.classes.index, classes)]
    return evaluate_labels(*asked, threshold=trained.threshold, taken=taken)


def _as_labelled(run: Path, data: Path, half: Half, options: DataConfig) -> DataConfig:
    """The settings with the columns that the run has read its photos by, where they do not name any: of a
    table those of a table, of tar files those of tar files.
    """
    folder = RunFolder(split_file(run).parent)
    if not has_columns(data) or not folder.config.is_file():
        return options
    own = folder.open().data
    if own.path is None or is_table(own.path) != is_table(data):
        return options
    names = ["path_column"] if half == "all" else ["path_column", "split_column"]
    if options.label_separator is None and options.label_columns is None:
        names += ["label_separator"]
        if options.label_column is None:
            names += ["label_column", "label_columns"]
    left = [name for name in names if name not in options.model_fields_set]
    return options.model_copy(update={name: getattr(own, name) for name in left})


def _classes(run: Path, half: Half, options: DataConfig) -> tuple[str, ...] | str | None:
    """The classes to take: of a half of the run's split those that it was trained on."""
    if half in ("train", "val") and options.classes is None:
        folder = RunFolder(split_file(run).parent)
        return folder.open().data.classes if folder.config.is_file() else None
    return options.classes


def _half(run: Path, photos: Photos, half: Half) -> Photos:
    if half == "all":
        return photos
    if half == "test":
        if not len(photos.test):
            raise UserError(f"{photos.source}: no photos in a test/ there; name a folder that has one")
        return photos.test
    train, val = read_split(split_file(run), photos)
    return train if half == "train" else val


def split_file(run: Path) -> Path:
    """Where the split of a run is, or would be, given its folder or its best/."""
    inside = RunFolder(run.resolve().parent)  # best/ has none of its own
    folder = inside if inside.split.is_file() and not RunFolder(run).split.is_file() else RunFolder(run)
    return folder.split
