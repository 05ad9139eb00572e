"""Reports of runs: the page of one, or several side by side, with what differs and what came of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from flowerfast.arguments import of_kind, path, progress_bars
from flowerfast.documents import MOST_JSON
from flowerfast.errors import UserError
from flowerfast.files import delivering
from flowerfast.machine import ProgressBars, no_bars
from flowerfast.photos.layout import nfc
from flowerfast.places import spelled
from flowerfast.training.charts import compared_panels
from flowerfast.training.page import render
from flowerfast.training.report import write_report
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.run_record import COMPARED, RunRecord, check_runs
from flowerfast.training.seal import Damaged, read_sealed

_NEEDED = (
    *("model", "parameters", "best_val_acc", "best_epoch", "epochs_run", "train_samples", "val_samples"),
    *("images_per_sec", "data_wait", "seconds", "backend", "device"),
)
_MORE = (
    *("best_val_map", "accuracy_interval", "macro_f1", "test_acc", "cache", "ranks", "commands"),
    "stopped_early",
)
"""What is taken over of a summary: all have the former, those of earlier versions not the latter."""
_LARGE_SPLIT = 16 * MOST_JSON  # bytes: it names every photo


@dataclass(frozen=True)
class Report:
    """A page that was written, and what it shows of its runs.

    Attributes:
        page: the file.
        runs: figures of each, by the names of summary.json, and `run`, its folder as it was given.
        settings: of several runs, those that are not the same in all, with the value of each.
        notes: what keeps them from being compared, a line each.
    """

    page: Path
    runs: list[dict[str, Any]]
    settings: dict[str, list[Any]]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The content of `flowerfast report --json`."""
        return {**vars(self), "page": str(self.page)}


def report(
    runs: Path | str | Sequence[Path | str], *, html: Path | str | None = None, bars: ProgressBars = no_bars
) -> Report:
    """Write the page of a run anew, or one page that compares several.

    Args:
        runs: folder of a run that has ended, or several.
        html: file to write; None: `report.html` in the folder of the run, of several `compare.html` in the
            current folder.
        bars: makes a progress bar with a title, which is told (done, total).

    Raises UserError when there is no such run, or its files are damaged; OSError when the page cannot be
    written.
    """
    of_kind("report: runs", runs, str | Path | list | tuple, "a run folder, or a list of them")
    given = [runs] if isinstance(runs, str | Path) else runs
    folders = [path("report: run", run) for run in given]
    out, bars = None if html is None else path("report: html", html), progress_bars(bars)
    check_runs(folders)
    records = [RunRecord.read(folder) for folder in folders]
    figures = [_figures(record) for record in records]
    if len(folders) == 1:
        return Report(write_report(folders[0], out, bars=bars), figures, {}, [])
    settings, notes = _differing(folders), _notes(records)
    page = _render(records, figures, settings, notes)
    with delivering(out or COMPARED) as fresh:
        fresh.write_text(page, encoding="utf-8", errors="backslashreplace")
    return Report(out or COMPARED, figures, settings, notes)


def _figures(record: RunRecord) -> dict[str, Any]:
    """What is compared of a run. Raises UserError when a value is missing."""
    summary = record.summary
    try:
        best = next(
            (row for row in record.history if row["epoch"] == summary["best_epoch"]), record.history[0]
        )
        found = {"run": spelled(record.path), **{key: summary[key] for key in _NEEDED}}
        found |= {"val_loss": best["val_loss"], "history": record.history}
    except (LookupError, TypeError) as error:
        raise record.lacks(error) from error
    found |= {key: summary.get(key) for key in _MORE}
    return found | {"ece": (summary.get("calibration") or {}).get("ece")}


def _differing(folders: Sequence[Path]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, by dotted key, with the value of each run."""
    configs = [RunFolder(folder).open().model_dump(mode="json") for folder in folders]
    keys = [(section, name) for section, values in configs[0].items() for name in values]
    columns = {f"{section}.{name}": [each[section][name] for each in configs] for section, name in keys}
    return {key: values for key, values in columns.items() if any(value != values[0] for value in values)}


def _notes(records: Sequence[RunRecord]) -> list[str]:
    """What keeps the runs' accuracies from being compared."""
    notes, first = [], records[0]
    for what, key in (("other classes", "classes"), ("augmented photos or clean ones", "val_protocol")):
        others = [spelled(each.path) for each in records if each.summary.get(key) != first.summary.get(key)]
        if others:
            verb = "validated on" if key == "val_protocol" else "have"
            notes.append(f"{', '.join(others)}: {verb} {what}, unlike {spelled(first.path)}")
    halves = [_validated(each.path) for each in records]
    unknown = [spelled(each.path) for each, half in zip(records, halves, strict=True) if half is None]
    other = [
        spelled(each.path)
        for each, half in zip(records, halves, strict=True)
        if None not in (half, halves[0]) and half != halves[0]
    ]
    if unknown:
        notes.append(f"{', '.join(unknown)}: which photos were validated on is not known (no split.json)")
    if other:
        notes.append(
            f"{', '.join(other)}: validated on other photos than {spelled(first.path)}, so that their "
            "accuracies and losses cannot be compared"
        )
    return notes


def _validated(run: Path) -> frozenset[str] | None:
    """Paths of the photos that a run was validated on; None: not known. Raises Damaged."""
    try:
        content = read_sealed(RunFolder(run).split, most=_LARGE_SPLIT)
        return frozenset(nfc(str(each)) for each in content["val"])
    except Damaged:
        raise
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _render(
    records: Sequence[RunRecord],
    figures: list[dict[str, Any]],
    settings: dict[str, list[Any]],
    notes: list[str],
) -> str:
    try:
        panels = [*compared_panels([record.history for record in records])]
        by = "best_val_acc" if any(run["best_val_map"] is None for run in figures) else "best_val_map"
        best = max(figures, key=lambda run: _finite(run[by]))[by]
        return render(
            "compare.html.j2",
            title=f"{len(records)} runs",
            runs=figures,
            settings=settings,
            notes=notes,
            panels=panels,
            best=best,
            by=by,
            models=len({run["model"] for run in figures}) > 1,
            shown={
                key: any(run[key] is not None for run in figures)
                for key in ("best_val_map", "macro_f1", "test_acc", "ece")
            },
        )
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:
        where = ", ".join(spelled(record.path) for record in records)
        raise UserError(f"{where}: summary.json or metrics.jsonl of one lacks a value ({error})") from error


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1.0
