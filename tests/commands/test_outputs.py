"""Files that commands write: refused before the work where they cannot be written or must not be replaced."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings

Cli = Callable[..., tuple[int, str, str]]
COMMANDS = {
    "evaluate": (["evaluate", "RUN", "DATA"], "--json", "flowerfast.training.evaluate_run.evaluate"),
    "json": (["predict", "RUN", "DATA/red"], "--json", "flowerfast.training.trained.load_run"),
    "jsonl": (["predict", "RUN", "DATA/red"], "--jsonl", "flowerfast.training.trained.load_run"),
    "csv": (["predict", "RUN", "DATA/red"], "--csv", "flowerfast.training.trained.load_run"),
    "scan": (["scan", "DATA"], "--json", "flowerfast.scanning.scan.scan"),
    "html": (["scan", "DATA"], "--html", "flowerfast.scanning.scan.scan"),
    "parity": (["parity", "DATA"], "--json", "flowerfast.commands.parity.compare_backends"),
    "bench": (["bench", "DATA"], "--json", "flowerfast.bench.suites.run_bench"),
    "plot": (["bench", "DATA"], "--plot", "flowerfast.bench.suites.run_bench"),
    "show": (["show", "DATA"], "--out", "flowerfast.showing.cells.show"),
    "show json": (["show", "DATA", "--out", "s.png"], "--json", "flowerfast.showing.cells.show"),
    "doctor": (["doctor", "DATA"], "--json", "flowerfast.commands.doctor.examine"),
    "pack": (["pack", "DATA", "OUT"], "--json", "flowerfast.packing.pack.pack"),
    "verify": (["pack", "--verify", "OUT"], "--json", "flowerfast.packing.verify.damaged"),
    "settings": (["settings"], "--json", "flowerfast.commands.settings.print_settings"),
    "tune": (["tune", "DATA", "--out", "new"], "--json", "flowerfast.training.tune.tune"),
    "export": (["export", "RUN", "--out", "new"], "--json", "flowerfast.exporting.export.export"),
    "quarantine": (["scan", "DATA", "--quarantine", "new"], "--json", "flowerfast.scanning.scan.scan"),
    "new shards": (["pack", "DATA", "new"], "--json", "flowerfast.packing.pack.pack"),
}


@pytest.fixture
def refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path | str], str]:
    """Function (key of COMMANDS, file to write) → the line that refuses it; fails when work has begun."""

    def refuse(key: str, target: Path | str) -> str:
        arguments, option, work = COMMANDS[key]
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("work has begun"))
        names = {"RUN": "run", "DATA": "photos", "OUT": "shards"}
        given = [next((a.replace(n, v) for n, v in names.items() if n in a), a) for a in arguments]
        code, out, err = cli(*given, option, target)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert err.startswith(f"flowerfast: error: {option} {target}: ")
        return err

    return refuse


@pytest.fixture(scope="module")
def shards(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a run, packed; read only."""
    folder = tmp_path_factory.mktemp("packed") / "shards"
    pack(trained.photos, folder, PackSettings(shard_bytes=20_000), DataConfig())
    return folder


@pytest.fixture
def work(trained: Any, shards: Path, tmp_path: Path) -> Path:
    """A folder with copies of a run, its photos, and shards of them."""
    for folder in (trained.run, trained.photos, shards):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


@pytest.mark.parametrize("key", COMMANDS)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    work: Path, refused: Callable[[str, Path | str], str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    end = ".png" if key == "plot" else ""
    for folder in (f"folder{end}", "shut"):
        (work / folder).mkdir()
    (work / "file").write_text("kept")
    assert "is a folder; name a file in it" in refused(key, f"folder{end}")
    assert f"cannot be written ({work}/file is no folder)" in refused(key, f"file/in{end}")
    assert "cannot be written (File name too long)" in refused(key, f"{'x' * 248}{end}")  # with .PID.partial
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: "shut" not in str(path) and access(path, mode))
    assert f"{work}/shut cannot be written to" in refused(key, f"shut/new/file{end}")
    assert (work / "file").read_text() == "kept"
    assert not [*(work / "shut").iterdir()]


@pytest.mark.parametrize("key", [key for key in COMMANDS if key != "plot"])
def test_no_output_takes_the_place_of_a_file_of_a_run_or_of_shards(
    work: Path, refused: Callable[[str, Path | str], str], key: str
) -> None:
    (work / "run/tensorboard").mkdir()
    (work / "run/tensorboard/events").write_text("kept")
    (work / "link.json").symlink_to(work / "run/split.json")
    shutil.copytree(work / "run/best", work / "alone")
    files = [file for name in ("run", "shards", "alone") for file in (work / name).rglob("*")]
    before = {file: file.read_bytes() for file in files if file.is_file()}
    assert len(before) > 12
    for file in before:
        assert "; name another file" in refused(key, file.relative_to(work))
    assert "part of a run folder" in refused(key, "link.json")
    assert {file: file.read_bytes() for file in before} == before


def test_a_plot_is_no_figure_of_a_run(work: Path, refused: Callable[[str, Path | str], str]) -> None:
    (work / "run/confusion_matrix.png").write_bytes(b"kept")
    assert "part of a run folder" in refused("plot", "run/confusion_matrix.png")


