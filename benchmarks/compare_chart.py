"""Bar chart of docs/compare.md: images/s of each loader, as SVG."""

import hashlib
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.compare_tables import RESOLUTION, Rows, measured

COLOURS = {"ours": "#0072b2", "peer": "#999999", "paper": "#d55e00", "limit": "#dddddd"}
MEANING = {
    "ours": "flowerfast",
    "peer": "peers",
    "paper": "the paper's recipe",
    "limit": "no loader: a limit",
}
ROW_HEIGHT = 0.3  # inches


def digest(result: dict[str, Any]) -> str:
    """What the chart of these results carries, to be recognised by."""
    return "results " + hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


def is_drawn_from(chart: Path, result: dict[str, Any]) -> bool:
    """Whether the chart was drawn from these results."""
    return chart.is_file() and digest(result) in chart.read_text(encoding="utf-8")


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw the rows that have figures, by resolution, fastest on top; whiskers are lowest and highest round.

    The same results give the same bytes: no date, fixed ids, and text left as text.
    """
    rows = measured(result)
    groups = {photos: _sorted(rows, photos) for photos in RESOLUTION}
    groups = {photos: names for photos, names in groups.items() if names}
    heights = [len(names) + 1 for names in groups.values()]
    with matplotlib.rc_context({"svg.hashsalt": "flowerfast", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, ROW_HEIGHT * sum(heights) + 1), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (photos, names) in zip(axes, groups.items(), strict=True):
            _bars(ax, {name: rows[name] for name in names})
            ax.set_title(f"photos of {RESOLUTION[photos]}", loc="left", fontsize=9)
        axes[-1].set_xlabel(f"images/s on {result['environment']['cores']} cores")
        roles = [role for role in COLOURS if any(row["role"] == role for row in rows.values())]
        handles = [Patch(color=COLOURS[role], label=MEANING[role]) for role in roles]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        part = file.with_name(f".{file.name}.part")
        canvas.print_svg(part, metadata={"Date": None, "Description": digest(result)})
        part.replace(file)


def _sorted(rows: Rows, photos: str) -> list[str]:
    names = [name for name, row in rows.items() if row["photos"] == photos]
    return sorted(names, key=lambda name: rows[name]["images_per_sec"])


def _bars(ax: Any, rows: Rows) -> None:
    rates = [row["images_per_sec"] for row in rows.values()]
    below = [row["images_per_sec"] - row["low"] for row in rows.values()]
    above = [row["high"] - row["images_per_sec"] for row in rows.values()]
    bars = ax.barh(
        list(rows),
        rates,
        color=[COLOURS[row["role"]] for row in rows.values()],
        xerr=(below, above),
        ecolor="#555555",
    )
    ax.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=4)
    ax.margins(x=0.12)
    ax.spines[["top", "right"]].set_visible(False)
