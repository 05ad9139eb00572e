"""Sets of labels: numbered by what they hold, and what a photo's label stands for."""

from typing import Any

import numpy as np
import pytest

from flowerfast.photos.label_sets import LabelSets

GIVEN: list[list[int]] = [[2, 0], [], [1], [0, 2], [0, 1, 2]]


def test_sets_are_numbered_by_what_they_hold() -> None:
    sets, labels = LabelSets.numbered(GIVEN)
    assert [sets[label] for label in range(len(sets))] == [[], [0, 1, 2], [0, 2], [1]]
    assert (labels.tolist(), labels.dtype) == ([2, 0, 3, 2, 1], np.int32)
    again, _ = LabelSets.numbered(reversed(GIVEN))
    assert again.digest() == sets.digest()
    assert LabelSets.numbered([[0], [1]])[0].digest() != LabelSets.numbered([[0, 1]])[0].digest()


def test_pairs_name_every_label_of_every_photo() -> None:
    sets, labels = LabelSets.numbered(GIVEN)
    place, label = sets.pairs(labels[[4, 1, 0, 0]])
    assert [*zip(place.tolist(), label.tolist(), strict=True)] == [
        (0, 0), (0, 1), (0, 2), (2, 0), (2, 2), (3, 0), (3, 2),
    ]  # fmt: skip
    assert [each.tolist() for each in sets.pairs(labels[:0])] == [[], []]


def test_classes_that_are_not_wanted_leave_the_sets() -> None:
    sets, labels = LabelSets.numbered(GIVEN)
    fewer, called = sets.placed(np.array([1, -1, 0]))
    assert [fewer[label] for label in called[labels].tolist()] == [[0, 1], [], [], [0, 1], [0, 1]]
    assert len(fewer) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"members": np.array([0, 1, 3], np.int32)},
        {"members": np.array([-1, 1, 2], np.int32)},
        {"members": np.array([1, 0, 2], np.int32)},
        {"members": np.array([0, 0, 2], np.int32)},
        {"members": np.array([0, 1, 2], np.int64)},
        {"members": np.zeros((3, 1), np.int32)},
        {"ends": np.array([2, 4], np.int64)},
        {"ends": np.array([3, 2], np.int64)},
        {"ends": np.zeros(0, np.int64)},
        {"ends": np.array([2.0, 3.0])},
    ],
)
def test_sets_that_are_none_are_refused(change: dict[str, Any]) -> None:
    right = {"members": np.array([0, 1, 2], np.int32), "ends": np.array([2, 3], np.int64)}
    LabelSets(**right).check(3)
    LabelSets(np.array([1, 2, 0], np.int32), right["ends"]).check(3)  # 0 begins another set
    with pytest.raises(ValueError, match=r"set"):
        LabelSets(**(right | change)).check(3)
