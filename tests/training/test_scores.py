"""Confusion: of few classes and of very many, as it is kept and as it was kept before."""

import json
from typing import Any

import numpy as np
import pytest

from flowerfast.training.scores import Confusion, classification_report, intervals

NAMES = ("a", "b", "c")
MATRIX = [[3, 1, 0], [0, 0, 0], [2, 0, 4]]


def test_a_matrix_of_an_earlier_version_and_the_pairs_are_one_confusion() -> None:
    dense = Confusion.read(MATRIX, NAMES)
    stored = json.loads(json.dumps(dense.to_json()))
    assert stored == {"true": [0, 0, 2, 2], "predicted": [0, 1, 0, 2], "count": [3, 1, 2, 4]}
    again = Confusion.read(stored, NAMES)
    assert dense.matrix().tolist() == again.matrix().tolist() == MATRIX
    assert [part.tolist() for part in again.totals()] == [[4, 0, 6], [5, 1, 4], [3, 0, 4]]
    assert again.accuracy() == 0.7
    assert again.mistakes(9) == [(2, 0, 2), (0, 1, 1)]
    assert again.mistakes(1) == [(2, 0, 2)]
    assert classification_report(MATRIX, NAMES) == classification_report(stored, NAMES)


def test_samples_are_counted_by_pair() -> None:
    true, predicted = np.array([2, 0, 0, 2, 0]), np.array([2, 1, 0, 2, 1])
    assert Confusion.of(true, predicted, 3).matrix().tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 2]]
    nothing = Confusion.of(np.zeros(0, np.int64), np.zeros(0, np.int64), 3)
    assert (nothing.accuracy(), nothing.mistakes(3), nothing.matrix().sum()) == (0, [], 0)


@pytest.mark.parametrize(
    "stored",
    [
        [[1, 0], [0, 1]],
        {"true": [3], "predicted": [0], "count": [1]},
        [],
        {"true": [-1], "predicted": [0], "count": [1]},
    ],
)
def test_what_does_not_fit_the_classes_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match="3 classes cannot have"):
        Confusion.read(stored, NAMES)


def test_very_many_classes_take_little_room() -> None:
    names, rng = [f"class {i}" for i in range(30_000)], np.random.default_rng(0)
    true, predicted = rng.integers(0, len(names), (2, 60_000))
    confusion = Confusion.of(true, predicted, len(names))  # as a matrix: 7.2 GB
    report = classification_report(confusion, names)
    assert sum(row["support"] for row in report["per_class"]) == 60_000
    assert len(json.dumps(confusion.to_json())) < 2e6
    assert report["accuracy"] == np.mean(true == predicted)


def test_macro_f1_is_the_mean_over_all_classes() -> None:
    counts = Confusion.read(MATRIX, NAMES)
    assert counts.macro_f1() == pytest.approx((6 / 9 + 0 + 8 / 10) / 3)
    assert counts.macro_f1() == classification_report(MATRIX, NAMES)["macro_f1"]


def test_intervals_are_those_of_samples_drawn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 150)
    predicted = np.where(rng.random(150) < 0.7, true, rng.integers(0, 4, 150))
    drawn = rng.integers(0, 150, (3000, 150))
    resamples = [Confusion.of(true[rows], predicted[rows], 5) for rows in drawn]
    expected = {
        "accuracy_interval": np.quantile([one.accuracy() for one in resamples], [0.025, 0.975]),
        "macro_f1_interval": np.quantile([one.macro_f1() for one in resamples], [0.025, 0.975]),
    }
    found = intervals(Confusion.of(true, predicted, 5), seed=3)
    for name, ends in expected.items():
        assert found[name] == pytest.approx(ends, abs=0.012)


def test_intervals_follow_from_the_seed() -> None:
    counts = Confusion.read(MATRIX, NAMES)
    assert intervals(counts, 1) == intervals(counts, 1) != intervals(counts, 2)
    json.dumps(intervals(counts, 1))


def test_where_there_is_nothing_to_draw_from_or_too_much_there_is_no_interval() -> None:
    none = np.zeros(0, np.int64)
    assert intervals(Confusion.of(none, none, 3), 0) == {"accuracy_interval": None, "macro_f1_interval": None}
    kinds = np.arange(2001)
    many = intervals(Confusion.of(kinds, kinds, 2001), 0)
    assert many == {"accuracy_interval": [1.0, 1.0], "macro_f1_interval": None}
