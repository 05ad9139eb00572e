"""The command: rows that end badly are rows, results are merged, exit codes, and a rehearsal."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.acceptance import command
from benchmarks.acceptance.command import main, run_row
from benchmarks.acceptance.place import QUICK, Place
from benchmarks.acceptance.rows import Row, all_rows, choose
from flowerfast.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
TARGET = "tests.acceptance.rows_that_fail"


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_rows_that_crash_hang_or_throw_are_rows(tmp_path: Path):
    place = Place("cpu", {}, QUICK, str(tmp_path))

    def find(name: str) -> dict[str, Any]:
        return run_row(Row(name, f"{TARGET}:{name}", (), 1), place, 12 if name == "hang" else 60)

    names = ("crash", "hang", "throw", "hold")
    with ThreadPoolExecutor(len(names)) as pool:
        crash, hang, throw, hold = pool.map(find, names)
    assert (crash["holds"], crash["detail"]) == (False, "killed by SIGSEGV: the last words")
    assert (hang["holds"], hang["detail"]) == (False, "no answer within 12 s: waiting for a stream")
    assert (throw["holds"], throw["detail"]) == (False, "RuntimeError: no such kernel")
    assert (hold["holds"], hold["figure"], hold["detail"]) == (True, 3, "quick")
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool | None]:
    """What rows by name are to find, True for others; none of them is run and no photo is made."""
    wanted: dict[str, bool | None] = {}

    def run(row: Row, place: Place, limit: float) -> dict[str, Any]:
        unseen = "a GPU" if wanted.get(row.name, True) is None else ""
        found = {"holds": wanted.get(row.name, True), "figure": 1, "bound": "1", "detail": f"{limit:g}"}
        return {"name": row.name, **found, "unseen": unseen, "seconds": 1.0}

    monkeypatch.setattr(command, "run_row", run)
    monkeypatch.setattr(command, "make_sets", lambda root, sizes, names: dict.fromkeys(names, ""))
    return wanted


def rows_of(file: Path) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(file.read_text())["rows"]}


def accept(out: Path, *arguments: str) -> int:
    return main(["--device", "cpu", "--quick", "--out", str(out), *arguments])


def test_one_failing_row_does_not_hide_the_others(answers, tmp_path: Path, capsys):
    answers |= {"samples": False, "compile": None}
    assert accept(tmp_path / "a.json") == 1
    found = rows_of(tmp_path / "a.json")
    assert list(found) == [row.name for row in all_rows(("small", "camera"))]
    assert [name for name, row in found.items() if not row["holds"]] == ["samples", "compile"]
    assert "1 NO" in capsys.readouterr().out


def test_skipped_rows_are_no_failures(answers, tmp_path: Path):
    answers |= {"compile": None}
    assert accept(tmp_path / "a.json") == 0


def test_chosen_rows_replace_their_like_and_keep_the_others(answers, tmp_path: Path):
    out = tmp_path / "a.json"
    answers |= {"samples": False, "cache": False}
    assert accept(out, "--rows", "samples,cache,exit") == 1
    answers.clear()
    assert accept(out, "--rows", "samples,memory-gpu") == 1  # the cache's row still fails
    assert {n: r["holds"] for n, r in rows_of(out).items()} == {
        "exit-gpu": True,
        "exit-cpu": True,
        "exit-cache": True,
        "samples": True,
        "cache": False,
        "memory-gpu": True,
    }
    assert accept(out, "--rows", "cache") == 0


def test_the_file_says_what_it_is_of(answers, tmp_path: Path):
    accept(tmp_path / "a.json", "--rows", "import")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["rehearsal"] is True
    assert found["sizes"]["name"] == "quick"
    assert found["environment"]["versions"]["torch"]


def test_rows_for_which_no_time_is_left_fail(answers, tmp_path: Path):
    assert accept(tmp_path / "a.json", "--limit", "0.001") == 1
    found = rows_of(tmp_path / "a.json")
    assert len(found) == len(all_rows(("small", "camera")))
    assert all(row["holds"] is False and "not run" in row["detail"] for row in found.values())


def test_named_photos_take_the_place_of_rendered_ones(answers, tmp_path: Path, photo_folder):
    root = photo_folder(name="my photos")
    assert accept(tmp_path / "a.json", "--rows", "parity", "--photos", str(root)) == 0
    names = ["parity-my-photos-gpu", "parity-my-photos-cpu", "parity-odd-gpu", "parity-odd-cpu"]
    assert list(rows_of(tmp_path / "a.json")) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "nonsense"], "--rows nonsense: no such row; there are: import, "),
        (["--rows", ","], "no such row"),
        (["--photos", "nowhere"], "nowhere"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(answers, tmp_path: Path, capsys, arguments, message):
    assert accept(tmp_path / "a.json", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", ["no json", "{}", None])
def test_a_file_of_something_else_is_not_merged_with(answers, tmp_path: Path, capsys, content):
    out = tmp_path / "a.json"
    accept(out, "--rows", "import")
    if content is None:
        found = json.loads(out.read_text())
        found["environment"]["device"] = "NVIDIA H200"
        content = json.dumps(found)
    out.write_text(content)
    assert accept(out, "--rows", "import") == 2
    assert "choose another --out" in capsys.readouterr().err
    assert out.read_text() == content


def test_rows_are_chosen_by_the_beginnings_of_their_names():
    rows = all_rows(("small",))
    assert [row.name for row in choose(rows, "stream,import")] == [
        "import",
        "stream-order-gpu",
        "stream-order-cpu",
        "stream-order-cache",
    ]
    assert choose(rows, None) == rows
    with pytest.raises(UserError, match="no such row"):
        choose(rows, "import,x")


def test_no_two_rows_have_one_name():
    names = [row.name for row in all_rows(("small", "camera"))]
    assert len(set(names)) == len(names)


def test_a_rehearsal_from_a_plain_checkout(tmp_path: Path):
    pytest.importorskip("nvidia.dali")
    out = tmp_path / "results" / "a.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    arguments = ["--device", "cpu", "--quick", "--rows", "samples,window", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu_acceptance.py", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {name: row["holds"] for name, row in rows_of(out).items()} == {
        "window-decode": True,
        "samples": True,
    }
    assert "2 rehearsed" in done.stdout
