"""Scores of several labels a photo: average precision by hand and by scikit-learn, counts at a threshold."""

import numpy as np
import pytest

from flowerfast.training.label_scores import LabelScores, average_precision


def draw(photos: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, many of them equal."""
    rng = np.random.default_rng(0)
    true = rng.random((photos, classes)) < [0.5, 0.2, 0.05, 0.9]
    return true, np.round(np.clip(true * 0.3 + rng.random((photos, classes)) * 0.7, 0, 1), 1)


def test_average_precision_by_hand() -> None:
    true = np.array([True, False, True, False, True])
    ranked = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    assert average_precision(true, ranked) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    # The second to fourth are ranked as one: two of the first four have it.
    tied = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    assert average_precision(true, tied) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert average_precision(true, np.zeros(5)) == pytest.approx(3 / 5)
    assert np.isnan(average_precision(~true[:1], ranked[:1]))
    assert np.isnan(average_precision(true[:0], ranked[:0]))


def test_counts_at_a_threshold_by_hand() -> None:
    true = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    chances = np.array([[0.9, 0.4, 0.1], [0.6, 0.6, 0.0], [0.5, 0.9, np.nan], [0.1, 0.2, 0.3]], np.float32)
    scores = LabelScores.of(true, chances, 0.5)
    assert scores.support.tolist() == [2, 2, 0]
    assert scores.predicted.tolist() == [3, 2, 0]
    assert scores.hits.tolist() == [2, 1, 0]
    assert scores.accuracy() == pytest.approx(9 / 12)
    assert scores.micro_f1() == pytest.approx(2 * 3 / (4 + 5))
    assert scores.macro_f1() == pytest.approx((2 * 2 / 5 + 2 * 1 / 4 + 0) / 3)
    assert scores.map() == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)  # without the label that no photo has
    rows = scores.report(["a", "b", "c"])["per_class"]
    assert [row["average_precision"] for row in rows] == [1.0, pytest.approx(5 / 6), None]
    assert rows[0] == {
        "name": "a", "average_precision": 1.0, "precision": pytest.approx(2 / 3), "recall": 1.0,
        "f1": pytest.approx(0.8), "support": 2,
    }  # fmt: skip
    back = LabelScores.read(scores.to_json(), ["a", "b", "c"])
    assert back.report(["a", "b", "c"]) == scores.report(["a", "b", "c"])
    for stored in (None, {}, {**scores.to_json(), "hits": [1, 2]}):
        with pytest.raises((ValueError, KeyError)):
            LabelScores.read(stored, ["a", "b", "c"])
    nothing = LabelScores.of(true[:0], chances[:0], 0.5)
    assert (nothing.map(), nothing.accuracy(), nothing.micro_f1()) == (0, 1, 0)


def test_the_figures_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    true, chances = draw()
    scores = LabelScores.of(true, chances, 0.5)
    each = metrics.average_precision_score(true, chances, average=None)
    assert scores.average == pytest.approx(each)
    assert scores.map() == pytest.approx(each.mean())
    for average, found in (("macro", scores.macro_f1()), ("micro", scores.micro_f1())):
        assert found == pytest.approx(metrics.f1_score(true, chances >= 0.5, average=average))
    assert scores.accuracy() == pytest.approx(1 - metrics.hamming_loss(true, chances >= 0.5))
