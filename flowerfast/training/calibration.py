"""How far a model's confidence can be believed: calibration error, and the temperature that mends it.

Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017. The confidence of an
answer is its probability. Photos fall into `BINS` bins of equal width by it; the expected calibration error
(ECE) is the mean over all photos of |accuracy - mean confidence| of their bin. A temperature T divides all
logits: answers and accuracy stay, confidences change. The one fitted has the least mean cross-entropy.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

BINS = 15
MOST_LOGITS = 1 << 24
"""Most logits (photos x classes) that are kept for fitting a temperature: 64 MiB."""
_LIMIT = 100.0  # of a temperature, and of its inverse
_HALVINGS = 24  # of the interval in which the logarithm of a temperature is sought
_PART = 1 << 20  # logits that are worked on at a time


@dataclass(frozen=True)
class Bin:
    """Photos of like confidence: how many, their mean confidence, and the share of right answers."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Of the answers to a set of photos.

    Attributes:
        ece: expected calibration error, 0..1.
        bins: `BINS` of them, by rising confidence; empty ones have zeros.
        temperature: fitted on the same photos; None, and `problem` says why, where there is none.
        scaled_ece, scaled_loss: with the logits divided by it, on the same photos: better than on others.
        problem: why there is no temperature.
    """

    ece: float
    bins: list[Bin]
    temperature: float | None = None
    scaled_ece: float | None = None
    scaled_loss: float | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields, for a file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answered, photo by photo.

    Attributes:
        labels, predicted: int64 (n,).
        confidence: probability of the class predicted, float32 (n,).
        own: probability of the label, float32 (n,).
        indices: sample indices, int64 (n,).
        logits: float32 (n, C) on the CPU; None of more than `MOST_LOGITS`.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    own: np.ndarray
    indices: np.ndarray
    logits: torch.Tensor | None

    def calibration(self) -> Calibration:
        """How well these answers are calibrated, and the temperature that fits them."""
        right = self.predicted == self.labels
        ece, bins = _reliability(self.confidence, right)
        if self.logits is None:
            return Calibration(ece, bins, problem=f"more than {MOST_LOGITS:,} logits: none is fitted")
        labels = torch.from_numpy(self.labels)
        temperature = fit_temperature(self.logits, labels)
        if temperature is None:
            why = "none fits, as where all answers are right, or none is better than a guess"
            return Calibration(ece, bins, problem=why)
        loss, confidence = 0.0, []
        for logits, true in _parts(self.logits, labels):
            loss += F.cross_entropy(logits / temperature, true, reduction="sum").item()
            confidence.append((logits / temperature).softmax(1).amax(1))
        scaled, _ = _reliability(torch.cat(confidence).numpy(), right)
        return Calibration(ece, bins, temperature, scaled, loss / len(right))


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float | None:
    """The temperature of least mean cross-entropy: float32 (n, C), int64 (n,), on the CPU.

    None when none between 1/100 and 100 is the best, as where all answers are right. The cross-entropy is
    convex in 1/T, so that the sign of its slope tells on which side the best one lies.
    """
    low, high = -math.log(_LIMIT), math.log(_LIMIT)  # of log(1/T)
    if not _slope(logits, labels, math.exp(low)) < 0 < _slope(logits, labels, math.exp(high)):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, labels, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def _slope(logits: torch.Tensor, labels: torch.Tensor, factor: float) -> float:
    """Slope of the summed cross-entropy of `factor` x logits by the factor: the logits expected, less those
    of the labels.
    """
    total = 0.0
    for z, true in _parts(logits, labels):
        expected = ((z * factor).softmax(1) * z).sum(1)
        total += (expected.double() - z.gather(1, true[:, None])[:, 0].double()).sum().item()
    return total


def _parts(logits: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rows = max(_PART // logits.shape[1], 1)
    return zip(logits.split(rows), labels.split(rows), strict=True)


def _reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[float, list[Bin]]:
    """(expected calibration error, bins) of answers: float32 (n,), bool (n,)."""
    confidence = np.nan_to_num(confidence.astype(np.float64))  # a network may answer with what is no number
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count, sums, hits = (
        np.bincount(place, weights=weights, minlength=BINS) for weights in (None, confidence, right)
    )
    bins = [
        Bin(int(n), float(total / max(n, 1)), float(correct / max(n, 1)))
        for n, total, correct in zip(count, sums, hits, strict=True)
    ]
    return float(np.abs(hits - sums).sum() / max(len(right), 1)), bins
