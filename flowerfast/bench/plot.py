"""A result of `flowerfast bench` as one figure: stages in ms; loaders, training, the model in images/s."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowerfast.bench.result import BESIDE, Row, check_result, measured, present, training_step
from flowerfast.errors import UserError, WriteFailed
from flowerfast.files import delivering

# Okabe and Ito: told apart by the colour-blind too.
STAGE, PRESENT, OTHER, MODEL, TRAIN = "#009e73", "#0072b2", "#9ac7e0", "#d55e00", "#e69f00"
_WHISKER = {"ecolor": "#444444", "capsize": 2.5, "elinewidth": 1}
_ROW, _WIDTH = 0.32, 8.0  # inches
_APART = 20  # times the shortest bar: beyond it a linear axis shows that one as a line
STYLE: Any = {
    "svg.hashsalt": "flowerfast",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.size": 9,
    "text.parse_math": False,
}
# No date and no version of the library: the same result gives the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def check_plot_path(path: Path) -> None:
    """Raise UserError unless the suffix is one that can be drawn: to be called before minutes are spent."""
    if path.suffix.lower() not in METADATA:
        raise UserError(f"--plot {path}: {path.suffix or 'no suffix'} is not drawn; give .png, .svg or .pdf")


def plot_result(result: dict[str, Any], path: Path) -> None:
    """Draw a result into a .png, .svg or .pdf file.

    Raises UserError on another suffix, a file that cannot be written, or a result without figures;
    WriteFailed where its disk is full, broken or read-only.
    """
    check_result(result, "--plot")
    check_plot_path(path)
    with matplotlib.rc_context(STYLE):
        figure = _figure(result, path)
        try:
            save(figure, path)
        except WriteFailed:
            raise
        except OSError as error:
            raise UserError(f"--plot {path}: {error.strerror}; give a file that can be written") from error


def save(figure: Figure, path: Path, **metadata: str) -> None:
    """Write a figure in the format of the suffix: whole, or not at all. Raises OSError."""
    suffix = path.suffix.lower()
    drawn = io.BytesIO()  # what a full disk lacks is known then
    figure.savefig(drawn, format=suffix[1:], dpi=144, metadata=METADATA[suffix] | metadata)
    with delivering(path) as fresh:
        fresh.write_bytes(drawn.getbuffer())


def _figure(result: dict[str, Any], path: Path) -> Figure:
    counts = {_stages: len(result.get("stages", {}).get("rows", ())), _loaders: len([*_rates(result)])}
    parts = [draw for draw, count in counts.items() if count]
    if not parts:
        raise UserError(
            f"--plot {path}: the result has no figures to draw; measure the suites stages or loader"
        )
    heights = [_ROW * counts[part] + 0.25 for part in parts]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.55 * len(parts) + 0.75), layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, ax in zip(parts, axes, strict=True):
        part(result, ax)
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.margins(y=0.25 / counts[part])
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
    wide = max(part["sum_ms"], part.get("loader_ms", 0.0), sum(row["ms"] for row in part["rows"].values()))
    for place, (name, row) in enumerate(part["rows"].items()):
        ax.barh(place, row["ms"], left=left, color=STAGE, xerr=row["spread_ms"], error_kw=_WHISKER)
        share = row["ms"] / part["sum_ms"]
        text = f"{row['ms']:.3f}" + ("" if name == BESIDE else f"  ({share:.0%})")
        # Beside the bar, on the side with more room.
        after = left < 0.5 * wide
        end, reach = left + row["ms"], row["spread_ms"]
        _label(ax, end + reach if after else min(left, end - reach), place, text, after)
        left = end
    if "loader_ms" in part:
        ax.axvline(part["loader_ms"], color=PRESENT, linewidth=1.2, linestyle="--")
        text = f"loader, one worker: {part['loader_ms']:.2f} "
        ax.text(part["loader_ms"], -0.62, text, color=PRESENT, ha="right", va="bottom")
    ax.set_yticks(range(len(part["rows"])), [*part["rows"]])
    ax.set_xlim(0, 1.08 * wide)
    ax.set_xlabel(f"milliseconds per image on one thread ({part['executor']}); whiskers ± spread")


def _rates(result: dict[str, Any]) -> Iterator[tuple[str, str, Row]]:
    """(label, colour, row) of every bar: loaders, training, the model alone."""
    now = present(result, "loader")
    for name, row in measured(result, "loader").items():
        yield name, PRESENT if row is now else OTHER, row
    for name, row in measured(result, "train").items():
        yield f"training: {name}", TRAIN, row
    for name, row in measured(result, "model").items():
        yield name, MODEL, row


def _label(ax: Axes, edge: float, place: int, text: str, after: bool = True) -> None:
    """A figure beside a bar that ends, or begins, at `edge`; a line behind it does not cross it."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    options: dict[str, Any] = {"textcoords": "offset points", "va": "center", "bbox": ground}
    ax.annotate(text, (edge, place), (4 if after else -4, 0), ha="left" if after else "right", **options)


def _loaders(result: dict[str, Any], ax: Axes) -> None:
    """Images/s, whiskers lowest and highest round; the training step's rate as a line across the loaders."""
    labels, colours, rows = zip(*_rates(result), strict=True)
    wide = max(row["high"] for row in rows)
    rates = [row["images_per_sec"] for row in rows]
    ax.barh(range(len(rows)), rates, color=list(colours), xerr=whiskers(rows), error_kw=_WHISKER)
    for place, (rate, row) in enumerate(zip(rates, rows, strict=True)):
        text = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        if row.get("data_wait") is not None:
            text += f"  ({row['data_wait']:.0%} waiting for data)"
        _label(ax, row["high"], place, text)
    step = training_step(result)
    if step and "loader" in result:
        ax.axvline(step["images_per_sec"], color=MODEL, linewidth=1.2, linestyle="--")
    ax.set_yticks(range(len(rows)), labels)
    least = min(row["low"] for row in rows)
    apart = wide > _APART * least
    if apart:  # on a linear axis the shortest bars could not be seen
        ax.set_xscale("log")
        start = least / 2
        ax.set_xlim(start, wide * (wide / start) ** 0.17)
    else:
        ax.set_xlim(0, 1.17 * wide)
    ax.xaxis.set_major_formatter("{x:,g}")
    scale = ", logarithmic" * apart
    told = "; dashed: the model's limit" * bool(step)
    ax.set_xlabel(f"images/s{scale}; whiskers: lowest and highest round{told}")


def whiskers(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """From each row's figure down to its lowest round and up to its highest."""
    below = [row["images_per_sec"] - row["low"] for row in rows]
    return below, [row["high"] - row["images_per_sec"] for row in rows]
