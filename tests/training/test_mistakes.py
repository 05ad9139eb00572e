"""Mistakes of a validation: the surest first, whatever order the photos came in."""

from typing import Any

import numpy as np
import pytest

from flowerfast.training.calibration import Answers
from flowerfast.training.mistakes import check_mistakes, confident_mistakes, wrong_decisions


def test_the_surest_wrong_answers_come_first_whatever_the_order() -> None:
    labels, predicted = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 1, 0, 2, 0, 1])
    confidence = np.array([0.5, 0.99, 0.75, 0.5, np.nan, 0.9], np.float32)
    own = np.array([0.25, 0.99, 0.125, 0.25, np.nan, 0.1], np.float32)
    indices = np.array([7, 1, 4, 3, 5, 9])
    expected = {
        "index": [9, 4, 3, 7, 5],  # of two that are equally sure the one with the lower index
        "label": [2, 2, 0, 0, 1],
        "predicted": [1, 0, 2, 1, 0],
        "confidence": pytest.approx([0.9, 0.75, 0.5, 0.5, 0]),
        "own": pytest.approx([0.1, 0.125, 0.25, 0.25, 0]),
    }
    for order in (np.arange(6), np.arange(6)[::-1]):
        columns = [column[order] for column in (labels, predicted, confidence, own, indices)]
        assert confident_mistakes(Answers(*columns, None)) == expected
    assert confident_mistakes(Answers(*columns, None), 2)["index"] == [9, 4]
    right = Answers(labels, labels, confidence, own, indices, None)
    assert confident_mistakes(right) == {name: [] for name in expected}


GOOD: dict[str, list[Any]] = {
    "index": [3, 0], "label": [0, 1], "predicted": [1, 0], "confidence": [0.9, 0.5], "own": [0.1, 0.2],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"index": [4, 0]},
        {"index": [-1, 0]},
        {"label": [0, 2]},
        {"predicted": [True, 0]},
        {"confidence": [0.9]},
        {"own": ["0.1", 0.2]},
        {"own": None},
    ],
)
def test_what_a_save_cannot_have_said_is_refused(change: dict[str, Any]) -> None:
    check_mistakes(GOOD, samples=4, classes=2)
    check_mistakes({}, samples=4, classes=2)  # of an earlier version
    with pytest.raises((ValueError, TypeError)):
        check_mistakes({**GOOD, **change}, samples=4, classes=2)
    with pytest.raises(KeyError):
        check_mistakes({"index": []}, samples=4, classes=2)


DECISIONS: dict[str, list[Any]] = {
    "index": [5, 7, 7], "label": [1, 0, 1], "there": [True, False, False], "probability": [0.0, 0.75, 0.5],
}  # fmt: skip


def test_the_surest_wrong_decisions_come_first_given_or_missed() -> None:
    true = np.array([[False, False], [True, True], [True, False]])
    chances = np.array([[0.75, 0.5], [0.9, np.nan], [0.5, 0.25]], np.float32)
    for order in (np.arange(3), np.array([2, 0, 1])):
        columns = true[order], chances[order], np.array([7, 5, 6])[order]
        assert wrong_decisions(*columns, threshold=0.5) == DECISIONS
        assert wrong_decisions(*columns, threshold=0.5, most=1)["index"] == [5]
    check_mistakes(DECISIONS, samples=8, classes=2)
    for change in ({"there": [1, 0, 0]}, {"label": [2, 0, 1]}, {"index": [8, 7, 7]}, {"probability": [0.5]}):
        with pytest.raises(ValueError, match=r"mistakes: "):
            check_mistakes({**DECISIONS, **change}, samples=8, classes=2)
