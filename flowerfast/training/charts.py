"""Charts of the report as data for inline SVG and HTML, which take the page's colours: dark mode, print.

The PNG files of the run folder are drawn by `report`, with matplotlib; what both need stands here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

MAX_NUMBERED = 30  # classes; beyond it the counts in the cells cannot be read
MAX_DRAWN = 200  # classes; beyond it the cells of a matrix on a page cannot be told apart
MAX_MARKED = 60  # epochs; beyond it marks on a line run into each other
_LEVELS = 8  # shades of a large matrix: a path of SVG for each
_CELL = 8  # pixels: side of a cell of a large matrix


HALVES = {"train": "train", "val": "val", "val_aug": "val augmented"}
"""What is drawn by epoch: prefix in the rows of metrics.jsonl, name in a `Panel`. Not all have the last."""


def halves(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Those of `HALVES` that the rows have."""
    return [half for half in HALVES if f"{half}_acc" in history[0]]


@dataclass(frozen=True)
class Panel:
    """A chart of one quantity by epoch: training and validation. Places in pixels of the SVG, y downwards.

    Attributes:
        title: what is drawn.
        x_ticks, y_ticks: (place, label).
        lines: per line its name (see `HALVES`), its path, and its marks (x, y).
        best: x of the best epoch.
        star: place of the best value, None where it is no number, or not marked.
    """

    title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[str, str, list[tuple[float, float]]]]
    best: float
    star: tuple[float, float] | None

    width, height = 400, 240
    left, right, top, bottom = 48, 392, 10, 200


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        rows: per true class the cells (count, darkness 0..1), where there are few enough to show counts.
        shades: else, per darkness, one SVG path of all its cells, which are `cell` pixels wide.
    """

    rows: list[list[tuple[int, float]]]
    shades: list[tuple[float, str]]

    cell = _CELL


def panels(history: Sequence[Mapping[str, float]], best: int) -> Iterator[Panel]:
    """Accuracy and loss of the rows of metrics.jsonl; `best` is the row of the best epoch."""
    yield _panel("Accuracy", history, "acc", best)
    yield _panel("Loss", history, "loss", best)


def _panel(title: str, history: Sequence[Mapping[str, float]], key: str, best: int) -> Panel:
    last = int(history[-1]["epoch"]) + 1
    values = {half: np.array([row[f"{half}_{key}"] for row in history], float) for half in halves(history)}
    low, high = accuracy_limits(history) if key == "acc" else _loss_limits(values)

    def x(epoch: float) -> float:
        return round(Panel.left + (epoch - 0.5) / last * (Panel.right - Panel.left), 1)

    def y(value: float) -> float:
        return round(Panel.bottom - (value - low) / (high - low) * (Panel.bottom - Panel.top), 1)

    ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    whole = all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in ticks)
    shown = "{:g}" if key == "loss" else "{:.0%}" if whole else "{:.1%}"
    lines = []
    for half, line in values.items():
        places = [(x(row["epoch"] + 1), y(value)) if math.isfinite(value) else None
                  for row, value in zip(history, line, strict=True)]  # fmt: skip
        marks = [place for place in places if place is not None] if last <= MAX_MARKED else []
        lines.append((HALVES[half], _path(places), marks))
    value = float(values["val"][best])
    starred = key == "acc" and math.isfinite(value)
    at = x(history[best]["epoch"] + 1)
    return Panel(
        title=title,
        x_ticks=[(x(epoch), f"{epoch:,}") for epoch in epoch_ticks(last)],
        y_ticks=[(y(tick), shown.format(tick)) for tick in ticks],
        lines=lines,
        best=at,
        star=(at, y(value)) if starred else None,
    )


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, as bars beside the diagonal on which both are alike. Places as in `Panel`.

    Attributes:
        bars: of the bins that hold photos: (x, y, width, height, what a pointer is told).
        ticks: (place from the left, place from the top, label) of both axes.
    """

    bars: list[tuple[float, float, float, float, str]]
    ticks: list[tuple[float, float, str]]

    width, height = 260, 240
    left, right, top, bottom = 48, 238, 10, 200


def reliability(bins: Sequence[Mapping[str, float]]) -> Reliability:
    """The diagram of a calibration's bins, see `Calibration.to_json`."""
    across, up = Reliability.right - Reliability.left, Reliability.bottom - Reliability.top
    step, bars = across / len(bins), []
    for number, one in enumerate(bins):
        if one["count"]:
            tall = round(one["accuracy"] * up, 1)
            told = (
                f"{one['count']:,} photos: confidence {one['confidence']:.1%}, accuracy {one['accuracy']:.1%}"
            )
            place = round(Reliability.left + number * step + 1, 1), round(Reliability.bottom - tall, 1)
            bars.append((*place, round(step - 2, 1), tall, told))
    shares = (0.0, 0.5, 1.0)
    ticks = [(Reliability.left + s * across, Reliability.bottom - s * up, f"{s:.0%}") for s in shares]
    return Reliability(bars, ticks)


def _path(places: Sequence[tuple[float, float] | None]) -> str:
    """SVG path through the places; it is broken where there is none."""
    steps, pen = [], "M"
    for place in places:
        if place is None:
            pen = "M"
            continue
        steps.append(f"{pen}{place[0]:g} {place[1]:g}")
        pen = "L"
    return "".join(steps)


def epoch_ticks(last: int) -> list[int]:
    """Epochs, counted from 1, to name on an axis that ends with `last`."""
    step = next(s for s in (1, 5, 10, 25, 50, 100, 250, 500, 1000, last) if last <= 15 * s)
    return sorted({1, *range(step, last + 1, step)})


def accuracy_limits(history: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Limits around the values that never show accuracies outside 0 to 100 %."""
    values = np.array([[row[f"{half}_acc"] for half in halves(history)] for row in history])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    margin = max(0.02, 0.06 * float(np.ptp(values)))
    return max(0.0, float(values.min()) - margin), min(1.0, float(values.max()) + margin)


def _loss_limits(values: Mapping[str, np.ndarray]) -> tuple[float, float]:
    every = np.concatenate([*values.values()])
    return 0.0, 1.05 * float(np.max(every, where=np.isfinite(every), initial=0.0)) or 1.0


def matrix(true: np.ndarray, predicted: np.ndarray, count: np.ndarray, classes: int) -> Matrix | None:
    """The confusion matrix whose cells that are not 0 are given, each (m,); None: too many classes to draw.

    The darkness is the root of the share of the row: on a linear scale a mistake that takes 3 % of a class
    would be as good as white.
    """
    if classes > MAX_DRAWN:
        return None
    support = np.bincount(true, weights=count, minlength=classes)
    dark = np.sqrt(count / np.maximum(support[true], 1))
    if classes <= MAX_NUMBERED:
        rows = [[(0, 0.0)] * classes for _ in range(classes)]
        for t, p, n, d in zip(true.tolist(), predicted.tolist(), count.tolist(), dark.tolist(), strict=True):
            rows[t][p] = n, round(d, 3)
        return Matrix(rows, [])
    level = np.ceil(dark * _LEVELS).astype(int)
    shades = []
    for shade in np.unique(level).tolist():
        cells = zip(predicted[level == shade].tolist(), true[level == shade].tolist(), strict=True)
        path = "".join(f"M{p * _CELL} {t * _CELL}h{_CELL}v{_CELL}h-{_CELL}z" for p, t in cells)
        shades.append((shade / _LEVELS, path))
    return Matrix([], shades)
