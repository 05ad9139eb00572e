"""A result of `flowerfast bench` as one figure: stages in ms; loaders, training, the model in images/s."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowerfast.bench.compare import check_result
from flowerfast.errors import UserError

# Okabe and Ito: told apart by the colour-blind too.
STAGE, PRESENT, OTHER, MODEL, TRAIN = "#009e73", "#0072b2", "#9ac7e0", "#d55e00", "#e69f00"
_WHISKER = {"ecolor": "#444444", "capsize": 2.5, "elinewidth": 1}
_ROW, _WIDTH = 0.32, 8.0  # inches
# No date and no version of the library: the same result gives the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
Rows = dict[str, dict[str, Any]]


def check_plot_path(path: Path) -> None:
    """Raise UserError unless the suffix is one that can be drawn: to be called before minutes are spent."""
    if path.suffix.lower() not in METADATA:
        raise UserError(f"--plot {path}: {path.suffix or 'no suffix'} is not drawn; give .png, .svg or .pdf")


def plot_result(result: dict[str, Any], path: Path) -> None:
    """Draw a result into a .png, .svg or .pdf file, written under a temporary name and renamed.

    Raises UserError on another suffix, a file that cannot be written, or a result without figures.
    """
    check_result(result, "--plot")
    check_plot_path(path)
    suffix = path.suffix.lower()
    part = path.with_name(f".{path.name}.part")
    style: Any = {"svg.hashsalt": "flowerfast", "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 9}
    with matplotlib.rc_context(style):
        figure = _figure(result, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(part, format=suffix[1:], dpi=144, metadata=METADATA[suffix])
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise UserError(f"--plot {path}: {error.strerror}; give a file that can be written") from error


def _figure(result: dict[str, Any], path: Path) -> Figure:
    stages, rates = result.get("stages"), [*_rates(result)]
    parts = [draw for draw, there in ((_stages, stages), (_loaders, rates)) if there]
    if not parts:
        raise UserError(
            f"--plot {path}: the result has no figures to draw; measure the suites stages or loader"
        )
    counts = {_stages: len(stages["rows"]) if stages else 0, _loaders: len(rates)}
    heights = [_ROW * counts[part] + 0.25 for part in parts]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.55 * len(parts) + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, ax in zip(parts, axes, strict=True):
        part(result, ax)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.margins(y=0.25 / max(counts[part], 1))
    figure.suptitle(_title(result), x=0.01, ha="left", fontsize=9, color="#444444")
    return figure


def _title(result: dict[str, Any]) -> str:
    environment, data, settings = (result.get(part, {}) for part in ("environment", "data", "settings"))
    cpu = str(environment.get("cpu") or "CPU")
    device = str(environment.get("device") or "")
    named = device if device and not device.startswith("CPU") else cpu
    pieces = [f"flowerfast bench: {named}, {environment.get('cores', '?')} cores"]
    if "photos" in data:
        pieces.append(f"{data['photos']:,} photos of {data['mean_pixels'] / 1e6:.2f} megapixels")
    if "image_size" in settings:
        pieces.append(f"{settings['image_size']} px, batch {settings['batch_size']}")
    return "; ".join(pieces)


def _stages(result: dict[str, Any], ax: Axes) -> None:
    """Milliseconds of one core per image, one bar a stage that begins where the one above it ends."""
    part, left = result["stages"], 0.0
    names = [*part["rows"]]
    wide = max(part["sum_ms"], part.get("loader_ms", 0.0), sum(row["ms"] for row in part["rows"].values()))
    for place, (name, row) in enumerate(part["rows"].items()):
        ax.barh(place, row["ms"], left=left, color=STAGE, xerr=row["spread_ms"], error_kw=_WHISKER)
        share = row["ms"] / part["sum_ms"]
        text = f"{row['ms']:.3f}" + ("" if name == "host-to-device" else f"  ({share:.0%})")
        # Beside the bar, on the side with more room.
        after = left < 0.5 * wide
        edge = (
            left + row["ms"] + row["spread_ms"] if after else min(left, left + row["ms"] - row["spread_ms"])
        )
        _label(ax, edge, place, text, wide, after)
        left += row["ms"]
    if "loader_ms" in part:
        ax.axvline(part["loader_ms"], color=PRESENT, linewidth=1.2, linestyle="--")
        ax.text(
            part["loader_ms"],
            -0.62,
            f"loader, one worker: {part['loader_ms']:.2f} ",
            color=PRESENT,
            ha="right",
            va="bottom",
        )
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.08 * wide)
    ax.set_xlabel(f"milliseconds per image on one thread ({part['executor']}); whiskers ± spread")


def _rates(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(label, colour, row) of every bar: loaders, training, the model alone."""
    present = result.get("settings", {}).get("current")
    loaders = _measured(result, "loader")
    for name, row in loaders.items():
        now = name == (present if present in loaders else next(iter(loaders)))
        yield name, PRESENT if now else OTHER, row
    for name, row in _measured(result, "train").items():
        yield f"training: {name}", TRAIN, row
    for name, row in _measured(result, "model").items():
        yield name, MODEL, row


def _measured(result: dict[str, Any], suite: str) -> Rows:
    return {name: row for name, row in result.get(suite, {}).items() if "images_per_sec" in row}


def _label(ax: Axes, edge: float, place: int, text: str, wide: float, after: bool = True) -> None:
    """A figure beside a bar that ends, or begins, at `edge`; a line behind it does not cross it."""
    x, side = (edge + 0.01 * wide, "left") if after else (edge - 0.01 * wide, "right")
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    ax.text(x, place, text, va="center", ha=side, bbox=ground)


def _loaders(result: dict[str, Any], ax: Axes) -> None:
    """Images/s, whiskers lowest and highest round; the training step's rate as a line across the loaders."""
    bars = [*_rates(result)]
    rows = [row for _, _, row in bars]
    wide = max(row["high"] for row in rows)
    middle = [row["images_per_sec"] for row in rows]
    whiskers = (
        [row["images_per_sec"] - row["low"] for row in rows],
        [row["high"] - row["images_per_sec"] for row in rows],
    )
    ax.barh(
        range(len(bars)), middle, color=[colour for _, colour, _ in bars], xerr=whiskers, error_kw=_WHISKER
    )
    for place, row in enumerate(rows):
        text = (
            f"{row['images_per_sec']:,.0f}" if row["images_per_sec"] >= 10 else f"{row['images_per_sec']:.1f}"
        )
        if row.get("data_wait") is not None:
            text += f"  ({row['data_wait']:.0%} waiting for data)"
        _label(ax, row["high"], place, text, wide)
    step = _measured(result, "model").get("training step")
    if step and "loader" in result:
        ax.axvline(step["images_per_sec"], color=MODEL, linewidth=1.2, linestyle="--")
    ax.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.17 * wide)
    ax.xaxis.set_major_formatter("{x:,.0f}" if wide >= 10 else "{x:g}")
    ax.set_xlabel(
        "images/s; whiskers: lowest and highest round" + ("; dashed: the model's limit" if step else "")
    )
