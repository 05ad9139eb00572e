"""A trained run at work: evaluate it on a folder, predict single photos.

Preprocessing (size, crop, mean, standard deviation, class names) comes from the folder that was saved with
the weights, never from the caller.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import timm
import torch

from flowerfast.arguments import of_kind, path, place, whole
from flowerfast.config import DataConfig, EvalConfig, Exif
from flowerfast.errors import UserError, one_line
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.loader import Loader
from flowerfast.machine import Progress
from flowerfast.photos.layout import nfc
from flowerfast.photos.open_table import has_columns
from flowerfast.photos.photos import Photos
from flowerfast.places import is_table, spelled
from flowerfast.training.allocator import keep_freed_memory
from flowerfast.training.described import WEIGHTS, Described, check_shapes, on_meta
from flowerfast.training.evaluation import (
    Evaluation,
    LabelEvaluation,
    answer,
    evaluate_labels,
    probabilities,
)
from flowerfast.training.evaluation import evaluate as evaluate_model
from flowerfast.training.image_size import check_eval_size
from flowerfast.training.model import Classifier, with_normalisation
from flowerfast.training.pictures import batches
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.seal import Damaged, check
from flowerfast.training.split_file import read_split
from flowerfast.training.squares import Picture, Squares, checked, square
from flowerfast.training.state import Precision

Half = Literal["all", "train", "val", "test"]
_MAX_PIXELS = DataConfig().max_pixels
BATCH = 32
"""Photos that go through the model at a time, unless it is told otherwise."""


@dataclass(frozen=True)
class Prediction:
    """What is on one photo.

    Attributes:
        path: the file, or the place in the sequence of what was no file.
        top: (class, probability), most likely first; empty when the file cannot be read.
        error: why it cannot be read, in one line, or None.
        labels: of a model that gives several labels a photo those whose probability is its threshold or more,
            most likely first; else None.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    error: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrainedModel:
    """A trained classifier and what it expects.

    Attributes:
        model: uint8 (N, 3, S, S) to logits (N, classes), in evaluation mode.
        classes: names of the logits.
        image_size, crop_pct: of the evaluation plan.
        device: where the model is.
        exif: whether photos are turned upright as their EXIF orientation says, as in training.
        flip: whether the probabilities of a photo and of its mirror image are averaged, as in validation.
        threshold: of several labels a photo, probability from which one counts as given; None: one a photo.
    """

    model: Classifier
    classes: tuple[str, ...]
    image_size: int
    crop_pct: float
    device: torch.device
    exif: Exif
    flip: bool = False
    threshold: float | None = None

    @property
    def multilabel(self) -> bool:
        """Whether it gives a photo any number of labels."""
        return self.threshold is not None

    def at(self, protocol: EvalConfig) -> "TrainedModel":
        """The same model, asked as those fields say that `protocol` was given: image_size, crop_pct, flip,
        threshold.

        Raises UserError for an image size that the network does not take, and for a threshold where it gives
        one label a photo.
        """
        of_kind("at: protocol", protocol, EvalConfig, "ff.EvalConfig(...)")
        fields = {"image_size", "crop_pct", "flip", "threshold"}
        given = protocol.model_dump(include=fields & protocol.model_fields_set)
        if "threshold" in given and not self.multilabel:
            raise UserError(
                f"eval.threshold={given['threshold']:g}: the model gives a photo one label, the most likely; "
                "drop it"
            )
        changed = replace(self, **{name: value for name, value in given.items() if value is not None})
        if changed.image_size != self.image_size:
            check_eval_size(self.model.network, "the model", changed.image_size)
        return changed

    def predict(
        self, images: Picture | Sequence[Picture], top_k: int = 3, max_pixels: int = _MAX_PIXELS
    ) -> list[Prediction]:
        """The `top_k` most likely classes of each photo, in their order.

        A file that cannot be read, or of more than `max_pixels`, gives a `Prediction` with an `error`. Raises
        UserError for what is no photo at all.
        """
        listed = [images] if isinstance(images, Picture) or not isinstance(images, Iterable) else images
        return list(self.predict_each(listed, top_k, max_pixels))

    def predict_each(
        self,
        images: Iterable[Picture],
        top_k: int = 3,
        max_pixels: int = _MAX_PIXELS,
        batch_size: int = BATCH,
    ) -> Generator[Prediction, None, None]:
        """As `predict`, of any number of photos: each answer when it is asked for, none kept.

        `batch_size` photos go through the model at a time, and a few batches are taken from `images` ahead of
        the answers, see `pictures.batches`. With 1 each photo is answered before the next is taken.
        """
        top_k, max_pixels = whole("top_k", top_k, 1), whole("max_pixels", max_pixels, 1)
        batch_size = whole("batch_size", batch_size, 1)
        squares = Squares(self.image_size, self.crop_pct, self.exif == "apply", max_pixels)
        with closing(batches(images, squares, batch_size)) as ready:
            for names, made in ready:
                answers = self._answer([one for one in made if not isinstance(one, str)], top_k)
                for name, one in zip(names, made, strict=True):
                    if isinstance(one, str):
                        yield Prediction(name, (), one)
                        continue
                    top, labels = next(answers)
                    yield Prediction(name, top, labels=labels)

    @torch.inference_mode()
    def _answer(
        self, squares: list[np.ndarray], top_k: int
    ) -> Iterator[tuple[tuple[tuple[str, float], ...], tuple[str, ...] | None]]:
        """The most likely classes of each square, and the labels that it is given, see `Prediction`."""
        if not squares:
            return iter(())
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        logits = answer(self.model, images.to(self.device), self.flip, self.multilabel)
        chances = probabilities(logits, self.multilabel)
        best = chances.topk(len(self.classes) if self.multilabel else min(top_k, len(self.classes)))
        answers = []
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            ranked = tuple((self.classes[i], chance) for i, chance in zip(*row, strict=True))
            labels = None
            if self.threshold is not None:
                labels = tuple(name for name, chance in ranked if chance >= self.threshold)
            answers.append((ranked[:top_k], labels))
        return iter(answers)

    def prepare(self, photo: np.ndarray) -> torch.Tensor:
        """A photo, uint8 (h, w, 3), as the model takes it: uint8 (3, S, S), resized and cut."""
        made = square(checked(photo, "prepare"), self.image_size, self.crop_pct)
        return torch.from_numpy(made).permute(2, 0, 1)


