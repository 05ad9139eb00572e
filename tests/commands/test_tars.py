"""Tar files that others wrote, as a user meets them: every command, and what each refuses."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.photos.photos import Photos
from tests.commands.runs import SHORT, load, load_rows
from tests.photos.tars import write_tar

Cli = Callable[..., tuple[int, str, str]]
ONE = [argument.replace("epochs=2", "epochs=1") for argument in SHORT]


def as_tars(photos: Path, out: Path, each: int = 15) -> Path:
    """Photos of class folders in tars of so many samples, mixed, classes as text."""
    files = sorted(photos.glob("*/*.jpg"), key=lambda file: (file.name, file.parent.name))
    for start in range(0, len(files), each):
        members = []
        for file in files[start : start + each]:
            key = f"{file.stem}-{file.parent.name}"
            members += [(f"{key}.cls", file.parent.name.encode()), (f"{key}.jpg", file.read_bytes())]
        write_tar(out / f"set-{start:03d}.tar", members)
    return out


@pytest.fixture
def tars(photos: Path, tmp_path: Path) -> Path:
    return as_tars(photos, tmp_path / "tars")


def test_tars_train_as_their_folder_and_go_on_from_packed_ones(
    cli: Cli, photos: Path, tars: Path, tmp_path: Path
) -> None:
    assert cli("train", photos, *SHORT, "--out", "folder")[0] == 0
    code, out, err = cli("train", tars, *ONE, "--out", "run")
    assert (code, err) == (0, "")
    assert "3 tar files without an index of flowerfast: photos from .jpg, labels from .cls" in out
    tars.rename("moved")
    assert cli("train", "moved", "--resume", "--out", "run", "--epochs", 2)[0] == 0
    assert load_rows(tmp_path / "run") == load_rows(tmp_path / "folder")  # the very same training
    figures = json.loads(cli("evaluate", "run", "moved", "--half", "val", "--json", "-")[1])
    assert figures["accuracy"] == load(tmp_path / "folder/summary.json")["best_val_acc"]


def test_scan_show_pack_and_evaluate_take_tars(cli: Cli, trained: Any, tars: Path, tmp_path: Path) -> None:
    os.chmod(tars, 0o555)  # nothing is written beside them
    code, out, err = cli("scan", tars)
    assert (code, "36 photos of 3 classes" in out + err) == (0, True)
    assert cli("show", tars, "--out", "sheet.jpg")[0] == 0
    code, out, _ = cli("evaluate", trained.run, tars, "--json", "-")
    assert (code, json.loads(out)["samples"]) == (0, 36)
    assert cli("pack", tars, "packed")[0] == 0
    assert cli("pack", "--verify", "packed")[0] == 0
    ours, theirs = Photos("packed"), Photos(tars)
    assert ours.classes == theirs.classes == ("blue", "green", "red")
    assert [ours.path(i) for i in ours.indices] == [theirs.path(i) for i in theirs.indices]
    assert ours.path(0) == "set-000/00-blue.jpg"


def test_what_tars_are_not_is_said_in_one_line(cli: Cli, tars: Path, tmp_path: Path) -> None:
    for arguments, said in [
        (("pack", "--verify", tars), "no packed photos there; give the OUT of `flowerfast pack DATA OUT`"),
        (("train", tars / "set-000.tar"), "set-000.tar: no folder, and no table"),
        (("train", tars / "set-{000..002}.tar"), "no such folder; give the folder that the tar files are in"),
        (("scan", tars, "--json", tars / "set-000.tar"), "one of the photos; name another file"),
        (("pack", tars, tars / "out"), "the folder of the photos; name a folder outside it"),
        (("train", tars, "--set", "data.label_column=txt"), "tars: no label 'txt' (data.label_column)"),
    ]:
        code, _, err = cli(*arguments)
        assert (code, len(err.strip().splitlines())) == (2, 1), arguments
        assert said in err


def test_names_in_tars_never_reach_a_terminal_as_they_are(cli: Cli, tmp_path: Path) -> None:
    bad = [("\x1b[31mx.jpg", b"no photo"), ("\x1b[31mx.cls", b"rose")]
    write_tar(tmp_path / "tars/a.tar", [("a.jpg", b"x"), ("a.cls", b"rose\x1b[0m"), *bad])
    code, out, err = cli("scan", tmp_path / "tars")
    assert code == 2
    assert "\x1b" not in out + err
    assert "which is no name or number of a class" in err
