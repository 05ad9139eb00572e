"""Bar chart of docs/compare.md: images/s of each loader, as SVG."""

import hashlib
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.compare_tables import RESOLUTION, Rows
from flowerfast.bench.plot import STYLE, save, whiskers
from flowerfast.bench.result import measured

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
    rows = measured(result, "loader")
    names = sorted(rows, key=lambda name: rows[name]["images_per_sec"])
    groups = {photos: [name for name in names if rows[name]["photos"] == photos] for photos in RESOLUTION}
    groups = {photos: group for photos, group in groups.items() if group}
    heights = [len(group) + 1 for group in groups.values()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, ROW_HEIGHT * sum(heights) + 1), layout="constrained")
        axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (photos, group) in zip(axes, groups.items(), strict=True):
            _bars(ax, {name: rows[name] for name in group})
            ax.set_title(f"photos of {RESOLUTION[photos]}", loc="left", fontsize=9)
        axes[-1].set_xlabel(f"images/s on {result['environment']['cores']} cores")
        roles = [role for role in COLOURS if any(row["role"] == role for row in rows.values())]
        handles = [Patch(color=COLOURS[role], label=MEANING[role]) for role in roles]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        save(figure, file, Description=digest(result))


def _bars(ax: Any, rows: Rows) -> None:
    rates = [row["images_per_sec"] for row in rows.values()]
    colours = [COLOURS[row["role"]] for row in rows.values()]
    bars = ax.barh(list(rows), rates, color=colours, xerr=whiskers([*rows.values()]), ecolor="#555555")
    ax.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=4)
    ax.margins(x=0.12)
    ax.spines[["top", "right"]].set_visible(False)
