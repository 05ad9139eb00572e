"""Photos with several labels, as a user meets them: one table through all commands."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.commands.answers import answers
from flowerfast.errors import UserError
from flowerfast.training import run as run_module
from flowerfast.training.report import write_report
from tests.commands.runs import SHORT, load, sets
from tests.tags import NAMES, cells, flags, tagged

Cli = Callable[..., tuple[int, str, str]]
SPACE = sets("data.label_separator=space")


@pytest.fixture
def has(tmp_path: Path) -> np.ndarray:
    return tagged(tmp_path, 24)


def test_one_table_through_all_commands(cli: Cli, has: np.ndarray, tmp_path: Path) -> None:
    cells(tmp_path / "tags.csv", has)
    code, out, err = cli("train", "tags.csv", *SHORT, *SPACE, "--out", "run", "--lr", 0.05)
    assert code == 0
    assert "24" not in err
    assert "best validation mAP " in out
    summary = load(tmp_path / "run/summary.json")
    code, out, _ = cli("evaluate", "run", "tags.csv", "--half", "val", "--json", "-")
    figures = json.loads(out)
    assert (code, figures["map"]) == (0, summary["best_val_map"])
    assert figures["per_class"] == summary["per_class"]
    code, out, _ = cli("evaluate", "run", "tags.csv", "--set", "eval.threshold=0.9")
    assert (code, "AP" in out, "at a probability of 0.9 micro F1" in out) == (0, True, True)
    code, out, _ = cli("pack", "tags.csv", "shards", *SPACE)
    assert "its labels KEY.json, the numbers of its classes" in out
    shards = json.loads(cli("evaluate", "run", "shards", "--json", "-")[1])
    assert shards["map"] == json.loads(cli("evaluate", "run", "tags.csv", "--json", "-")[1])["map"]
    code, out, err = cli("scan", "tags.csv", *SPACE, "--json", "scan.json")
    found = load(tmp_path / "scan.json")
    assert code == 0
    assert [count["photos"] for count in found["classes"]] == has.sum(0).tolist()
    assert found["imbalance"] == has.sum(0).max() / has.sum(0).min()
    assert f"classes are counted by label: {(~has.any(1)).sum()} of 24 photos have none" in err
    assert cli("show", "tags.csv", *SPACE, "--out", "s.png", "--samples", 1, "--epochs", 1)[0] == 0


def test_answers_name_the_labels_that_are_given(cli: Cli, has: np.ndarray, tmp_path: Path) -> None:
    flags(tmp_path / "flags.csv", has)
    columns = sets("data.label_columns=*", "train.epochs=1")
    assert cli("train", "flags.csv", *SHORT, *columns, "--out", "run")[0] == 0
    asked = ["predict", "run", "photos/00.jpg", "photos/07.jpg"]
    low, high = sets("eval.threshold=0.000001"), sets("eval.threshold=0.999999")
    code, out, _ = cli(*asked, *high)
    assert (code, out.count(": no label (")) == (0, 2)
    answers = json.loads(cli(*asked, *low, "--json", "-", "--top-k", 1)[1])
    assert [(len(answer["labels"]), len(answer["top"])) for answer in answers] == [(3, 1)] * 2
    assert answers[0]["labels"][0] == answers[0]["top"][0]["name"]
    lines = cli(*asked, *low, "--jsonl", "-", "--top-k", 1)[1].splitlines()
    assert [json.loads(line) for line in lines] == answers
    rows = [*csv.DictReader(io.StringIO(cli(*asked, *low, "--csv", "-")[1]))]
    assert [row["labels"] for row in rows] == ["|".join(answer["labels"]) for answer in answers]
    assert {*rows[0]["labels"].split("|")} == {*NAMES}


def test_labels_that_a_cell_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    files: dict[str, Path | None] = {"csv": tmp_path / "a.csv", "jsonl": tmp_path / "a.jsonl", "json": None}
    with (
        pytest.raises(UserError, match=r"--csv: \| stands .* class 'r\|d' has one; "),
        answers(files, 1, ["r|d"]),
    ):
        pass
    assert [*tmp_path.iterdir()] == []
    with answers({**files, "csv": None}, 1, ["r|d"]), answers(files, 1):  # of one class a photo
        pass


def test_what_is_not_for_several_labels_is_refused_in_one_line(
    cli: Cli, has: np.ndarray, tmp_path: Path
) -> None:
    cells(tmp_path / "tags.csv", has)
    flags(tmp_path / "flags.csv", has)
    for arguments, said in (
        (["train", "tags.csv", *SPACE, *sets("train.sampling=balanced")], "has several labels a photo, wh"),
        (["tune", "tags.csv", *SPACE, "--out", "t"], "and the search compares accuracies of one"),
        (
            ["train", "flags.csv", *sets("data.label_columns=blau")],
            "no column 'blau'; did you mean 'blue'?",
        ),
        (["train", "flags.csv", *sets("data.label_columns=blue"), *SPACE], "drop this or label_separator"),
        (["train", "tags.csv"], "no column for the label, such as label, class"),
        (["scan", ".", *SPACE], "class folders, and data.label_separator or data."),
        (["pack", "tags.csv", "out", *sets("data.label_columns=*")], "line 2: '' in column 'tags', which is"),
    ):
        code, _, err = cli(*arguments, *(SHORT if arguments[0] == "train" else []))
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
    assert not (tmp_path / "t").exists()


def test_the_report_ranks_classes_by_average_precision(
    cli: Cli, has: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells(tmp_path / "tags.csv", has)
    monkeypatch.setattr(run_module, "draw", lambda *given: write_report(given[0].path, photos=given[3]))
    assert cli("train", "tags.csv", *SHORT, *SPACE, *sets("augment.mixup=1"), "--out", "run")[0] == 0
    page = (tmp_path / "run/report.html").read_text()
    for words in ("Best validation mAP", "Mean average precision", "<th>AP</th>", "Right decisions"):
        assert words in page
    for words in ("Confusion matrix", "Calibration", "taken for"):
        assert words not in page
    worst = load(tmp_path / "run/summary.json")["mistakes"]
    assert page.count("<figcaption>labelled") == sum(row["there"] for row in worst)
    assert page.count("<figcaption>not labelled") == sum(not row["there"] for row in worst) > 0
    assert not (tmp_path / "run/confusion_matrix.png").exists()
    assert cli("train", "tags.csv", *SHORT, *SPACE, *sets("train.epochs=1"), "--out", "other")[0] == 0
    code, out, _ = cli("report", "run", "other", "--html", "both.html", "--json", "-")
    assert code == 0
    maps = [run["best_val_map"] for run in json.loads(out)["runs"]]
    assert maps == [load(tmp_path / name / "summary.json")["best_val_map"] for name in ("run", "other")]
    assert "<th>Validation mAP</th>" in (tmp_path / "both.html").read_text()
