"""The page of a run: one HTML file, drawn from the data in the run folder, so that it can be redrawn."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from flowerfast.errors import UserError
from flowerfast.files import delivering, write_text
from flowerfast.machine import ProgressBars, no_bars
from flowerfast.photos.photos import Photos
from flowerfast.training.charts import matrix, panels, reliability, speed_panels
from flowerfast.training.figures import (
    CONFUSION_PNG,
    CURVES_PNG,
    MAX_LABELS,
    MISTAKES_DRAWN,
    plot_confusion,
    plot_curves,
)
from flowerfast.training.page import render
from flowerfast.training.run_record import RunRecord
from flowerfast.training.samples import Pictures, run_pictures
from flowerfast.training.scores import Confusion

BEST_BY = {"accuracy": "accuracy", "macro_f1": "macro F1", "map": "mAP", "loss": "loss"}
"""What `eval.best` is called."""
MISTAKES = 8  # most frequent mistakes in the table


def write_report(
    run: Path, out: Path | None = None, photos: Photos | None = None, bars: ProgressBars = no_bars
) -> Path:
    """Write the page of a run from the files of its folder, and return its path.

    It is self-contained. PNG files that the folder lacks are drawn too, where the page is written there.

    Args:
        run: the folder of a run that has ended.
        out: where to; None: `run/report.html`.
        photos: those it was trained on, where they are open; None: they are opened as its settings say, and
            where that cannot be, the page says so and does without pictures.
        bars: makes progress bars.

    Raises UserError when a file is missing, damaged or lacks a value.
    """
    record = RunRecord.read(run)
    try:
        if out is None:
            _draw_missing(record)
        pictures = run_pictures(run, record.summary, photos, bars)
        page = _render(record, pictures)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:
        raise record.lacks(error) from error
    if out is None:
        write_text(run / "report.html", page)
        return run / "report.html"
    with delivering(out) as fresh:
        fresh.write_text(page, encoding="utf-8", errors="backslashreplace")
    return out


def _draw_missing(record: RunRecord) -> None:
    run, summary = record.path, record.summary
    if not (run / CURVES_PNG).exists():
        plot_curves(record.history, run / CURVES_PNG, summary["best_epoch"])
    if "confusion" in summary and not (run / CONFUSION_PNG).exists():
        plot_confusion(summary["confusion"], summary["classes"], run / CONFUSION_PNG)


def _render(record: RunRecord, pictures: Pictures) -> str:
    summary, history = record.summary, record.history
    classes, calibration = summary["classes"], summary.get("calibration")
    several = "threshold" in summary
    best = next((n for n, row in enumerate(history) if row["epoch"] == summary["best_epoch"]), 0)
    halves = summary.get("data", {}).get("halves")
    return render(
        "report.html.j2",
        title=record.path.resolve().name,
        summary=summary,
        history=history,
        **({"mistakes": [], "mistaken": 0, "matrix": None} if several else _confusion(summary, classes)),
        worst=summary.get("mistakes"),
        pictures=pictures,
        several=several,
        config=record.config,
        best_row=best,
        panels=panels(history, best),
        speeds=speed_panels(history),
        augmented=summary.get("val_protocol") == "augmented",
        nan=math.nan,  # of epochs of an earlier version, that a run has been resumed from
        best_by=BEST_BY[summary.get("best_by", "accuracy")],
        calibration=calibration,
        diagram=reliability(calibration["bins"]) if calibration else None,
        halves=halves,
        imbalance=_imbalance(halves) if halves else None,
        commands=summary.get("commands", []),
    )


def _confusion(summary: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Which classes were taken for which; of several labels a photo there is nothing of the kind."""
    confusion = Confusion.read(summary["confusion"], classes)
    return {
        "mistakes": _frequent_mistakes(confusion, classes),
        "mistaken": int(confusion.count[confusion.true != confusion.predicted].sum()),
        "matrix": matrix(confusion.true, confusion.predicted, confusion.count, len(classes)),
    }


def _imbalance(halves: dict[str, list[int]]) -> str:
    """How the largest class compares with the smallest, in words."""
    counts = [sum(each) for each in zip(*halves.values(), strict=True)]
    if not min(counts):
        return "One class has no photo"
    if max(counts) == min(counts):
        return "All classes have as many photos"
    return f"The largest class has {max(counts) / min(counts):.3g} times the photos of the smallest"


def _frequent_mistakes(confusion: Confusion, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs most often confused, most often first: more of them where there is no matrix."""
    samples, _, _ = confusion.totals()
    most = MISTAKES if len(classes) <= MAX_LABELS else MISTAKES_DRAWN
    return [
        {"true": classes[t], "predicted": classes[p], "count": number, "share": number / samples[t]}
        for t, p, number in confusion.mistakes(most)
    ]
