"""`report`: the page of a run drawn anew, or of several; wrong input in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.conftest import Trained

Cli = Callable[..., tuple[int, str, str]]


def test_a_report_is_drawn_anew_with_mistakes_and_samples(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    run = shutil.copytree(trained.run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    summary.pop("sha256")
    wrong = {"path": "red/03.jpg", "label": "red", "predicted": "<i>", "confidence": 0.75, "own": 0.25}
    summary["mistakes"] = [wrong]
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    code, printed, errors = cli("report", run)
    assert (code, printed, errors) == (0, f"report: {run / 'report.html'}\n", "")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 9  # one mistake, and a batch
    assert 'taken for <b class="wrong">&lt;i&gt;</b> 75.0%' in page
    assert "As training saw them" in page
    assert len(page) < 400_000
    # Elsewhere, the run folder is left alone.
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    assert cli("report", run, "--html", "page.html", "--json", "-")[0] == 0
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before
    assert Path("page.html").read_text(encoding="utf-8") == page


def test_runs_are_compared_here_and_json_has_it_all(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    for name in ("a", "b"):
        shutil.copytree(trained.run, tmp_path / name)
    code, printed, errors = cli("report", "a", "b", "--json", "-")
    assert (code, errors) == (0, "")
    found = json.loads(printed)
    assert (found["page"], found["settings"], found["notes"]) == ("compare.html", {}, [])
    assert [run["best_val_acc"] for run in found["runs"]] == [trained.summary["best_val_acc"]] * 2
    assert len(found["runs"][0]["history"]) == 6
    assert "2 runs compared" in Path("compare.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none"], "none: no such folder; give the folder of a run that has ended"),
        (["{run}", "{run}"], "named twice; name each run once"),
        (["{photos}"], "cannot read {photos}/summary.json (No such file or directory)"),
        (["{run}", "--html", "-"], "--html -: a page is no text for a terminal; name a file"),
        (["{run}", "--html", "{run}/summary.json"], "part of a run folder; name another file"),
        (["{run}", "--html", "x", "--json", "x"], "named twice"),
        (["{run}", "--json", "{photos}"], "is a folder; name a file in it"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], told: str, trained: Trained, cli: Cli) -> None:
    places = {"run": trained.run, "photos": trained.photos}
    code, printed, errors = cli("report", *(argument.format(**places) for argument in arguments))
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert told.format(**places) in errors
