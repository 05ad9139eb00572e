"""Several runs on one page: what came of them, what differs, and what cannot be compared."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import flowerfast as ff
from flowerfast.errors import UserError
from flowerfast.training.run_record import MOST
from tests.training.reports import HOSTILE, Page, make_history, make_run


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run(name: str, val: list[str], lr: float = 0.001, **changes: Any) -> Path:
    folder = make_run(Path(name), **changes)
    (folder / "config.yaml").write_text(f"train:\n  lr: {lr}\ndata:\n  path: /photos\n")
    (folder / "split.json").write_text(json.dumps({"train": [], "val": val}))
    return folder


def test_runs_stand_side_by_side_with_what_differs(tmp_path: Path) -> None:
    one = run(
        "one",
        ["a/1.jpg", "b/2.jpg"],
        accuracy_interval=[0.8, 0.9],
        commands=["flowerfast train 'x y'", "\x1b[2J"],
    )
    two = run(
        f"{HOSTILE.replace('/', '')} two", ["b/2.jpg", "a/1.jpg"], 0.01, best_val_acc=0.912, seconds=99.0
    )
    (two / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_history([0.5] * 9)))
    result = ff.report([one, str(two)])
    assert result.page == Path("compare.html")
    assert result.settings == {"train.lr": [0.001, 0.01]}
    assert result.notes == []
    assert [each["best_val_acc"] for each in result.runs] == [0.875, 0.912]
    assert (result.runs[0]["run"], result.runs[0]["val_loss"], result.runs[1]["macro_f1"]) == (
        "one",
        0.25,
        None,
    )
    page = Page(result.page)
    source = result.page.read_text(encoding="utf-8")
    assert page.tags.count("svg") == 4
    assert page.tags.count("script") == 1
    assert str(two) in page.texts
    assert '<td class="best">91.2%' in source
    assert source.count('<td class="best">') == 1
    for text in ("80.0% to 90.0%", "train.lr", "0.01", "flowerfast train 'x y' \\x1b[2J", "seconds", "epoch"):
        assert text in page.texts, text
    assert "model.name" not in page.texts
    assert not page.addresses
    # 3 epochs of 3.5 s and 9: lines end where their runs do.
    assert source.count('<g class="run-0">') == source.count('<g class="run-1">') == 4


def test_what_cannot_be_compared_is_said() -> None:
    one = run("one", ["a/1.jpg"])
    others = [
        run("other", ["a/3.jpg"]),
        run("classes", ["a/1.jpg"], classes=["daisy", "rose"], val_protocol="augmented"),
        run("unknown", []),
    ]
    (others[2] / "split.json").unlink()
    notes = ff.report([one, *others]).notes
    assert [note.split(":")[0] for note in notes] == ["classes", "classes", "unknown", "other"]
    assert "have other classes, unlike one" in notes[0]
    assert "augmented photos or clean ones" in notes[1]
    assert "no split.json" in notes[2]
    assert "validated on other photos than one" in notes[3]
    text = " ".join(Page(Path("compare.html")).texts)
    assert all(note in text for note in notes)


def test_one_run_is_its_own_report(tmp_path: Path) -> None:
    folder = run("one", [])
    result = ff.report(folder)
    assert (result.page, result.settings) == (folder / "report.html", {})
    other = ff.report([folder], html="page.html").page
    assert other.read_text(encoding="utf-8") == result.page.read_text(encoding="utf-8")
    assert "/photos: the photos of this run are not there any more." in Page(other).texts


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([], "0 runs; give 1 to"),
        (["one"] * (MOST + 1), f"{MOST + 1} runs; give 1 to {MOST}"),
        (["one", "../one"], r"\.\./one: named twice"),
        (["one", "none"], "none: no such folder; give the folder of a run that has ended"),
        (["one/summary.json"], "summary.json: is no folder"),
        (["one", "."], "cannot read summary.json"),
        (["one", "short"], "short: summary.json or metrics.jsonl lacks a value"),
        (["one", "odd"], "odd: summary.json or metrics.jsonl of one lacks a value"),
    ],
)
def test_what_are_no_runs_is_one_clear_line(named: list[str], message: str, tmp_path: Path) -> None:
    run("one", [])
    run("short", [], best_val_acc=None)
    odd = run("odd", [])
    (odd / "metrics.jsonl").write_text(json.dumps({**make_history([0.5])[0], "seconds": None}) + "\n")
    here = [f"../{tmp_path.name}/one" if each == "../one" else each for each in named]
    with pytest.raises(UserError, match=message.replace(r"\.\./one", "one")):
        ff.report(here)
    assert not Path("compare.html").exists()


def test_many_runs_are_told_apart_by_dashes_too() -> None:
    folders = [run(f"run {n}", [], lr=n / 1000 + 0.001) for n in range(MOST)]
    source = ff.report(folders).page.read_text(encoding="utf-8")
    style = source.partition("</style>")[0]
    assert style.count(".run-23 .curve { stroke-dasharray: 9 3 2 3; }") == 1
    assert len({line for line in style.splitlines() if line.startswith(".run-") and ".curve" in line}) == 18


def test_the_block_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    Path("runs").mkdir()
    for name, lr in (("one", 0.1), ("two", 0.2)):
        run(f"runs/{name}", [], lr)
    exec(compile(block, "report.md", "exec"), {})
    assert capsys.readouterr().out == "runs/one/report.html\n{'train.lr': [0.1, 0.2]} [0.875, 0.875] []\n"
