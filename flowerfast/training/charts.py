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
    """A chart of one quantity by epoch, or by time. Places in pixels of the SVG, y downwards.

    Attributes:
        title: what is drawn.
        x_label: what is counted along it.
        x_ticks, y_ticks: (place, label).
        lines: per line its name (see `HALVES`), its path, and its marks (x, y).
        best: x of the best epoch; None: not marked.
        star: place of the best value, None where it is no number, or not marked.
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[str, str, list[tuple[float, float]]]]
    best: float | None = None
    star: tuple[float, float] | None = None

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


@dataclass(frozen=True)
class Axis:
    """A direction of a chart: from `low` to `high`, with (value, label) of its ticks."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def place(self, value: float, start: int, end: int) -> float:
        """Pixel of a value, where `low` is at `start` and `high` at `end`."""
        return round(start + (value - self.low) / (self.high - self.low) * (end - start), 1)


Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By name of a line the values along the chart and those up it; what is no number is not drawn."""


def panels(history: Sequence[Mapping[str, float]], best: int) -> Iterator[Panel]:
    """Accuracy and loss of the rows of metrics.jsonl, and where photos have several labels their mean average
    precision; `best` is the row of the best epoch.
    """
    shown = halves(history)
    star = history[best]["epoch"] + 1
    if "val_map" in history[0]:  # in training nobody ranks all photos
        line = {HALVES["val"]: _by_epoch(history, "val_map")}
        up = _share_axis(*_around(np.array(line[HALVES["val"]][1])))
        reached = history[best]["val_map"]
        yield _panel("Mean average precision", line, _epoch_axis(history), up, "epoch", star, reached)
    for title, key in (("Accuracy", "acc"), ("Loss", "loss")):
        lines = {HALVES[half]: _by_epoch(history, f"{half}_{key}") for half in shown}
        values = [value for _, line in lines.values() for value in line]
        up = _share_axis(*accuracy_limits(history)) if key == "acc" else _up_from_0(values)
        starred = history[best][f"val_{key}"] if key == "acc" and "val_map" not in history[0] else None
        yield _panel(title, lines, _epoch_axis(history), up, "epoch", star, starred)


def speed_panels(history: Sequence[Mapping[str, float]]) -> Iterator[Panel]:
    """Images per second, and the share of the time spent waiting for data, of the rows of metrics.jsonl."""
    across = _epoch_axis(history)
    images, waited = _by_epoch(history, "images_per_sec"), _by_epoch(history, "data_wait")
    yield _panel("Images/s in training", {"speed": images}, across, _up_from_0(images[1]), "epoch")
    yield _panel("Waiting for data", {"speed": waited}, across, _share_axis(0.0, _top(waited[1])), "epoch")


def compared_panels(histories: Sequence[Sequence[Mapping[str, float]]]) -> Iterator[Panel]:
    """Validation accuracy and loss of several runs, over epochs and over time; lines are called run-0, ...

    Time is that of training and validation; it counts from the start of the first epoch.
    """
    longest = max(histories, key=lambda history: history[-1]["epoch"])
    times = [np.cumsum([row["seconds"] for row in history]).tolist() for history in histories]
    clock, unit = _time_axis(max(max(line) for line in times))
    shown = [("Validation accuracy", "val_acc"), ("Validation loss", "val_loss")]
    if all("val_map" in history[0] for history in histories):
        shown = [("Validation mAP", "val_map"), *shown]
    for title, key in shown:
        columns = [_by_epoch(history, key) for history in histories]
        values = np.array([value for _, line in columns for value in line])
        up = _up_from_0(values) if key == "val_loss" else _share_axis(*_around(values))
        lines = {f"run-{n}": column for n, column in enumerate(columns)}
        yield _panel(title, lines, _epoch_axis(longest), up, "epoch")
        lines = {name: (time, column[1]) for (name, column), time in zip(lines.items(), times, strict=True)}
        yield _panel(title, lines, clock, up, unit)


def _panel(
    title: str,
    lines: Lines,
    across: Axis,
    up: Axis,
    x_label: str,
    best: float | None = None,
    starred: float | None = None,
) -> Panel:
    def place(x: float, y: float) -> tuple[float, float] | None:
        if not math.isfinite(y):
            return None
        return across.place(x, Panel.left, Panel.right), up.place(y, Panel.bottom, Panel.top)

    drawn = []
    for name, (xs, ys) in lines.items():
        places = [place(x, y) for x, y in zip(xs, ys, strict=True)]
        marks = [each for each in places if each is not None] if len(places) <= MAX_MARKED else []
        drawn.append((name, _path(places), marks))
    return Panel(
        title=title,
        x_label=x_label,
        x_ticks=[(across.place(value, Panel.left, Panel.right), label) for value, label in across.ticks],
        y_ticks=[(up.place(value, Panel.bottom, Panel.top), label) for value, label in up.ticks],
        lines=drawn,
        best=None if best is None else across.place(best, Panel.left, Panel.right),
        star=None if best is None or starred is None else place(best, starred),
    )


def _by_epoch(history: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Epochs, counted from 1, and what the rows have for a key; NaN where they have nothing."""
    return [row["epoch"] + 1 for row in history], [row.get(key, math.nan) for row in history]


def _epoch_axis(history: Sequence[Mapping[str, float]]) -> Axis:
    last = int(history[-1]["epoch"]) + 1
    return Axis(0.5, last + 0.5, [(epoch, f"{epoch:,}") for epoch in epoch_ticks(last)])


def _time_axis(longest: float) -> tuple[Axis, str]:
    """From 0 to so many seconds; and what is counted in."""
    size, unit = next((s, u) for s, u in ((1, "seconds"), (60, "minutes"), (3600, "hours"))
                      if longest < 180 * s or s == 3600)  # fmt: skip
    high = 1.02 * longest or 1.0
    return Axis(0.0, high, [(size * tick, f"{tick:g}") for tick in _ticks(0.0, high / size)]), unit


def _share_axis(low: float, high: float) -> Axis:
    """Shares of 1, as percentages."""
    ticks = _ticks(low, high)
    whole = all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in ticks)
    return Axis(low, high, [(tick, f"{tick:.0%}" if whole else f"{tick:.1%}") for tick in ticks])


def _up_from_0(values: Sequence[float] | np.ndarray) -> Axis:
    high = 1.05 * _top(values, 0.0) or 1.0
    return Axis(0.0, high, [(tick, f"{tick:,.10g}") for tick in _ticks(0.0, high)])


def _top(values: Sequence[float] | np.ndarray, least: float = 0.05) -> float:
    every = np.asarray(values, float)
    return float(np.max(every, where=np.isfinite(every), initial=least))


def _ticks(low: float, high: float) -> list[float]:
    return [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


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
    return _around(np.array([[row[f"{half}_acc"] for half in halves(history)] for row in history]))


def _around(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    margin = max(0.02, 0.06 * float(np.ptp(values)))
    return max(0.0, float(values.min()) - margin), min(1.0, float(values.max()) + margin)


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
