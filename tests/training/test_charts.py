"""The report's charts as data: right places, also of values that are no numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flowerfast.training.charts import Panel, epoch_ticks, matrix, panels


def history(train: list[float], val: list[float]) -> list[dict[str, float]]:
    return [
        {"epoch": i, "train_acc": t, "val_acc": v, "train_loss": 2 * t, "val_loss": 2 * v}
        for i, (t, v) in enumerate(zip(train, val, strict=True))
    ]


def numbers(path: str) -> list[list[float]]:
    return [[float(n) for n in step.split()] for step in re.split("[ML]", path)[1:]]


def test_lines_run_through_the_values_and_the_star_marks_the_best() -> None:
    accuracy, loss = panels(history([0.2, 0.4, 0.6], [0.3, 0.9, 0.5]), best=1)
    low, high = 0.2 - 0.06 * 0.7, 0.9 + 0.06 * 0.7
    for panel, top, bottom in ((accuracy, high, low), (loss, 1.05 * 1.8, 0.0)):
        scale = (Panel.bottom - Panel.top) / (top - bottom)
        for (name, path, marks), values in zip(panel.lines, ([0.2, 0.4, 0.6], [0.3, 0.9, 0.5]), strict=True):
            factor = 1 if panel is accuracy else 2
            expected = [
                [
                    Panel.left + (i + 0.5) / 3 * (Panel.right - Panel.left),
                    Panel.bottom - (factor * v - bottom) * scale,
                ]
                for i, v in enumerate(values)
            ]
            assert np.allclose(numbers(path), expected, atol=0.06), name
            assert numbers(path) == [list(mark) for mark in marks]
    assert [name for name, _, _ in accuracy.lines] == ["train", "val"]
    assert accuracy.star == accuracy.lines[1][2][1]
    assert (accuracy.best, loss.star) == (accuracy.star[0], None)
    assert [label for _, label in accuracy.x_ticks] == ["1", "2", "3"]


@pytest.mark.parametrize("train", [[0.97, 1.0], [0.5, 0.5], [0.0, 1.0], [0.991, 0.992]])
def test_ticks_are_few_percentages_within_the_chart(train: list[float]) -> None:
    for panel in panels(history(train, train), best=0):
        assert 2 <= len(panel.y_ticks) <= 7
        assert all(Panel.top - 0.1 <= y <= Panel.bottom + 0.1 for y, _ in panel.y_ticks)
        shown = [label for _, label in panel.y_ticks]
        assert len(set(shown)) == len(shown)
        for _, label in panel.y_ticks:
            assert panel.title == "Loss" or 0 <= float(label.removesuffix("%")) <= 100


def test_a_line_is_broken_where_there_is_no_number() -> None:
    nan = float("nan")
    accuracy, loss = panels(history([0.1, nan, 0.3, 0.4], [nan, nan, nan, float("inf")]), best=0)
    assert accuracy.star is None
    for panel in (accuracy, loss):
        assert re.fullmatch(r"M[^ML]+M[^ML]+L[^ML]+", panel.lines[0][1])
        assert panel.lines[1][1:] == ("", [])


def test_many_epochs_have_no_marks_and_few_ticks() -> None:
    (accuracy, _) = panels(history([0.5] * 90, [0.5] * 90), best=3)
    assert not accuracy.lines[0][2]
    assert [label for _, label in accuracy.x_ticks] == ["1", *map(str, range(10, 91, 10))]
    assert epoch_ticks(40_000)[-1] == 40_000


def test_a_small_matrix_has_counts_and_how_dark_they_are() -> None:
    drawn = matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([3, 1, 2]), 3)
    assert drawn is not None
    assert drawn.rows == [[(3, 0.866), (1, 0.5), (0, 0.0)], [(0, 0.0), (2, 1.0), (0, 0.0)], [(0, 0.0)] * 3]
    assert not drawn.shades


def test_a_large_matrix_has_a_path_for_each_shade_and_a_huge_one_is_not_drawn() -> None:
    label = np.arange(40)
    drawn = matrix(np.append(label, 3), np.append(label, 7), np.append(np.full(40, 3), 1), 40)
    assert drawn is not None
    assert [dark for dark, _ in drawn.shades] == [0.5, 0.875, 1.0]
    assert drawn.shades[0][1] == "M56 24h8v8h-8z"
    assert [path.count("M") for _, path in drawn.shades] == [1, 1, 39]
    assert matrix(label, label, label, 201) is None