def load_run(run: Path | str, device: str | torch.device = "auto") -> TrainedModel:
    """Best model of a run folder (or of its best/). Raises UserError when there is none, or it is damaged."""
    run, where = path("run", run), pick_device(device)
    folder = run / "best" if (run / "best").is_dir() else run
    try:
        stored = Described.read(folder)
        classes = stored.classes
        if not (folder / WEIGHTS).is_file():  # timm would look for a pickle
            raise ValueError(f"{WEIGHTS} is missing")
        check(folder / WEIGHTS)
        name = f"local-dir:{folder}"
        empty = on_meta(partial(timm.create_model, name))
        if empty is not None:
            check_shapes(empty, folder / WEIGHTS)
        network = timm.create_model(name, pretrained=True)  # else random weights
    except Damaged:
        raise
    except Exception as error:  # networks raise whatever comes of arguments that do not fit
        raise UserError(
            f"{run}: no trained model there ({one_line(error)}); give the --out folder of a finished epoch"
        ) from error
    cfg, exif = stored.pretrained_cfg, stored.exif
    keep_freed_memory(where)
    return TrainedModel(
        with_normalisation(network).to(where).eval(),
        classes,
        cfg.input_size[-1],
        cfg.crop_pct,
        where,
        "apply" if exif == "apply" else "ignore",  # earlier versions ignored it
        stored.flip,
        stored.threshold,
    )


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
