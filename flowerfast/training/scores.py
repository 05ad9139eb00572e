"""Confusion and the scores that follow from it, without the figures, whose library takes long to import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from flowerfast.philox import generator

RESAMPLES = 2000
"""Of a bootstrap."""
_LEVELS = (0.025, 0.975)  # between which 95 % of them lie
_MOST_PAIRS = 2000  # of classes; beyond it resamples of a confusion take too much memory


class ClassScore(TypedDict):
    """Scores of one class as fractions of 1; `support` is its number of true samples."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class ClassificationReport(TypedDict):
    """Accuracy and macro F1 (unweighted mean over all classes) as fractions of 1."""

    accuracy: float
    macro_f1: float
    per_class: list[ClassScore]


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often a class was taken for a class: the pairs that occur, however many classes there are.

    Attributes:
        classes: how many there are.
        true, predicted, count: int64 (pairs,), by true class, then predicted class; each count is above 0.
    """

    classes: int
    true: np.ndarray
    predicted: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, predicted: np.ndarray, classes: int) -> "Confusion":
        """That of samples, int64 (n,) each: their labels and the answers."""
        codes, count = np.unique(true * classes + predicted, return_counts=True)
        return cls(classes, *np.divmod(codes, max(classes, 1)), count)

    @classmethod
    def read(cls, stored: Any, classes: Sequence[str]) -> "Confusion":
        """From `to_json`; or from a matrix (C, C), rows true, columns predicted, as earlier versions wrote.

        Raises ValueError when it does not fit the class names.
        """
        if isinstance(stored, Confusion):
            return stored
        if isinstance(stored, Mapping):
            columns = [np.asarray(stored[key], np.int64) for key in ("true", "predicted", "count")]
            labels = np.concatenate(columns[:2])
            if not classes or (len(labels) and not 0 <= labels.min() <= labels.max() < len(classes)):
                raise ValueError(f"a confusion of {len(classes)} classes cannot have others")
            return cls(len(classes), *columns)
        matrix = np.asarray(stored, np.int64)
        if not classes or matrix.shape != (len(classes), len(classes)):
            raise ValueError(f"a confusion matrix of {len(classes)} classes cannot have shape {matrix.shape}")
        true, predicted = np.nonzero(matrix)
        return cls(len(classes), true, predicted, matrix[true, predicted])

    def to_json(self) -> dict[str, list[int]]:
        """Its three columns, for a file."""
        return {key: getattr(self, key).tolist() for key in ("true", "predicted", "count")}

    def matrix(self) -> np.ndarray:
        """int64 (C, C), rows true, columns predicted: for few classes."""
        counts = np.zeros((self.classes, self.classes), np.int64)
        counts[self.true, self.predicted] = self.count
        return counts

    def totals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(samples, predictions, right answers) of each class: int64 (C,) each."""
        right = self.true == self.predicted
        parts = (self.true, self.count), (self.predicted, self.count), (self.true[right], self.count[right])
        samples, predictions, hits = (
            np.bincount(labels, weights=count, minlength=self.classes).astype(np.int64)
            for labels, count in parts
        )
        return samples, predictions, hits

    def accuracy(self) -> float:
        """Share of right answers, 0 without samples."""
        return float(ratio(self.count[self.true == self.predicted].sum(), self.count.sum()))

    def macro_f1(self) -> float:
        """Unweighted mean of the F1 of all classes."""
        support, predicted, hits = self.totals()
        return float(ratio(2 * hits, support + predicted).mean())

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """(true class, predicted class, samples) of the pairs most often confused, most often first."""
        wrong = np.flatnonzero(self.true != self.predicted)
        worst = wrong[np.argsort(-self.count[wrong], kind="stable")[:most]]
        return [(int(self.true[k]), int(self.predicted[k]), int(self.count[k])) for k in worst]


def classification_report(confusion: Any, classes: Sequence[str]) -> ClassificationReport:
    """Score a confusion, or what `Confusion.read` takes for one.

    A score whose denominator is zero (class never predicted, or without samples) is 0.0.
    Raises ValueError when it does not fit the class names.
    """
    counts = Confusion.read(confusion, classes)
    support, predicted, hits = counts.totals()
    precision, recall = ratio(hits, predicted), ratio(hits, support)
    f1 = ratio(2 * hits, support + predicted)
    return {
        "accuracy": counts.accuracy(),
        "macro_f1": counts.macro_f1(),
        "per_class": [
            {"name": name, "precision": p, "recall": r, "f1": f, "support": n}
            for name, p, r, f, n in zip(
                classes, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True
            )
        ],
    }


def intervals(confusion: Confusion, seed: int) -> dict[str, list[float] | None]:
    """`accuracy_interval` and `macro_f1_interval`: [low, high] of the 95 % percentile bootstrap.

    The samples are drawn again with replacement, `RESAMPLES` times (Efron, "Bootstrap methods: another look
    at the jackknife", 1979). How many of them are right is binomial, how often each pair of classes occurs
    multinomial: so they are drawn. None without samples, and the second of more than 2,000 pairs of classes.
    """
    total = int(confusion.count.sum())
    rng, f1 = generator("bootstrap", seed, 0), None
    if not total:
        return {"accuracy_interval": None, "macro_f1_interval": None}
    accuracy = rng.binomial(total, min(confusion.accuracy(), 1.0), RESAMPLES) / total
    if len(confusion.count) <= _MOST_PAIRS:
        drawn = rng.multinomial(total, confusion.count / total, RESAMPLES)
        f1 = _between(_macro_f1(confusion, drawn))
    return {"accuracy_interval": _between(accuracy), "macro_f1_interval": f1}


def _macro_f1(confusion: Confusion, drawn: np.ndarray) -> np.ndarray:
    """Macro F1, float64 (R,), of other counts of a confusion's pairs, int64 (R, pairs)."""
    occurring, place = np.unique(np.concatenate([confusion.true, confusion.predicted]), return_inverse=True)
    true, predicted = np.split(place, 2)
    right = true == predicted

    def by_class(classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        cells = np.arange(len(counts))[:, None] * len(occurring) + classes
        sums = np.bincount(cells.ravel(), counts.ravel(), len(counts) * len(occurring))
        return sums.reshape(len(counts), -1)

    support, answers = by_class(true, drawn), by_class(predicted, drawn)
    hits = by_class(true[right], drawn[:, right])
    result: np.ndarray = ratio(2 * hits, support + answers).sum(axis=1) / confusion.classes
    return result


def _between(values: np.ndarray) -> list[float]:
    low, high = np.quantile(values, _LEVELS)
    return [float(low), float(high)]


def ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """Divide elementwise with broadcasting, float64; 0.0 where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    result = np.zeros(top.shape)
    np.divide(top, bottom, out=result, where=bottom != 0)
    return result
