"""`scan` as a user meets it: what it says, writes and refuses, and its exit code."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.runs import load, sets

Cli = Callable[..., tuple[int, str, str]]
PLAIN = sets("train.device=cpu", "data.kernels=torchvision")


def test_clean_photos_exit_with_0_and_damage_with_1(cli: Cli, photos: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()}
    code, out, err = cli(
        "scan", photos, "--html", "page.html", "--json", "scan.json", "--quarantine", "apart"
    )
    assert (code, err) == (0, "0 files copied to apart\n")
    assert f"{photos}: nothing wants a person's eye" in out
    assert "36 photos of 3 classes (36 JPEG)" in out
    result = load(tmp_path / "scan.json")
    assert (result["samples"], result["wants_eye"]) == (36, False)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()} == before
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    shutil.copy(photos / "blue/02.jpg", photos / "red/blue.jpg")
    code, out, err = cli("scan", photos, "--quarantine", "apart")
    assert (code, err) == (1, "3 files copied to apart\n")
    assert re.search(r"! │ damaged +│ 1 .*blue/01\.jpg \(not an image\)", out)
    assert "blue/02.jpg = red/blue.jpg" in out
    assert re.search(r"wants a person's eye: damaged, two_classes(, both_halves)?\n", out)
    assert (tmp_path / "apart/blue/01.jpg").read_bytes() == b"no photo at all"
    assert {str(f.relative_to(tmp_path / "apart")) for f in (tmp_path / "apart").rglob("*.jpg")} == {
        "blue/01.jpg",
        "blue/02.jpg",
        "red/blue.jpg",
    }


def test_json_alone_on_standard_output(cli: Cli, photos: Path) -> None:
    code, out, _ = cli("scan", photos, "--json", "-", "--quarantine", "apart", "--html", "page.html")
    assert code == 0
    assert out.startswith("{")
    assert out.endswith("}\n")


def test_a_run_is_asked(cli: Cli, trained: Any, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(trained.photos, tmp_path / "photos"))
    (photos / "red/05.jpg").rename(photos / "blue/red.jpg")
    code, out, err = cli("scan", photos, "--run", trained.run, "--json", "s.json", *PLAIN)
    assert code == 0
    assert "by their paths in its split.json, which names 36 photos, 35 of them here" in err
    assert "accuracy of " in out
    kinds = {finding["kind"]: finding for finding in load(tmp_path / "s.json")["findings"]}
    (error,) = [p for p in kinds["label_errors"]["photos"] if p["path"] == "blue/red.jpg"]
    assert (error["label"], error["suggested"], error["trained_on"]) == ("blue", "red", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], r"missing: no such folder"),
        (["empty"], r"empty: it holds no class folders"),
        (["photos", "--run", "missing"], r"missing: no trained model there"),
        (["photos", "--html", "-"], r"--html -: a page is no text for a terminal; name a file"),
        (["photos", "--html", "photos"], r"--html photos: is a folder"),
        (["photos", "--html", "photos/red/00.jpg"], r"--html photos/red/00\.jpg: one of the photos"),
        (["photos", "--html", "a", "--json", "a"], r"named twice"),
        (
            ["photos", "--quarantine", "photos/apart"],
            r"--quarantine photos/apart: lies in photos or holds it",
        ),
        (["photos", "--quarantine", "."], r"--quarantine \.: cannot be used \(it holds something\)"),
        (["photos", "--set", "data.cache=ram"], r"--set data\.cache: scan does not use it"),
        (["photos", "--run", "run", "--set", "data.exif=ignore"], r"data\.exif: scan --run does not use it"),
        (["photos", "--set", "eval.flip=true"], r"--set eval\.flip: scan does not use it"),
        (["photos", "--distance", "8"], r"--distance"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_before_the_work(
    cli: Cli,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("flowerfast.scanning.scan.look_at", lambda *_: pytest.fail("work has begun"))
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = cli("scan", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.match(rf"flowerfast: error: .*{message}", err)
    assert sorted(tmp_path.rglob("*")) == before
