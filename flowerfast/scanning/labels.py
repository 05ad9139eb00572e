"""What a trained run says of the labels: likely errors, by confident learning, and confident mistakes.

Northcutt, Jiang, Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021): a network is
confident of a class where it gives it at least the mean probability that photos labelled so get. Who is
confidently of another class than its own is likely mislabelled. That holds of photos on which the network was
not trained; those that it was trained on it has learnt by heart, errors too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.documents import MOST_JSON
from flowerfast.errors import one_line
from flowerfast.machine import Progress
from flowerfast.photos.layout import TEST, nfc
from flowerfast.photos.photos import Photos
from flowerfast.scanning.findings import Finding, Noted, Notes, RunFigures
from flowerfast.training.evaluate_run import evaluation_loader, split_file
from flowerfast.training.evaluation import answer
from flowerfast.training.seal import Damaged, read_sealed
from flowerfast.training.state import Precision
from flowerfast.training.trained import TrainedModel

MISTAKES = 100
"""Confident mistakes that are listed, the most confident first."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a run answered.

    Attributes:
        rows: int64 (n,), sample indices.
        labels: int64 (n,), places in the run's classes.
        probabilities: float32 (n, C).
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


class TrainedOn(NamedTuple):
    """What a run's split says of photos.

    `rows`: bool (n,), samples of the whole folder that it was trained on; None: it does not tell. `whole`: it
    is a split of these very photos. `note`: what there is to say of that.
    """

    rows: np.ndarray | None
    whole: bool
    note: str

    def halves(self, photos: Photos) -> list[str]:
        """Half of each sample of the whole folder, where `whole`."""
        learnt = self.rows if self.rows is not None else np.zeros(len(photos.table), bool)
        names = np.where(learnt, "train", np.where(photos.table.fold == TEST, "test", "val"))
        return [str(name) for name in names]


@torch.inference_mode()
def judge(
    trained: TrainedModel, photos: Photos, batch_size: int, options: DataConfig, progress: Progress | None
) -> Judged:
    """Probabilities of all classes for photos labelled as the model's classes, asked as it was validated.

    They take 4 bytes a photo and class.
    """
    precision = Precision.choose("auto", trained.device)
    indices, labels, chances = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], []
    chances.append(np.zeros((0, len(trained.classes)), np.float32))
    done = 0
    with evaluation_loader(trained, photos, batch_size, options) as loader:
        for batch in loader.epoch(0):
            if len(batch):
                with precision.autocast(trained.device):
                    logits = answer(trained.model, batch.images, trained.flip)
                chances.append(logits.softmax(1).cpu().numpy())
                indices.append(batch.indices.numpy())
                labels.append(batch.labels.cpu().numpy())
            done += len(batch)
            if progress:
                progress(done, len(photos))
    return Judged(np.concatenate(indices), np.concatenate(labels), np.concatenate(chances))


def trained_on(run: Path, photos: Photos) -> TrainedOn:
    """Which photos a run was trained on, by their paths in its split. Raises Damaged."""
    file = split_file(run)
    try:
        content = read_sealed(file, most=MOST_JSON + 8 * photos.table.path_bytes.size)
        train, val = ({nfc(str(path)) for path in content[half]} for half in ("train", "val"))
    except Damaged:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = "no split.json there" if isinstance(error, FileNotFoundError) else one_line(error)
        return TrainedOn(None, False, f"{run}: which photos it was trained on is not known ({why})")
    paths = [*map(nfc, photos.table.paths())]
    tested = photos.table.fold == TEST
    rows = np.array([path in train for path in paths], bool) & ~tested
    known = sum(path in train or path in val for path in paths)
    note = f"{run}: {int(rows.sum())} of these {len(paths)} photos it was trained on, "
    if known == len(train) + len(val) == int((~tested).sum()):
        return TrainedOn(rows, True, note + "as its split.json says")
    others = f"which names {len(train) + len(val)} photos, {known} of them here"
    return TrainedOn(rows, False, f"{note}by their paths in its split.json, {others}")


def confident(
    probabilities: np.ndarray, labels: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds of the classes, float64 (C,); class that a photo is confidently of, int64 (n,)).

    A threshold is the mean probability of a class on the photos of the `basis`, bool (n,), that are labelled
    so, or on all that are where none of these is; infinity for a class without a photo. Of several classes
    above their thresholds the most probable counts; -1: none is above.
    """
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    thresholds = np.full(count, np.inf)
    for chosen in (np.ones(len(labels), bool), basis):
        many = np.bincount(labels[chosen], minlength=count)
        sums = np.bincount(labels[chosen], own[chosen], count)
        thresholds = np.where(many > 0, sums / np.maximum(many, 1), thresholds)
    above = np.where(probabilities >= thresholds, probabilities, -1)
    best = above.argmax(axis=1)
    return thresholds, np.where(above[np.arange(len(labels)), best] >= 0, best, -1)


def of_labels(
    judged: Judged, classes: tuple[str, ...], learnt: np.ndarray | None, notes: Notes, run: str
) -> tuple[list[Finding], RunFigures]:
    """Likely label errors and the most confident mistakes; and how the run did.

    `learnt` says which samples of the whole folder it was trained on, None: not known. Photos that it was not
    trained on come first, of like ones those whose label is the least probable.
    """
    labels, chances = judged.labels, judged.probabilities
    fit = np.zeros(len(labels), bool) if learnt is None else learnt[judged.rows]
    thresholds, surely = confident(chances, labels, ~fit)
    everyone = np.arange(len(labels))
    own, predicted = chances[everyone, labels], chances.argmax(axis=1)

    def noted(place: int, suggested: int) -> Noted:
        chance, mine = float(chances[place, suggested]), float(own[place])
        why = f"{classes[suggested]} {chance:.1%}, {classes[labels[place]]} {mine:.1%}"
        known = None if learnt is None else bool(fit[place])
        why += ", though trained on it" if known else ""
        return notes.of(
            int(judged.rows[place]),
            why,
            suggested=classes[suggested],
            probability=chance,
            own_probability=mine,
            trained_on=known,
        )

    errors = np.flatnonzero((surely >= 0) & (surely != labels))
    errors = errors[np.lexsort((own[errors], fit[errors]))]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-chances[wrong, predicted[wrong]], kind="stable")][:MISTAKES]

    def accuracy(chosen: np.ndarray) -> float | None:
        return float((predicted == labels)[chosen].mean()) if chosen.any() else None

    figures = RunFigures(
        run,
        int(fit.sum()),
        0 if learnt is None else int((~fit).sum()),
        accuracy(fit),
        accuracy(~fit),
        {name: float(least) for name, least in zip(classes, thresholds, strict=True) if np.isfinite(least)},
    )
    listed = [
        ("label_errors", "likely label errors: the run is confident of another class", errors, surely),
        ("confident_mistakes", f"most confident mistakes of the run, {MISTAKES} at most", wrong, predicted),
    ]
    findings = [
        Finding(kind, about, False, tuple(noted(place, int(of[place])) for place in places.tolist()))
        for kind, about, places, of in listed
    ]
    return findings, figures
