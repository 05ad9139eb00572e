"""What a run leaves for people to look at: curves, confusion matrix, one HTML page.

Everything is drawn from the data in the run folder, so it can be redrawn at any time. The figures use
matplotlib's object interface: pyplot would keep global state and choose a GUI backend.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flowerfast.documents import DocumentError, parse_json
from flowerfast.errors import UserError, printable
from flowerfast.files import read_text, write_bytes, write_text
from flowerfast.machine import ignore_warnings
from flowerfast.training.charts import (
    MAX_MARKED,
    MAX_NUMBERED,
    accuracy_limits,
    epoch_ticks,
    halves,
    matrix,
    panels,
    reliability,
)
from flowerfast.training.scores import Confusion, ratio
from flowerfast.training.seal import Damaged, check

CURVES_PNG = "accuracy_loss_curve.png"
CONFUSION_PNG = "confusion_matrix.png"
TRAIN_COLOUR, VAL_COLOUR = "#0072b2", "#d55e00"  # Okabe and Ito: told apart by the colour-blind too
_LINES = {
    "train": (TRAIN_COLOUR, "-", "training"),
    "val": (VAL_COLOUR, "-", "validation"),
    "val_aug": (VAL_COLOUR, "--", "validation, augmented"),
}
"""(colour, style, name) of the lines that `charts.halves` names."""
BEST_BY = {"accuracy": "accuracy", "macro_f1": "macro F1", "loss": "loss"}
"""What `eval.best` is called."""
MAX_LABELS = 120  # classes; beyond it a matrix cannot name them all, and the most frequent mistakes are drawn
MISTAKES, MISTAKES_DRAWN = 8, 30  # most frequent mistakes in the table, and where they are drawn
MAX_NAME = 32  # characters of a class name on an axis; the HTML table has the whole name


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
    names = [f"{_short(classes[true])} → {_short(classes[predicted])}" for true, predicted, _ in mistakes]
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="photos", ylabel="true class → predicted class")
    total = int(confusion.count.sum())
    axes.set_title(f"{confusion.accuracy():.1%} of {total:,} photos right; most frequent mistakes", pad=10)
    _save(figure, out, dpi=120)


def write_report(run: Path) -> Path:
    """Write `run/report.html` from the files of the run folder and return its path.

    The page is one self-contained file without scripts or links. Reads summary.json and config.yaml, and
    metrics.jsonl where an earlier version wrote the summary; a PNG that is missing is drawn too. Raises
    UserError when a file is missing, damaged or lacks a value.
    """
    summary = _parse(run / "summary.json", _read(run / "summary.json"))
    history = summary.get("history")
    if history is None:
        lines = _read(run / "metrics.jsonl").splitlines()
        history = [_parse(run / "metrics.jsonl", line) for line in lines if line.strip()]
    if not history:
        raise UserError(f"{run / 'metrics.jsonl'} has no epoch yet: let the run finish one")
    try:
        page = _render(run, summary, history)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
        raise UserError(
            f"{run}: summary.json or metrics.jsonl lacks a value ({error}): train again with this version"
        ) from error
    out = run / "report.html"
    write_text(out, page)
    return out


def _render(run: Path, summary: dict[str, Any], history: list[dict[str, Any]]) -> str:
    classes = summary["classes"]
    confusion = Confusion.read(summary["confusion"], classes)
    best = next((n for n, row in enumerate(history) if row["epoch"] == summary["best_epoch"]), 0)
    if not (run / CURVES_PNG).exists():
        plot_curves(history, run / CURVES_PNG, summary["best_epoch"])
    if not (run / CONFUSION_PNG).exists():
        plot_confusion(confusion, classes, run / CONFUSION_PNG)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flowerfast.training"),
        autoescape=True,  # class names, paths and settings are the user's
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, duration=_duration, thousands="{:,}".format, short=_short)
    calibration = summary.get("calibration")
    return environment.get_template("report.html.j2").render(
        title=run.resolve().name,
        summary=summary,
        history=history,
        mistakes=_frequent_mistakes(confusion, classes),
        config=_read(run / "config.yaml"),
        best_row=best,
        panels=panels(history, best),
        matrix=matrix(confusion.true, confusion.predicted, confusion.count, len(classes)),
        augmented=summary.get("val_protocol") == "augmented",
        nan=math.nan,  # of epochs of an earlier version, that a run has been resumed from
        best_by=BEST_BY[summary.get("best_by", "accuracy")],
        calibration=calibration,
        diagram=reliability(calibration["bins"]) if calibration else None,
    )


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
    names = [_short(classes[i]) for i in ticks]
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


def _short(name: str) -> str:
    """Make a class name fit an axis: one line, only what can be encoded, at most MAX_NAME characters."""
    line = printable(" ".join(name.split()))
    return line if len(line) <= MAX_NAME else line[: MAX_NAME - 1] + "…"


def _save(figure: Figure, out: Path, dpi: int) -> None:
    FigureCanvasAgg(figure)
    # A script that the font lacks is drawn as boxes; the HTML table has the names in full.
    ignore_warnings(message="Glyph .* missing from")
    png = io.BytesIO()  # what a full disk lacks is known then
    figure.savefig(png, format="png", dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.12)
    write_bytes(out, png.getbuffer())


def _read(path: Path) -> str:
    """A text file of a run, without the comment that is its checksum."""
    try:
        sealed = check(path)
        text = read_text(path)
    except Damaged:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path} ({reason}): give the folder of a run that has ended") from error
    return text.partition("\n")[2] if sealed and path.suffix == ".yaml" else text


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        value = parse_json(text.encode("utf-8"), finite=False)
    except DocumentError as error:
        raise UserError(f"{path} is damaged ({error}): train again or restore the file") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (not a JSON object): train again or restore the file")
    return value


def _frequent_mistakes(confusion: Confusion, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs most often confused, most often first: more of them where there is no matrix."""
    samples, _, _ = confusion.totals()
    most = MISTAKES if len(classes) <= MAX_LABELS else MISTAKES_DRAWN
    return [
        {"true": classes[t], "predicted": classes[p], "count": number, "share": number / samples[t]}
        for t, p, number in confusion.mistakes(most)
    ]


def _visible(value: Any) -> Any:
    """What stands on the page: control characters as escapes, for whoever prints its source."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "–"


def _duration(seconds: float) -> str:
    """Show seconds as "12.3 s", "4 min 05 s" or "2 h 07 min", with a space at which no line breaks."""
    if seconds < 59.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d}\N{NO-BREAK SPACE}s"
    return f"{minutes // 60} h {minutes % 60:02d}\N{NO-BREAK SPACE}min"
