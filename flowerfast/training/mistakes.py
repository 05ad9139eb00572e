"""The mistakes of a validation of which the model was surest: what a report shows."""

from typing import Any

import numpy as np

from flowerfast.training.calibration import Answers

MOST = 48
"""Mistakes that are kept of a validation."""
_COLUMNS = {"index": int, "label": int, "predicted": int, "confidence": float, "own": float}


def confident_mistakes(answers: Answers, most: int = MOST) -> dict[str, list[Any]]:
    """The wrong answers with the highest confidence, highest first, as columns of plain values.

    `index`: of the sample; `label`, `predicted`: classes; `confidence`: probability of the class predicted;
    `own`: that of the label.
    """
    confidence = np.nan_to_num(answers.confidence)  # a network may answer with what is no number
    wrong = np.flatnonzero(answers.predicted != answers.labels)
    # By sample where equally sure, so that it hangs neither on the order nor on how many ranks there are.
    first = wrong[np.lexsort((answers.indices[wrong], -confidence[wrong]))][:most]
    columns = answers.indices, answers.labels, answers.predicted, confidence, np.nan_to_num(answers.own)
    return {name: column[first].tolist() for name, column in zip(_COLUMNS, columns, strict=True)}


def check_mistakes(stored: Any, samples: int, classes: int) -> None:
    """Raise ValueError, TypeError or KeyError unless that is what `confident_mistakes` gave, or nothing.

    `samples` are those of the whole folder.
    """
    if stored == {}:
        return
    columns = [stored[name] for name in _COLUMNS]
    kinds = zip(columns, _COLUMNS.values(), strict=True)
    if len({len(column) for column in columns}) > 1 or any(type(v) is not k for c, k in kinds for v in c):
        raise ValueError("mistakes: columns that do not fit each other")
    for column, most in zip(columns, (samples, classes, classes), strict=False):
        if not all(0 <= value < most for value in column):
            raise ValueError(f"mistakes: there are {samples} samples of {classes} classes")