@pytest.mark.parametrize("key", [key for key in COMMANDS if key not in ("verify", "settings", "export")])
def test_no_output_takes_the_place_of_a_photo_that_is_read(
    work: Path, refused: Callable[[str, Path | str], str], key: str
) -> None:
    first = work / "photos/red/00.jpg"
    png = first.with_suffix(".png")  # a JPEG in truth, which is read all the same
    png.write_bytes(first.read_bytes())
    named = [png] if key == "plot" else [first, png]
    if key != "plot":
        named.append(first.with_name("without-suffix"))
        named[-1].write_bytes(first.read_bytes())
        named.append(work / "link")
        named[-1].symlink_to(first)
    for file in named[:2] if key in ("json", "jsonl", "csv") else named:
        assert "one of the photos; name another file" in refused(key, file.relative_to(work))
    assert {file.read_bytes() for file in named} == {first.read_bytes()}


@pytest.mark.parametrize("key", ["show", "plot"])
def test_no_picture_is_put_among_the_photos(
    work: Path, refused: Callable[[str, Path | str], str], key: str
) -> None:
    (work / "near").symlink_to(work / "photos")
    for place in ("photos/red/new.png", "photos/new.png", "near/blue/../red/new.png"):
        assert "a picture there is one of the photos; name a file elsewhere" in refused(key, place)


@pytest.mark.parametrize("key", ["json", "jsonl", "csv"])
def test_predict_does_not_replace_the_table_that_it_reads(cli: Cli, work: Path, key: str) -> None:
    table = work / "labels.csv"
    table.write_text("path,label\nphotos/red/00.jpg,red\n")
    (work / "link.csv").symlink_to(table)
    before = table.read_text()
    for target in ("labels.csv", "run/../labels.csv", "link.csv"):
        code, out, err = cli("predict", "run", "photos/blue", "labels.csv", f"--{key}", target)
        assert (code, out) == (2, "")
        assert err == f"flowerfast: error: --{key} {target}: the table of the photos; name another file\n"
    assert table.read_text() == before


@pytest.mark.parametrize("key", ["json", "jsonl", "csv"])
def test_text_takes_the_place_of_no_photo_at_all(cli: Cli, work: Path, key: str) -> None:
    """As when the shell makes of `--jsonl v*.jpg` the first of them and others to read."""
    photo = work / "photos/red/00.jpg"
    for name in ("v1.jpg", "v2.jpg", "plain"):
        (work / name).write_bytes(photo.read_bytes())
    code, out, err = cli("predict", "run", "v2.jpg", f"--{key}", "v1.jpg")
    assert (code, out) == (2, "")
    assert err == f"flowerfast: error: --{key} v1.jpg: a photo is there; name another file\n"
    assert cli("predict", "run", "v2.jpg", f"--{key}", "plain")[0] == 2
    assert {(work / name).read_bytes() for name in ("v1.jpg", "plain")} == {photo.read_bytes()}


def test_a_file_beside_is_written_and_written_again(cli: Cli, work: Path) -> None:
    """In a run, its best/, among the photos and shards: new, and over an earlier output."""
    for target in ("run/e.json", "run/best/e.json", "photos/e.json", "shards/e.json", "new/e", "e.txt"):
        for _ in range(2):
            code, _, err = cli("evaluate", "run", "photos", "--json", target)
            assert (code, err) == (0, "")
        assert (work / target).read_text().startswith("{")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such devices")
@pytest.mark.parametrize("key", ["settings", "json", "jsonl", "csv"])
def test_devices_and_pipes_are_written_into(cli: Cli, work: Path, key: str) -> None:
    arguments, option, _ = COMMANDS[key]
    given = [a.replace("RUN", "run").replace("DATA", "photos") for a in arguments]
    assert cli(*given, option, "/dev/null")[0] == 0
    reading, writing = os.pipe()
    assert cli(*given, option, f"/dev/fd/{writing}")[0] == 0
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read(1)


@pytest.mark.parametrize("key", ["tune", "export", "quarantine", "new shards"])
def test_none_lies_in_the_folder_that_the_command_fills(
    work: Path, refused: Callable[[str, Path | str], str], key: str
) -> None:
    assert "in new, which this command fills; name a file elsewhere" in refused(key, "new/a/file.json")


@pytest.mark.parametrize("key", COMMANDS)
def test_no_file_is_written_to_a_url(work: Path, refused: Callable[[str, Path | str], str], key: str) -> None:
    assert refused(key, "s3://bucket/file.png").endswith(": a URL; name a file on this machine\n")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["train", "photos", "--out", "URL"], "out="),
        (["train", "photos", "--from", "URL", "--out", "new"], "start_from="),
        (["train", "--resume", "--out", "URL"], "out="),
        (["train", "photos", "--out", "new", "--set", "model.weights=URL"], "model.weights="),
        (["train", "photos", "--out", "new", "--set", "data.cache_dir=URL"], "data.cache_dir="),
        (["tune", "photos", "--out", "URL"], "out="),
        (["export", "run", "--format", "safetensors", "--out", "URL"], "out="),
        (["report", "run", "--html", "URL"], "--html "),
        (["scan", "photos", "--quarantine", "URL"], "--quarantine "),
        (["synth", "URL"], "out="),
    ],
)
def test_no_folder_takes_the_name_of_a_url(cli: Cli, work: Path, arguments: list[str], what: str) -> None:
    before = {*work.iterdir()}
    code, out, err = cli(*(each.replace("URL", "s3://bucket/it") for each in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert re.search(rf"error: .*{what}.*a URL; (give|name) a (path|file|folder) on this machine", err)
    assert {*work.iterdir()} == before


@pytest.mark.parametrize("name", ["trials.json", "best.yaml"])
def test_no_output_takes_the_place_of_a_file_of_a_search(
    work: Path, refused: Callable[[str, Path | str], str], name: str
) -> None:
    (work / "tuned/round-1").mkdir(parents=True)
    (work / "tuned/trials.json").touch()
    assert "part of a search" in refused("json", f"tuned/{name}")
