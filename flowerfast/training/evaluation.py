"""How well a model does on labelled batches."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from flowerfast.loaders.batch import Batch
from flowerfast.training.calibration import MOST_LOGITS, Answers
from flowerfast.training.label_scores import LabelScores
from flowerfast.training.mistakes import confident_mistakes, wrong_decisions
from flowerfast.training.progress import sum_dtype
from flowerfast.training.scores import Confusion, classification_report, intervals
from flowerfast.training.state import Precision


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, top-1 and top-5 accuracy (0..1; None for fewer than six classes), confusion; and
    the single answers.
    """

    loss: float
    accuracy: float
    confusion: Confusion
    answers: Answers
    top5: float | None = None

    @property
    def samples(self) -> int:
        """How many photos were answered."""
        return int(self.confusion.count.sum())

    def figures(self) -> dict[str, float]:
        """What is told of an epoch, by name."""
        figures = {"loss": self.loss, "acc": self.accuracy, "macro_f1": self.confusion.macro_f1()}
        return figures if self.top5 is None else {**figures, "top5": self.top5}

    def kept(self) -> dict[str, Any]:
        """What a run keeps of its best epoch, by the names in `Standing`."""
        return {
            "confusion": self.confusion.to_json(),
            "calibration": self.answers.calibration().to_json(),
            "mistakes": confident_mistakes(self.answers),
        }

    def report(self, classes: Sequence[str]) -> dict[str, Any]:
        """The figures of `flowerfast evaluate`."""
        return {
            "loss": self.loss,
            **({"top5": self.top5} if self.top5 is not None else {}),
            **classification_report(self.confusion, classes),
            **intervals(self.confusion, 0),
            "calibration": self.answers.calibration().to_json(),
            "confusion": self.confusion.to_json(),
        }


@dataclass(frozen=True)
class LabelEvaluation:
    """Of photos with several labels: mean binary cross-entropy, scores of the labels, `wrong_decisions`; else
    as that.
    """

    loss: float
    scores: LabelScores
    mistakes: dict[str, list[Any]]

    @property
    def accuracy(self) -> float:
        """Share of right decisions, see `LabelScores.accuracy`."""
        return self.scores.accuracy()

    @property
    def samples(self) -> int:
        """How many photos were answered."""
        return self.scores.samples

    def figures(self) -> dict[str, float]:
        """What is told of an epoch, by name."""
        return {"loss": self.loss, **self.scores.figures()}

    def kept(self) -> dict[str, Any]:
        """What a run keeps of its best epoch, by the names in `Standing`."""
        return {"label_scores": self.scores.to_json(), "mistakes": self.mistakes}

    def report(self, classes: Sequence[str]) -> dict[str, Any]:
        """The figures of `flowerfast evaluate`."""
        return {"loss": self.loss, **self.scores.report(classes)}


def alone(part: Any) -> list[Any]:
    """All parts of what one process has evaluated."""
    return [part]


