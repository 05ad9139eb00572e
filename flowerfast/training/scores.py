"""Scores of a confusion matrix, without the figures, whose library takes long to import."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np


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


def classification_report(confusion: np.ndarray, classes: Sequence[str]) -> ClassificationReport:
    """Score a confusion matrix, int (C, C), rows = true class, columns = predicted class.

    A score whose denominator is zero (class never predicted, or without samples) is 0.0.
    Raises ValueError when the matrix and the class names do not fit together.
    """
    check_confusion(confusion, classes)
    hits, support, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = ratio(hits, predicted), ratio(hits, support)
    f1 = ratio(2 * hits, support + predicted)
    return {
        "accuracy": float(ratio(hits.sum(), confusion.sum())),
        "macro_f1": float(f1.mean()),
        "per_class": [
            {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        ],
    }


def check_confusion(confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Raise ValueError when a confusion matrix and the class names do not fit together."""
    if not classes or confusion.shape != (len(classes), len(classes)):
        raise ValueError(f"a confusion matrix of {len(classes)} classes cannot have shape {confusion.shape}")


def ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """Divide elementwise with broadcasting, float64; 0.0 where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    result = np.zeros(top.shape)
    np.divide(top, bottom, out=result, where=bottom != 0)
    return result
