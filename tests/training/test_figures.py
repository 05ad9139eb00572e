"""The PNG files of a run: right numbers, robust against odd names."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flowerfast.training.figures import TRAIN_COLOUR, plot_confusion, plot_curves
from tests.training.reports import make_history


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (2,)])
def test_matrix_that_does_not_fit_the_classes_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    matrix = np.zeros(shape, dtype=np.int64)
    with pytest.raises(ValueError, match=r"2 classes cannot have shape"):
        plot_confusion(matrix, ["a", "b"], tmp_path / "c.png")


def test_curves_mark_the_earliest_best_epoch(drawn: list[Figure], tmp_path: Path) -> None:
    plot_curves(make_history([0.7, 0.9, 0.8, 0.9]), tmp_path / "c.png")
    (figure,) = drawn
    accuracy, loss = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training",
        "validation",
        "best: 90.0% in epoch 2",
    ]
    for axes in (accuracy, loss):
        assert list(axes.get_xticks()) == [1, 2, 3, 4]
        assert np.asarray(axes.lines[0].get_xdata()).tolist() == [1, 2, 3, 4]
        assert np.asarray(axes.lines[2].get_xdata()).tolist() == [2, 2]  # the line through the best epoch
    assert np.asarray(accuracy.lines[1].get_ydata()).tolist() == [0.7, 0.9, 0.8, 0.9]
    assert np.asarray(loss.lines[0].get_ydata()).tolist() == pytest.approx([0.9, 0.45, 0.3, 0.225])


def test_one_epoch_shows_a_mark_in_both_panels(drawn: list[Figure], tmp_path: Path) -> None:
    plot_curves(make_history([0.5]), tmp_path / "c.png")
    assert [list(axes.get_xticks()) for axes in drawn[0].axes] == [[1], [1]]
    with Image.open(tmp_path / "c.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    panels = pixels[: int(0.8 * len(pixels))]  # the legend below has the colour too
    blue = np.all(panels == [int(TRAIN_COLOUR[i : i + 2], 16) for i in (1, 3, 5)], axis=-1)
    half = blue.shape[1] // 2
    assert blue[:, :half].sum() > 30
    assert blue[:, half:].sum() > 30


@pytest.mark.parametrize("epochs", [15, 16, 90, 300, 40_000])
def test_epoch_ticks_are_few_whole_numbers_from_one(epochs: int, drawn: list[Figure], tmp_path: Path) -> None:
    plot_curves(make_history([0.5] * epochs), tmp_path / "c.png")
    ticks = list(drawn[0].axes[0].get_xticks())
    assert ticks[0] == 1
    assert ticks[-1] <= epochs
    assert len(ticks) <= 16
    assert all(tick == int(tick) for tick in ticks)


def test_accuracy_axis_stays_within_0_and_100_percent(drawn: list[Figure], tmp_path: Path) -> None:
    plot_curves([row | {"train_acc": 0.0} for row in make_history([1.0, 1.0])], tmp_path / "c.png")
    assert drawn[0].axes[0].get_ylim() == (0.0, 1.0)


def test_a_run_that_diverged_can_be_drawn(drawn: list[Figure], tmp_path: Path) -> None:
    nan = float("nan")
    rows = make_history([0.4, 0.2])
    rows[1] |= {"train_loss": nan, "val_loss": float("inf"), "val_acc": nan}
    plot_curves(rows, tmp_path / "c.png")
    assert drawn[0].legends[0].get_texts()[2].get_text() == "best: 40.0% in epoch 1"


def test_no_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one epoch"):
        plot_curves([], tmp_path / "c.png")


def test_confusion_shows_counts_shares_and_recall(drawn: list[Figure], tmp_path: Path) -> None:
    matrix = np.array([[30, 10, 0], [0, 5, 0], [0, 0, 0]])
    plot_confusion(matrix, ["a", "b", "c"], tmp_path / "c.png")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == [str(n) for n in matrix.flat]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    assert axes.get_title() == "77.8% of 45 photos right"
    (recall,) = axes.child_axes
    assert [label.get_text() for label in recall.get_yticklabels()] == ["75.0%", "100.0%", "–"]


@pytest.mark.parametrize(("count", "numbers"), [(2, 4), (30, 900), (31, 0), (500, 0)])
def test_confusion_of_any_size(count: int, numbers: int, drawn: list[Figure], tmp_path: Path) -> None:
    plot_confusion(np.eye(count, dtype=np.int64), [f"class {i}" for i in range(count)], tmp_path / "c.png")
    assert len(drawn[0].axes[0].texts) == numbers
    assert len(drawn[0].axes[0].get_yticks()) <= 120
    with Image.open(tmp_path / "c.png") as image:
        assert max(image.size) < 3200


def test_counts_too_long_for_their_cells_are_left_out(drawn: list[Figure], tmp_path: Path) -> None:
    plot_confusion(np.eye(25, dtype=np.int64) * 10**9, [f"{i}" for i in range(25)], tmp_path / "c.png")
    assert not drawn[0].axes[0].texts


def test_odd_class_names_are_drawn_in_one_short_line(drawn: list[Figure], tmp_path: Path) -> None:
    names = ["$x_$", "雛菊", "two\nlines", "bytes \x1b\udcff", "long " * 50, r"\frac"]
    plot_confusion(np.eye(len(names), dtype=np.int64), names, tmp_path / "c.png")
    shown = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert shown[:4] == ["$x_$", "雛菊", "two lines", "bytes \\x1b\\xff"]
    assert len(shown[4]) == 32
    assert shown[4].endswith("…")


def test_drawing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot_curves(make_history([0.5, 0.6]), tmp_path / f"{name}.png")
        plot_confusion(np.eye(3, dtype=np.int64), ["x", "y", "z"], tmp_path / f"{name}c.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "ac.png").read_bytes() == (tmp_path / "bc.png").read_bytes()
