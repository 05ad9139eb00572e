"""Tables of labels and chosen classes, as a user meets them: every command, and what each refuses."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.runs import SHORT, load, load_rows

Cli = Callable[..., tuple[int, str, str]]
ONE = [argument.replace("epochs=2", "epochs=1") for argument in SHORT]


def write(file: Path, rows: Sequence[Sequence[str]]) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return file


@pytest.fixture
def table(photos: Path, tmp_path: Path) -> Path:
    """The photos of `photos`, in a table beside them."""
    files = sorted(photos.glob("*/*.jpg"), reverse=True)
    rows = [(f"photos/{file.parent.name}/{file.name}", file.parent.name) for file in files]
    return write(tmp_path / "labels.csv", [("image", "class"), *rows])


def edit(table: Path, before: str, after: str) -> None:
    text = table.read_text()
    assert before in text
    table.write_text(text.replace(before, after))


def test_a_table_trains_as_its_folder_and_resumes_with_its_labels_alone(
    cli: Cli, photos: Path, table: Path, tmp_path: Path
) -> None:
    assert cli("train", photos, *SHORT, "--out", "folder")[0] == 0
    code, _, err = cli("train", "labels.csv", *ONE, "--out", "table")
    assert (code, err) == (0, "")
    shutil.copytree("table", "other")
    assert cli("train", "--resume", "--out", "table", "--epochs", 2)[0] == 0
    assert load_rows(tmp_path / "table") == load_rows(tmp_path / "folder")  # the very same training
    figures = json.loads(cli("evaluate", "table", "labels.csv", "--half", "val", "--json", "-")[1])
    assert figures["accuracy"] == load(tmp_path / "table/summary.json")["best_val_acc"]
    edit(table, "photos/red/03.jpg,red", "photos/red/03.jpg,blue")
    code, _, err = cli("train", "--resume", "--out", "other", "--epochs", 2)
    assert code == 2
    assert "labels.csv: photos have other labels than when the run began; bring those back or" in err
    edit(table, "photos/red/03.jpg,blue\n", "")
    code, _, err = cli("train", "--resume", "--out", "other", "--epochs", 2)
    assert code == 2
    assert "photos/red/03.jpg: cannot be taken any more (labels.csv does not name it); put it back" in err


def test_a_run_keeps_its_classes_and_numbers_are_names(
    cli: Cli, photos: Path, table: Path, tmp_path: Path
) -> None:
    assert cli("train", photos, *ONE, "--out", "run")[0] == 0
    code, _, err = cli("train", "--resume", "--out", "run", "--classes", "red,blue", "--epochs", 2)
    assert code == 2
    assert "its classes are red, blue now, and were blue, green, red when the run began" in err
    for number, name in enumerate(("blue", "green", "red")):
        table.write_text(table.read_text().replace(f",{name}\n", f",{number}\n"))
    assert cli("scan", "labels.csv", "--set", "data.classes=[2,0]")[0] in (0, 1)


def test_what_is_as_it_should_be_is_no_warning(cli: Cli, table: Path) -> None:
    asked = "scan", "labels.csv", "--classes", "red,blue"
    assert "labels.csv: path from column 'image'" in cli(*asked)[2]
    assert cli(*asked, "-q")[2] == ""
    told = [json.loads(line) for line in cli(*asked, "--log-json")[1].splitlines()]
    said = {
        each["event"] for each in told if each.get("text", "").startswith(("labels.csv:", "data.classes:"))
    }
    assert said == {"note"}


def test_a_first_line_without_end_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("path,label," + "column," * 200_000 + "\nphotos/red/00.jpg,red\n")
    code, _, err = cli("scan", "wide.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "wide.csv: its first line is longer than 1,048,576 characters" in err


def test_runs_are_called_as_their_table(cli: Cli, table: Path, tmp_path: Path) -> None:
    code, out, _ = cli("train", table, *ONE, "--classes", "red,blue")
    assert (code, "runs/labels-001" in out) == (0, True)
    assert load(tmp_path / "runs/labels-001/summary.json")["classes"] == ["red", "blue"]
    code, out, err = cli("evaluate", "runs/labels-001", table, "--half", "val", "--json", "-")
    assert code == 0  # with the run's classes
    assert (json.loads(out)["classes"], json.loads(out)["samples"]) == (["red", "blue"], 4)
    code, _, err = cli("evaluate", "runs/labels-001", table)
    assert code == 2
    assert "labels.csv: green: the model knows no such class; it knows red, blue; data.classes leaves" in err
    code, out, _ = cli("evaluate", "runs/labels-001", table, "--classes", "blue", "--json", "-")
    assert (code, json.loads(out)["samples"]) == (0, 12)
    code, _, err = cli(
        "train", "--resume", "--out", "runs/labels-001", "--epochs", 2, "--classes", "blue,red"
    )
    assert code == 2
    assert "its classes are blue, red now, and were red, blue when the run began; name them as they" in err


def test_classes_from_a_file_that_a_resumed_run_finds(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names.txt").write_text("green\nblue\n")
    assert cli("train", photos, *ONE, "--classes", "names.txt", "--out", "run")[0] == 0
    monkeypatch.chdir(tmp_path / "run")
    code, _, err = cli("train", "--resume", "--out", tmp_path / "run", "--epochs", 2)
    assert (code, err) == (0, "")
    assert load(tmp_path / "run/summary.json")["classes"] == ["green", "blue"]
    code, _, err = cli("train", photos, *SHORT, "--classes", "gren,blue")
    assert (code, "photos: no class 'gren' (data.classes); did you mean 'green'?\n" in err) == (2, True)
    code, _, err = cli("train", photos, "--classes", "red,blue", "--set", "data.classes=[blue, red]")
    assert (code, "which of the two? give one of them" in err) == (2, True)


def test_predict_takes_a_table_without_labels(cli: Cli, trained: Any, table: Path, tmp_path: Path) -> None:
    rows = [("where", "photos/red/02.jpg"), ("x", "photos/none.jpg"), ("x", "photos/blue/01.jpg")]
    write(tmp_path / "ask.csv", [("n", "file"), *rows, rows[0]])
    code, out, err = cli("predict", trained.run, "ask.csv", "--json", "-")
    assert code == 0
    answers = json.loads(out)
    assert [answer["path"] for answer in answers] == [path for _, path in rows]
    assert answers[0]["top"][0]["name"] == "red"
    assert "1 of 3 files skipped" in err
    code, _, err = cli("predict", trained.run, "ask.csv", "--set", "data.path_column=wo")
    assert (code, "ask.csv: no column 'wo'; its columns are 'n', 'file'" in err) == (2, True)
    write(tmp_path / "ask.csv", [("file",)])
    assert cli("predict", trained.run, "ask.csv")[0] == 2


def test_pack_scan_show_and_parity_take_a_table(cli: Cli, trained: Any, table: Path, tmp_path: Path) -> None:
    (tmp_path / "photos/red/05.jpg").write_bytes(b"no photo")
    code, out, err = cli("pack", table, "shards", "--classes", "red,green")
    assert (code, "23 photos in 1 shard" in out) == (0, True)
    assert "data.classes: 12 files of 1 other class are left out: blue" in err
    code, out, _ = cli("evaluate", trained.run, "shards", "--json", "-")
    assert json.loads(out)["samples"] == 23
    assert cli("scan", table, "--json", "s.json", "--quarantine", "q")[0] == 1
    (damaged,) = next(f for f in load(tmp_path / "s.json")["findings"] if f["kind"] == "damaged")["photos"]
    assert (damaged["path"], damaged["label"]) == ("photos/red/05.jpg", "red")
    assert (tmp_path / "q/photos/red/05.jpg").read_bytes() == b"no photo"
    assert (
        cli("show", table, "--out", "s.png", "--classes", "green,blue", "--samples", 1, "--epochs", 1)[0] == 0
    )
    assert cli("show", table, "--out", "s.png", "--samples", 1, "--epochs", 1)[0] == 0  # replaces the first
    small = ["--samples", 2, "--set", "data.image_size=32", "--set", "data.kernels=torchvision"]
    assert cli("parity", table, *small, "--backend", "cpu")[0] == 0


def test_no_output_replaces_a_table_or_its_photos(cli: Cli, trained: Any, table: Path) -> None:
    before = table.read_bytes()
    for arguments in (
        ["scan", table, "--json"],
        ["show", table, "--out"],
        ["evaluate", trained.run, table, "--json"],
    ):
        code, _, err = cli(*arguments, table)
        assert code == 2
        assert "the table of the photos; name another file" in err
        code, _, err = cli(*arguments, "photos/red/00.jpg")
        assert (code, "one of the photos; name another file" in err) == (2, True)
    assert table.read_bytes() == before


@pytest.mark.parametrize("command", ["train", "scan", "show", "pack", "parity", "bench", "tune", "doctor"])
def test_what_is_no_table_is_refused_at_once(cli: Cli, command: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("path,label\n")
    out = {"show": ["--out", "s.png"], "pack": ["out"], "tune": ["--out", "tuned"]}.get(command, [])
    code, _, err = cli(command, "labels.txt", *out)
    assert code == 2
    assert "labels.txt: no folder, and no table (.csv, .tsv, .tab, .parquet, .pq); give a folder that" in err
    code, _, err = cli(command, "labels.csv", *out)
    assert (code, "labels.csv: no such table; give a folder that" in err) == (2, True)
    assert not (tmp_path / "tuned").exists()


def test_doctor_reads_the_photos_of_a_table(table: Path) -> None:
    from flowerfast.doctor.disk import read_some

    files, size, _ = read_some(table)
    assert (files, size) == (36, sum(f.stat().st_size for f in table.parent.glob("photos/*/*")))
