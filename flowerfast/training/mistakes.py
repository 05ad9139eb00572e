"""The mistakes of a validation of which the model was surest: what a report shows."""

from typing import Any

import numpy as np

from flowerfast.training.calibration import Answers

MOST = 48
"""Mistakes that are kept of a validation."""
_COLUMNS = {"index": int, "label": int, "predicted": int, "confidence": float, "own": float}
_DECISIONS = {"index": int, "label": int, "there": bool, "probability": float}


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


def wrong_decisions(
    true: np.ndarray, chances: np.ndarray, indices: np.ndarray, threshold: float, most: int = MOST
) -> dict[str, list[Any]]:
    """Of photos with several labels the wrong decisions of which the model was surest, surest first.

    `true` is bool (n, C), `chances` float32 (n, C), `indices` the samples, int64 (n,). `index`: of the
    sample; `label`: a class; `there`: whether the sample has it; `probability`: that it was given.
    """
    chances = np.nan_to_num(chances)
    place, label = np.nonzero((chances >= threshold) != true)
    chance, there = chances[place, label], true[place, label]
    first = np.lexsort((label, indices[place], np.where(there, chance - 1, -chance)))[:most]
    columns = indices[place], label, there, chance
    return {name: column[first].tolist() for name, column in zip(_DECISIONS, columns, strict=True)}


def check_mistakes(stored: Any, samples: int, classes: int) -> None:
    """Raise ValueError, TypeError or KeyError unless that is what one of the two above gave, or nothing.

    `samples` are those of the whole folder.
    """
    if stored == {}:
        return
    several = "there" in stored
    known = _DECISIONS if several else _COLUMNS
    columns = [stored[name] for name in known]
    kinds = zip(columns, known.values(), strict=True)
    if len({len(column) for column in columns}) > 1 or any(type(v) is not k for c, k in kinds for v in c):
        raise ValueError("mistakes: columns that do not fit each other")
    limits = (samples, classes) if several else (samples, classes, classes)
    for column, most in zip(columns, limits, strict=False):
        if not all(0 <= value < most for value in column):
            raise ValueError(f"mistakes: there are {samples} samples of {classes} classes")
