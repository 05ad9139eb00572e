"""The pictures that a run leaves: curves and confusion matrix as PNG files.

The figures use matplotlib's object interface: pyplot would keep global state and choose a GUI backend.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flowerfast.files import write_bytes
from flowerfast.machine import ignore_warnings
from flowerfast.training.charts import MAX_MARKED, MAX_NUMBERED, accuracy_limits, epoch_ticks, halves
from flowerfast.training.page import short
from flowerfast.training.scores import Confusion, ratio

CURVES_PNG = "accuracy_loss_curve.png"
CONFUSION_PNG = "confusion_matrix.png"
TRAIN_COLOUR, VAL_COLOUR = "#0072b2", "#d55e00"  # Okabe and Ito: told apart by the colour-blind too
_LINES = {
    "train": (TRAIN_COLOUR, "-", "training"),
    "val": (VAL_COLOUR, "-", "validation"),
    "val_aug": (VAL_COLOUR, "--", "validation, augmented"),
}
"""(colour, style, name) of the lines that `charts.halves` names."""
MAX_LABELS = 120  # classes; beyond it a matrix cannot name them all, and the most frequent mistakes are drawn
MISTAKES_DRAWN = 30  # pairs of classes that are drawn then


def plot_curves(history: Sequence[Mapping[str, float]], out: Path, best_epoch: int | None = None) -> None:
    """Draw accuracy and loss per epoch, training and validation, to a PNG; the best epoch is marked.

    `history` holds the rows of metrics.jsonl (`epoch` counts from 0, accuracies are fractions of 1). The axis
    counts epochs from 1. Best is `best_epoch`, from 0; without it the highest `val_acc`, the earliest of
    equals. Raises ValueError without rows.
    """
    if not history:
        raise ValueError("plot_curves needs at least one epoch, got none")
    epochs = np.array([row["epoch"] for row in history], dtype=np.int64) + 1
    val_acc = np.array([row["val_acc"] for row in history], dtype=np.float64)
    best = int(np.argmax(np.nan_to_num(val_acc, nan=-1.0)))
    best = next((n for n, row in enumerate(history) if row["epoch"] == best_epoch), best)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for axes, key in ((accuracy, "acc"), (loss, "loss")):
        _draw_lines(axes, epochs, history, key)
        axes.axvline(epochs[best], color="0.55", linestyle=":", zorder=1)
    accuracy.plot(
        epochs[best],
        val_acc[best],
        "*",
        color=VAL_COLOUR,
        markersize=15,
        markeredgecolor="white",
        clip_on=False,
        zorder=5,
        label=f"best: {val_acc[best]:.1%} in epoch {epochs[best]}",
    )
    accuracy.set(title="Accuracy", ylim=accuracy_limits(history))
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    loss.set(title="Loss", ylim=(0, None))
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, out, dpi=150)


def plot_confusion(confusion: Any, classes: Sequence[str], out: Path) -> None:
    """Draw a confusion, or what `Confusion.read` takes for one, as a matrix to a PNG.

    Rows are true classes, columns predicted ones. The shade is the share of the row, the number the count;
    counts are left out where they could not be read. The right-hand axis gives each class's recall ("–" for a
    class without samples). Of more than MAX_LABELS classes the pairs most often confused are drawn as bars.
    Raises ValueError when the counts and the class names do not fit together.
    """
    counts, count = Confusion.read(confusion, classes), len(classes)
    if count > MAX_LABELS:
        _plot_mistakes(counts, classes, out)
        return
    confusion = counts.matrix()
    # The matrix fills the figure and has a fixed cell size; the tight bounding box then adds what the labels
    # need, however long the names are.
    cell = min(max(5.5 / count, 0.3 if count <= MAX_NUMBERED else 0.2), 1.3, 24 / count)  # inches
    side = count * cell
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    shares = ratio(confusion, confusion.sum(axis=1, keepdims=True))
    # On a linear scale a mistake that takes 3 % of a class would be as good as white.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    _label_classes(axes, confusion, classes, cell)
    _number_cells(axes, confusion, shares, cell)
    bar = figure.add_axes((1 + 1.1 / side, 0, 0.14 / side, 1))
    figure.colorbar(image, cax=bar, format=PercentFormatter(xmax=1), label="share of the true class")
    accuracy = float(ratio(np.trace(confusion), confusion.sum()))
    axes.set_title(f"{accuracy:.1%} of {confusion.sum():,} photos right", pad=10)
    _save(figure, out, dpi=150 if count <= MAX_NUMBERED else 100)


def _plot_mistakes(confusion: Confusion, classes: Sequence[str], out: Path) -> None:
    mistakes = confusion.mistakes(MISTAKES_DRAWN)
    figure = Figure(figsize=(9, 1.5 + 0.26 * max(len(mistakes), 2)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        range(len(mistakes)), [number for _, _, number in mistakes], color=VAL_COLOUR, height=0.7
    )
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    names = [f"{short(classes[true])} → {short(classes[predicted])}" for true, predicted, _ in mistakes]
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="photos", ylabel="true class → predicted class")
    total = int(confusion.count.sum())
    axes.set_title(f"{confusion.accuracy():.1%} of {total:,} photos right; most frequent mistakes", pad=10)
    _save(figure, out, dpi=120)


def _draw_lines(axes: Axes, epochs: np.ndarray, history: Sequence[Mapping[str, float]], key: str) -> None:
    last = int(epochs.max())
    style: dict[str, Any] = {"marker": "o" if last <= MAX_MARKED else "", "markersize": 4.5, "clip_on": False}
    for half in halves(history):
        colour, line, name = _LINES[half]
        values = [row[f"{half}_{key}"] for row in history]
        axes.plot(epochs, values, line, color=colour, label=name, zorder=3, **style)
    axes.set(xlabel="epoch", xlim=(0.5, last + 0.5), xticks=epoch_ticks(last))
    axes.grid(color="0.9", axis="y")
    axes.spines[["top", "right"]].set_visible(False)


def _label_classes(axes: Axes, confusion: np.ndarray, classes: Sequence[str], cell: float) -> None:
    ticks = list(range(0, len(classes), math.ceil(len(classes) / MAX_LABELS)))
    names = [short(classes[i]) for i in ticks]
    size = min(10.0, max(5.0, cell * 72 * 0.7))
    support = confusion.sum(axis=1)
    recall = ratio(np.diagonal(confusion), support)
    if max(map(len, names)) * size * 0.6 < cell * 72:
        angle, sideways, upright = 0, "center", "top"
    elif len(classes) <= 12:
        angle, sideways, upright = 40, "right", "top"
    else:
        angle, sideways, upright = 90, "right", "center"
    # parse_math: a "$" in a folder's name is a dollar, not the start of a formula.
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.set_xticks(
        ticks,
        names,
        fontsize=size,
        parse_math=False,
        rotation=angle,
        ha=sideways,
        va=upright,
        rotation_mode="anchor",
    )
    axes.set(xlabel="predicted class", ylabel="true class")
    right = axes.secondary_yaxis("right")
    right.set_yticks(ticks, [f"{recall[i]:.1%}" if support[i] else "–" for i in ticks], fontsize=size)
    right.set_ylabel("recall", labelpad=8)


def _number_cells(axes: Axes, confusion: np.ndarray, shares: np.ndarray, cell: float) -> None:
    digits = len(f"{confusion.max()}")
    size = min(12.0, cell * 72 * 0.85 / (0.62 * digits))  # a digit is 0.62 of the font size wide
    if len(confusion) > MAX_NUMBERED or size < 4.5:
        return
    for (row, column), number in np.ndenumerate(confusion):
        colour = "white" if shares[row, column] > 0.35 else "0.15" if number else "0.75"
        axes.text(column, row, f"{number}", ha="center", va="center", fontsize=size, color=colour)


def _save(figure: Figure, out: Path, dpi: int) -> None:
    FigureCanvasAgg(figure)
    # A script that the font lacks is drawn as boxes; the HTML table has the names in full.
    ignore_warnings(message="Glyph .* missing from")
    png = io.BytesIO()  # what a full disk lacks is known then
    figure.savefig(png, format="png", dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.12)
    write_bytes(out, png.getbuffer())
