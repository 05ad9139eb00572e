"""Names are text: what users call files, classes and runs is printed as it is and commands no terminal."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flowerfast.bench.show import report
from flowerfast.commands import output
from flowerfast.commands.answers import answers
from flowerfast.commands.differences import Difference
from flowerfast.commands.display import TrainDisplay, progress_bar
from flowerfast.commands.parity import Parity
from flowerfast.errors import RunFailed, UserError, printable
from flowerfast.packing.pack import Packed
from flowerfast.photos.table import BadFile
from flowerfast.training.trained import Prediction

Cli = Callable[..., tuple[int, str, str]]
NAMES = {
    "[old] rose": "[old] rose",
    "q[/new]": "q[/new]",
    "[bold]": "[bold]",
    "[link=https://a.b]c[/link]": "[link=https://a.b]c[/link]",
    "[red]\\[x\\": "[red]\\[x\\",
    ":rose: {0} %s $x$": ":rose: {0} %s $x$",
    "雛菊 ß": "雛菊 ß",
    "two\nlines\r\t": "two\\nlines\\r\\t",
    "esc\x1b[2J\x9b2J\x07\x7f": "esc\\x1b[2J\\x9b2J\\x07\\x7f",
    "turned \u202egpj.x\u2069\u2028": "turned \\u202egpj.x\\u2069\\u2028",
    "no UTF-8: \udcff\udc41": "no UTF-8: \\xff\\udc41",
}
each_name = pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=map(ascii, NAMES))


def assert_text(printed: str, shown: str) -> None:
    """The name is there in one piece, and nothing that commands a terminal."""
    assert shown in printed
    assert not [c for c in printed if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    printed.encode()


@each_name
def test_messages_of_errors_are_one_line(name: str, shown: str) -> None:
    for kind in (UserError, RunFailed):
        assert str(kind(f"{name}: no such folder")) == f"{shown}: no such folder"
    assert printable(shown) == shown
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def prediction(name: str) -> None:
    with answers({"json": None}, 1) as tell:
        tell(Prediction(name, ((name, 0.5),)))
        tell(Prediction(name, (), name))


SCORES: dict[str, Any] = {
    "accuracy": 1.0,
    "loss": 0.0,
    "samples": 2,
    "macro_f1": 1.0,
    "accuracy_interval": None,
    "macro_f1_interval": None,
    "calibration": {"ece": 0.1, "temperature": None, "problem": "all answers are right"},
}
"""Of an evaluation, what holds no names."""


def evaluation(name: str) -> None:
    row = {"name": name, "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2}
    bad = {"path": name, "error": name}
    result = {"per_class": [row], "bad_files": [bad], "notes": [name]}
    output.print_evaluation(result | SCORES)


def parity(name: str) -> None:
    step = Difference("decode", 3, 0.1, 1.0, 1, name, 0.1, 0.5)
    bad = (BadFile(name, name),)
    output.print_parity(Parity("cpu", "", "cpu", (step,), 3, bad, (name,), {}))


def packed(name: str) -> None:
    bad = (BadFile(name, name),)
    output.print_packed(Packed(1, 1, 0, 0, 1, {"jpg": 1}, "cls", 1, 1, bad, (name,), True), Path(name))


def bench(name: str) -> None:
    row = {"images_per_sec": 1.0, "spread": 0.0, "cpu_cores": None, "memory_bytes": None}
    result = {
        "environment": {"device": name, "cpu": name, "cores": 1, "git": None, "git_changed": False},
        "data": {"photos": 1, "mean_pixels": 1, "mean_bytes": 1},
        "settings": {"photos_per_epoch": 1, "model": name, "image_size": 1, "batch_size": 1, "workers": 1,
                     "rounds": 1, "left_out": {name: name}, "current": "cpu"},
        "loader": {name: row, "b": {"error": name}},
        "verdict": {"findings": [name], "advice": [], "bound": "loader"},
    }  # fmt: skip
    for part in report(result):
        output.out.print(part, soft_wrap=isinstance(part, str))


SINKS: list[Callable[[str], None]] = [
    prediction, evaluation, parity, packed, bench, output.complain,
    lambda name: output.out.print(f"report: {name}/report.html", soft_wrap=True),
]  # fmt: skip


@each_name
@pytest.mark.parametrize("sink", SINKS)
def test_what_commands_print_is_text(
    capsys: pytest.CaptureFixture[str], sink: Callable[[str], None], name: str, shown: str
) -> None:
    sink(name)
    assert_text("".join(capsys.readouterr()), shown)


@each_name
@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "terminal"])
def test_notes_and_titles_are_text(name: str, shown: str, terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)
    shown_by = TrainDisplay(console)
    shown_by.note(f"skipped: {name}")
    with progress_bar(console, name) as bar:
        bar(1, 2)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert f"skipped: {shown}\n" in printed


def test_a_title_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("flowerfast.commands.display.time.monotonic", lambda: float(next(now)))
    with progress_bar(console, "reading [old] {x}[/b]") as bar:
        bar(1, 2)
    assert isinstance(console.file, io.StringIO)
    assert "reading [old] {x}[/b]" in console.file.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [["train", "{}"], ["train", "photos", "{}"], ["{}"], ["train", "--{}"], ["train", "--set", "{}"],
     ["train", "--set", "{}=1"], ["train", "--set", "data.path={}"], ["train", "--config", "{}"],
     ["predict", "run", "{}"], ["evaluate", "{}", "photos"], ["evaluate", "run", "photos", "--half", "{}"],
     ["settings", "{}"], ["pack", "{}", "out"], ["train", "--backend", "{}"],
     ["scan", "{}"], ["bench", "--plot", "{}"], ["bench", "--compare", "{}"], ["parity", "{}"]],
    ids=" ".join,
)  # fmt: skip
def test_what_is_refused_is_refused_in_one_line_of_text(cli: Cli, arguments: list[str]) -> None:
    for name in ("q[/new]\x1b[2J\n:rose:\\", "[link=x]\udcff"):
        code, out, err = cli(*(argument.format(name) for argument in arguments))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("flowerfast: error: ")
        assert_text(err, printable(name)[:4])


@pytest.mark.parametrize(
    "arguments", [["train", ""], ["predict", "run", ""], ["train", "--out="], ["settings", ""]], ids=" ".join
)
def test_an_empty_argument_is_not_the_current_folder(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("'': an empty argument, of a variable that is not set perhaps; give a value\n")


@pytest.mark.parametrize(
    "arguments", [["train", "s3:///roses"], ["pack", "RED", "gs:///b/roses"], ["train", "--out=s3:///b"]],
    ids=" ".join,
)  # fmt: skip
def test_a_url_whose_bucket_is_empty_is_not_that_of_its_next_folder(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(", of a variable that is not set perhaps; put its name there\n")


def test_what_was_said_before_is_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"per_class": [], "bad_files": [], "notes": ["compiling", "other"]}
    output.print_evaluation(result | SCORES, ["compiling"])
    assert capsys.readouterr().err == "other\n"


def test_files_for_scripts_keep_names_as_they_are(tmp_path: Path) -> None:
    files: dict[str, Path | None] = {form: tmp_path / f"a.{form}" for form in ("json", "jsonl", "csv")}
    with answers(files, 1) as tell:
        for name in NAMES:
            tell(Prediction(name, ((name, 0.5),)))
    rows: list[Any] = json.loads((tmp_path / "a.json").read_text())
    assert rows == [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [row["top"][0]["name"] for row in rows] == [*NAMES]
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    # What is no UTF-8 cannot be in a file that is.
    assert [row["path"] for row in table][:-1] == [*NAMES][:-1]
    assert table[-1]["name_1"] == "no UTF-8: \\udcff\\udc41"
