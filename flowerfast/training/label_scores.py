"""How well several labels a photo were told: average precision, and counts at a threshold.

Average precision (AP) of a class is the mean of the precision at each photo that has it, photos ranked by the
probability of the class, those of equal probability as one: sum of (R_n - R_n-1) P_n, as scikit-learn has it.
mAP is its unweighted mean over the classes that some photo has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerfast.training.scores import ratio

_COUNTS = ("support", "predicted", "hits")


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Of the answers to photos with several labels.

    Attributes:
        samples: photos.
        threshold: probability from which a label counts as given.
        support, predicted, hits: int64 (C,), photos that have each label, that it was given, and both.
        average: average precision of each, float64 (C,); NaN of one that no photo has.
    """

    samples: int
    threshold: float
    support: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray
    average: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, chances: np.ndarray, threshold: float) -> "LabelScores":
        """Of labels, bool (n, C), and the probabilities that they were given, float32 (n, C)."""
        chances = np.nan_to_num(chances)  # a network may answer with what is no number
        given = chances >= threshold
        support, predicted, hits = (each.sum(0, dtype=np.int64) for each in (true, given, true & given))
        average = [average_precision(*column) for column in zip(true.T, chances.T, strict=True)]
        return cls(len(true), threshold, support, predicted, hits, np.array(average))

    @classmethod
    def read(cls, stored: Any, classes: Sequence[str]) -> "LabelScores":
        """From `to_json`. Raises ValueError, KeyError or TypeError when it does not fit the classes."""
        if not isinstance(stored, Mapping):
            raise ValueError("scores of labels that are none")
        support, predicted, hits = (np.asarray(stored[name], np.int64) for name in _COUNTS)
        average = np.array(
            [np.nan if each is None else each for each in stored["average_precision"]], np.float64
        )
        if any(column.shape != (len(classes),) for column in (support, predicted, hits, average)):
            raise ValueError(f"scores of labels that are not {len(classes)}")
        samples, threshold = int(stored["samples"]), float(stored["threshold"])
        return cls(samples, threshold, support, predicted, hits, average)

    def to_json(self) -> dict[str, Any]:
        """Its fields, for a file."""
        counts = {name: getattr(self, name).tolist() for name in _COUNTS}
        about = {"samples": self.samples, "threshold": self.threshold}
        return {**about, **counts, "average_precision": [_number(each) for each in self.average.tolist()]}

    def map(self) -> float:
        """Mean average precision over the classes that some photo has; 0 where there is none."""
        known = self.average[np.isfinite(self.average)]
        return float(known.mean()) if len(known) else 0.0

    def accuracy(self) -> float:
        """Share of right decisions, of all photos and labels."""
        wrong = self.support.sum() + self.predicted.sum() - 2 * self.hits.sum()
        return float(1 - ratio(wrong, self.samples * len(self.support)))

    def macro_f1(self) -> float:
        """Unweighted mean of the F1 of all labels; that of one that is neither there nor given is 0."""
        return float(ratio(2 * self.hits, self.support + self.predicted).mean())

    def micro_f1(self) -> float:
        """F1 of all decisions together."""
        return float(ratio(2 * self.hits.sum(), self.support.sum() + self.predicted.sum()))

    def figures(self) -> dict[str, float]:
        """What is told of an epoch, by name."""
        return {
            "acc": self.accuracy(),
            "map": self.map(),
            "macro_f1": self.macro_f1(),
            "micro_f1": self.micro_f1(),
        }

    def report(self, classes: Sequence[str]) -> dict[str, Any]:
        """All figures, of each class too, as `scores.classification_report` has them of one label a photo."""
        columns = {
            "average_precision": [_number(each) for each in self.average.tolist()],
            "precision": ratio(self.hits, self.predicted).tolist(),
            "recall": ratio(self.hits, self.support).tolist(),
            "f1": ratio(2 * self.hits, self.support + self.predicted).tolist(),
            "support": self.support.tolist(),
        }
        rows = zip(classes, *columns.values(), strict=True)
        return {
            "accuracy": self.accuracy(),
            "map": self.map(),
            "macro_f1": self.macro_f1(),
            "micro_f1": self.micro_f1(),
            "threshold": self.threshold,
            "per_class": [dict(zip(("name", *columns), row, strict=True)) for row in rows],
        }


def average_precision(true: np.ndarray, chances: np.ndarray) -> float:
    """Of one class: bool (n,), whether photos have it, and float (n,), by which they are ranked.

    NaN where none has it.
    """
    order = np.argsort(-chances, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(chances[order])), len(order) - 1)  # of photos ranked as one
    hits = np.cumsum(true[order])[ends] if len(order) else np.zeros(1)
    if not hits[-1]:
        return float("nan")
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