@torch.inference_mode()
def evaluate_labels(
    model: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    precision: Precision,
    flip: bool = False,
    gather: Callable[[Any], list[Any]] = alone,
    threshold: float = 0.5,
    taken: Sequence[int] | None = None,
) -> LabelEvaluation:
    """As `evaluate`, of photos with several labels. Takes 5 bytes for each photo and label.

    Of the model's classes those at the places `taken` are asked for, None: all; so many are `classes`.
    Ranks bring all their answers, so that the average precision is that of the whole set.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=sum_dtype(device), device=device)
    true = [torch.zeros(0, classes, dtype=torch.bool, device=device)]
    chances = [torch.zeros(0, classes, device=device)]
    indices = [torch.zeros(0, dtype=torch.int64)]
    for batch in batches:
        if not len(batch):
            continue
        indices.append(batch.indices)
        with precision.autocast(device):
            logits = answer(model, batch.images, flip, several=True)
        if taken is not None:
            logits = logits[:, taken]
        loss += F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum") / classes
        true.append(batch.labels > 0.5)
        chances.append(logits.sigmoid())
    model.train(was_training)
    columns = (torch.cat(each).cpu().numpy() for each in (true, chances, indices))
    losses, *parts = zip(*gather((loss.item(), *columns)), strict=True)
    labels, answered, samples = map(np.concatenate, parts)
    scores = LabelScores.of(labels, answered, threshold)
    worst = wrong_decisions(labels, answered, samples, threshold)
    return LabelEvaluation(sum(losses) / max(len(labels), 1), scores, worst)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    precision: Precision,
    flip: bool = False,
    gather: Callable[[Any], list[Any]] = alone,
) -> Evaluation:
    """Loss, accuracies, confusion and answers of a model over batches on the model's device.

    With `flip` the probabilities of each image and of its mirror image are averaged. Where batches are those
    of one rank, `gather` makes of its part those of all, once, at the end. Takes 32 bytes a sample, and 4 for
    each logit where there are no more than `MOST_LOGITS`.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=sum_dtype(device), device=device)
    among5 = torch.zeros((), dtype=torch.int64, device=device)
    # On the device, so that no batch is waited for.
    pairs = [torch.zeros(2, 0, dtype=torch.int64, device=device)]
    chances = [torch.zeros(2, 0, device=device)]
    indices = [torch.zeros(0, dtype=torch.int64)]
    kept: list[torch.Tensor] | None = [torch.zeros(0, classes, device=device)]
    values = 0
    for batch in batches:
        if not len(batch):
            continue
        with precision.autocast(device):
            logits = answer(model, batch.images, flip)
        loss += F.cross_entropy(logits, batch.labels, reduction="sum")
        pairs.append(torch.stack([batch.labels, logits.argmax(1)]))
        chance = logits.softmax(1)
        chances.append(torch.stack([chance.amax(1), chance.gather(1, batch.labels[:, None])[:, 0]]))
        indices.append(batch.indices)
        values += logits.numel()
        if kept is not None and values <= MOST_LOGITS:
            kept.append(logits)
        else:
            kept = None
        if classes > 5:
            among5 += (logits.topk(5).indices == batch.labels[:, None]).sum()
    model.train(was_training)
    answered = np.vstack([torch.cat(pairs, 1).cpu().numpy(), torch.cat(indices).numpy()])
    confident = torch.cat(chances, 1).cpu().numpy()
    mine = loss.item(), among5.item(), answered, confident, torch.cat(kept).cpu().numpy() if kept else None
    losses, hits, *parts = zip(*gather(mine), strict=True)
    true, predicted, samples = np.concatenate(parts[0], axis=1)
    confidence, own = np.concatenate(parts[1], axis=1)
    few = all(part is not None for part in parts[2]) and len(true) * classes <= MOST_LOGITS
    whole = torch.from_numpy(np.concatenate(parts[2])) if few else None
    answers = Answers(true, predicted, confidence, own, samples, whole)
    total = max(len(true), 1)
    confusion = Confusion.of(true, predicted, classes)
    top5 = sum(hits) / total if classes > 5 else None
    return Evaluation(sum(losses) / total, confusion.accuracy(), confusion, answers, top5)


def answer(model: nn.Module, images: torch.Tensor, flip: bool, several: bool = False) -> torch.Tensor:
    """Logits of images, float32 (n, C).

    With `flip` those of probabilities that are the means over each image and its mirror image: of one label a
    photo their logarithms, of `several` log p - log (1 - p).
    """
    logits: torch.Tensor = model(images).float()
    if not flip:
        return logits
    mirrored = model(images.flip(-1)).float()
    if several:
        there, not_there = (
            torch.logaddexp(F.logsigmoid(sign * logits), F.logsigmoid(sign * mirrored)) for sign in (1, -1)
        )
        return there - not_there
    return torch.logaddexp(logits.log_softmax(1), mirrored.log_softmax(1)) - math.log(2)


def probabilities(logits: torch.Tensor, several: bool) -> torch.Tensor:
    """Of each class, float32 (n, C): of one label a photo they sum to 1."""
    return logits.sigmoid() if several else logits.softmax(1)
