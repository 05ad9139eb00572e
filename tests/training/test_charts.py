"""The report's charts as data: right places, also of values that are no numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flowerfast.training.charts import (
    Panel,
    _time_axis,
    compared_panels,
    epoch_ticks,
    matrix,
    panels,
    speed_panels,
)


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


def test_runs_are_drawn_over_epochs_and_over_the_time_that_they_took() -> None:
    runs = [history([0.1, 0.2], [0.5, 0.7]), history([0.1] * 4, [0.6, 0.6, float("nan"), 0.8])]
    timed = [[{**row, "seconds": s} for row in rows] for rows, s in zip(runs, (100.0, 50.0), strict=True)]
    by_epoch, by_time, loss, loss_by_time = compared_panels(timed)
    assert [panel.x_label for panel in (by_epoch, by_time, loss, loss_by_time)] == ["epoch", "minutes"] * 2
    assert [name for name, _, _ in by_time.lines] == ["run-0", "run-1"]
    wide = Panel.right - Panel.left
    expected = [[Panel.left + seconds / (1.02 * 200) * wide for seconds in line]
                for line in ((100, 200), (50, 100, 200))]  # fmt: skip
    for (_, _, marks), places in zip(by_time.lines, expected, strict=True):
        assert [x for x, _ in marks] == pytest.approx(places, abs=0.06)
    assert [x for x, _ in by_epoch.lines[0][2]] == pytest.approx(
        [Panel.left + wide / 8 * n for n in (1, 3)], abs=0.06
    )
    for one, other in zip(by_epoch.lines, by_time.lines, strict=True):
        assert [y for _, y in one[2]] == [y for _, y in other[2]]
    ends = [("run-0", 200.0), ("run-1", 200.0)]
    assert [(name, marks[-1][0]) for name, _, marks in loss_by_time.lines] == [
        (name, round(Panel.left + seconds / 204 * wide, 1)) for name, seconds in ends
    ]
    assert by_time.x_ticks[0] == (Panel.left, "0")


@pytest.mark.parametrize(
    ("longest", "unit", "last"), [(0.0, "seconds", 1.0), (179, "seconds", 180), (181, "minutes", 3.2),
                                  (10_799, "minutes", 190), (10_801, "hours", 3.2), (4e5, "hours", 120)]
)  # fmt: skip
def test_time_is_counted_in_what_gives_small_numbers(longest: float, unit: str, last: float) -> None:
    axis, found = _time_axis(longest)
    assert found == unit
    labels = [float(label) for _, label in axis.ticks]
    assert 3 <= len(labels) <= 7
    assert labels[-1] <= last
    assert axis.ticks[-1][0] <= axis.high


def test_speed_and_waiting_stand_side_by_side_by_epoch() -> None:
    rows = [{"epoch": n, "images_per_sec": 100.0 * n, "data_wait": 0.02 * n} for n in range(3)]
    speed, waiting = speed_panels(rows)
    assert [panel.title for panel in (speed, waiting)] == ["Images/s in training", "Waiting for data"]
    assert numbers(speed.lines[0][1])[0][1] == Panel.bottom
    assert waiting.y_ticks[0][1] == "0%"
    assert (speed.best, waiting.star) == (None, None)
