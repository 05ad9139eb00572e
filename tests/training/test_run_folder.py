"""The run folder: which weights are kept, what may be written over, whole files, damaged saves."""

import errno
import io
import os
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from flowerfast.training import run_folder as module
from flowerfast.training.figures import plot_confusion, plot_curves
from flowerfast.training.report import write_report
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.run_place import claim_run_path
from flowerfast.training.split_file import write_split

Train = Callable[..., TrainResult]
STATE = {"trainer": {"network": {"w": torch.arange(3000.0)}}, "progress": {"batch": 1}, "totals": {}}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has just begun."""
    made = RunFolder(tmp_path / "run")
    made.create(Config())
    return made


def same(found: Any, expected: Any) -> bool:
    """Whether two nested states hold the same tensors bit by bit."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in expected)
    return torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


def refusal(function: Callable[..., object], *arguments: Any) -> str:
    """The one line with which it refuses."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------------------------------- weights


def test_the_oldest_epochs_are_deleted_by_number_not_by_name(folder: RunFolder) -> None:
    for epoch in (9, 998, 999, 1000, 1001):
        folder.save_epoch(epoch, {"w": torch.zeros(1)}, keep=2)
    assert folder.epoch_files() == [folder.epoch_file(1000), folder.epoch_file(1001)]
    strange = folder.checkpoints / "epoch_mine.safetensors"
    strange.write_bytes(b"")
    folder.save_epoch(1002, {"w": torch.zeros(1)}, keep=1)
    assert sorted(folder.checkpoints.iterdir()) == [folder.epoch_file(1002), strange]


@pytest.mark.parametrize("links", [True, False])
def test_best_and_epoch_file_live_and_die_alone(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    network = timm.create_model("test_resnet", num_classes=2)
    states = []
    for epoch in range(2):
        states.append({name: torch.full_like(t, epoch + 1) for name, t in network.state_dict().items()})
        folder.save_epoch(epoch, states[-1], keep=1)  # deletes the file that best/ shares its bytes with
        if epoch == 0:
            folder.save_best(network, ["daisy", "rose"], 0, "apply")
            assert folder.epoch_file(0).samefile(folder.best / "model.safetensors") == links
    assert [file.name for file in folder.checkpoints.iterdir()] == ["epoch_001.safetensors"]
    loaded = timm.create_model(f"local-dir:{folder.best}", pretrained=True)
    assert same(dict(loaded.state_dict()), states[0])
    folder.save_best(network, ["daisy", "rose"], 1, "apply")
    folder.save_epoch(1, states[0], keep=None)
    assert same(load_file(folder.best / "model.safetensors"), states[1])
    folder.save_best(network, ["daisy", "rose"], 1, "apply")
    assert same(load_file(folder.best / "model.safetensors"), states[0])
    assert {(folder.best / name).stat().st_mode for name in ("config.json", "model.safetensors")} == {
        folder.epoch_file(1).stat().st_mode
    }


def test_a_link_in_the_place_of_best_tmp_is_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "model.safetensors").write_bytes(b"theirs")
    (folder.path / "best.tmp").symlink_to(theirs)
    network = timm.create_model("test_resnet", num_classes=2)
    folder.save_epoch(0, network.state_dict(), keep=1)
    folder.save_best(network, ["daisy", "rose"], 0, "apply")
    assert [file.name for file in theirs.iterdir()] == ["model.safetensors"]
    assert (theirs / "model.safetensors").read_bytes() == b"theirs"
    assert (folder.best / "config.json").is_file()


# -------------------------------------------------------------------------------------------- what is free


@pytest.mark.parametrize(
    "left",
    [[], ["checkpoints/"], ["checkpoints/", "config.yaml.partial"], ["checkpoints/", "config.yaml"],
     ["checkpoints/", "config.yaml", "split.json.partial"], ["checkpoints/", "config.yaml", "split.json"],
     ["checkpoints/last.pt.partial", "config.yaml", "split.json"]],
)  # fmt: skip
def test_what_a_run_leaves_that_died_before_its_first_save_may_be_written_over(
    tmp_path: Path, left: list[str]
) -> None:
    leave(tmp_path / "run", left)
    RunFolder(tmp_path / "run").create(Config())
    assert RunFolder(tmp_path / "run").open() == Config()


@pytest.mark.parametrize(
    "left",
    [["thesis.txt"], ["config.yaml"], ["split.json"], ["checkpoints/last.pt"], ["checkpoints/mine.txt"],
     ["checkpoints/epoch_000.safetensors", "config.yaml", "split.json"],
     ["checkpoints/", "config.yaml", "best/model.safetensors"], ["checkpoints/", "config.yaml", "notes"],
     ["checkpoints/", "config.yaml", "metrics.jsonl"]],
)  # fmt: skip
def test_anything_else_is_left_alone(tmp_path: Path, left: list[str]) -> None:
    run = RunFolder(tmp_path / "run")
    leave(run.path, left)
    said = refusal(run.create, Config())
    assert said.startswith(f"{run.path}: exists already; ")
    assert "--resume" not in said  # none of it can be resumed
    assert all((run.path / name).exists() for name in left)
    assert not run.config.exists() or run.config.read_text() == "x"


@pytest.mark.parametrize("instead", [None, "folder", "pipe"])
def test_a_run_without_its_config_sends_nobody_in_a_circle(folder: RunFolder, instead: str | None) -> None:
    folder.save_last({"progress": {}})
    assert refusal(folder.check_free).endswith("continue it with --resume, or choose another --out")
    folder.config.unlink()
    if instead is not None:
        (Path.mkdir if instead == "folder" else getattr(os, "mkfifo", Path.mkdir))(folder.config)
    what = "missing" if instead is None else "not a regular file"
    told = f"{folder.path}: no run to resume there (config.yaml is {what}); bring it back, or choose another"
    assert refusal(folder.open) == f"{told} --out"
    assert refusal(folder.check_free) == f"{folder.path}: exists already; choose another --out"


def leave(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_text("x")


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    assert "exists already; choose another --out" in refusal(RunFolder(tmp_path / "run").create, Config())
    said = refusal(RunFolder(tmp_path / "run" / "inside").create, Config())
    assert "cannot be written (Not a directory); choose another --out" in said
    assert "no run to resume there (config.yaml is missing); drop --resume" in refusal(
        RunFolder(tmp_path / "none").open
    )


def test_a_folder_that_another_run_has_begun_meanwhile_is_not_taken_away(tmp_path: Path) -> None:
    late, first = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    late.check_free()
    first.create(Config())
    first.save_last({"progress": {}})
    with pytest.raises(UserError, match="exists already"), late.discarded_on_failure():
        late.create(Config())
    assert first.has_save
    with pytest.raises(RuntimeError), first.discarded_on_failure():
        raise RuntimeError
    assert not first.path.exists()


def test_runs_are_numbered(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert claim_run_path(runs, "roses") == runs / "roses-001"
    (runs / "roses-002").write_text("x")
    assert claim_run_path(runs, "roses") == runs / "roses-003"
    assert (runs / "roses-003").is_dir()
    (tmp_path / "file").write_text("x")
    said = refusal(claim_run_path, tmp_path / "file", "roses")
    assert said.startswith(str(tmp_path / "file"))
    assert "--out" in said


def test_runs_that_start_at_once_get_a_number_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        paths = [*threads.map(lambda _: claim_run_path(tmp_path / "runs", "roses"), range(40))]
    assert sorted(paths) == [tmp_path / f"runs/roses-{number:03d}" for number in range(1, 41)]


# ---------------------------------------------------------------------------------------------- whole files


class Full(Exception):
    """The disk is full."""


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on whoever writes a file gets half of it written, and an error."""

    def half_bytes(file: Path, content: bytes) -> None:
        with file.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise Full

    def half_text(file: Path, text: str, **_: object) -> None:
        half_bytes(file, text.encode("utf-8", "replace"))

    def half_stream(_: object, stream: io.BufferedWriter) -> None:
        stream.write(b"half")
        raise Full

    def half_file(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise Full

    monkeypatch.setattr(Path, "write_text", half_text)
    monkeypatch.setattr(torch, "save", half_stream)
    monkeypatch.setattr(module, "save_file", half_file)
    monkeypatch.setattr(Path, "write_bytes", half_bytes)


def test_every_file_is_whole_when_its_writer_fails_half_way(
    train_tiny: Train, photos: Path, request: pytest.FixtureRequest
) -> None:
    result = train_tiny(settings={"train.epochs": 1}, plots=True)
    folder, halves = RunFolder(result.folder), Photos(photos).split()
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    history = [{"epoch": 0, "train_acc": 0.1, "val_acc": 0.1, "train_loss": 1.0, "val_loss": 1.0}]
    request.getfixturevalue("full_disk")
    writers: dict[Path, Callable[[], object]] = {
        folder.split: lambda: write_split(*halves, folder.split),
        folder.last: lambda: folder.save_last({}),
        folder.epoch_file(0): lambda: folder.save_epoch(0, {"w": torch.zeros(1)}, None),
        folder.metrics: lambda: folder.write_metrics(history),
        folder.table: lambda: folder.write_metrics(history),
        folder.summary: lambda: folder.write_summary({"new": 1}),
        folder.curves: lambda: plot_curves(history, folder.curves),
        folder.confusion: lambda: plot_confusion(torch.eye(2).int().numpy(), ["a", "b"], folder.confusion),
        folder.path / "report.html": lambda: write_report(folder.path),
    }
    assert {*writers, *folder.best.iterdir(), folder.config, folder.previous} == set(before)
    for write in writers.values():
        with pytest.raises(Full):
            write()
    assert {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()} == before
    other = RunFolder(folder.path.with_name("other"))
    with pytest.raises(Full):
        other.create(Config())
    assert not other.config.exists()
    other.check_free()


# ------------------------------------------------------------------------------------------- damaged saves


def test_a_save_comes_back_as_it_was(folder: RunFolder) -> None:
    assert not folder.has_save
    folder.save_last(STATE)
    assert folder.has_save
    assert same(folder.load_last(), {"version": 1, **STATE})


def test_a_save_that_was_cut_short_is_refused_at_any_length(folder: RunFolder) -> None:
    folder.save_last(STATE)
    whole = folder.last.read_bytes()
    for length in (0, 1, 2, 30, 500, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        folder.last.write_bytes(whole[:length])
        said = refusal(folder.load_last)
        assert said.startswith(f"{folder.last}: cannot be read (")
        assert said.endswith("); start a new run")


def test_a_flipped_byte_anywhere_is_seen_or_of_no_consequence(folder: RunFolder) -> None:
    folder.save_last(STATE)
    whole, rng = folder.last.read_bytes(), random.Random(0)
    for place in (*rng.sample(range(len(whole)), 300), *range(len(whole) - 100, len(whole))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        folder.last.write_bytes(damaged)
        assert refusal(folder.load_last) == (
            f"{folder.last}: damaged, its checksum does not fit; start a new run"
        )


def test_a_save_of_an_earlier_version_has_the_checksums_of_its_tensors_alone(folder: RunFolder) -> None:
    torch.save({"version": 1, **STATE}, folder.last)
    assert same(folder.load_last(), {"version": 1, **STATE})
    damaged = bytearray(folder.last.read_bytes())
    damaged[damaged.index(STATE["trainer"]["network"]["w"].numpy().tobytes()) + 70] ^= 1
    folder.last.write_bytes(damaged)
    assert "is damaged); start a new run" in refusal(folder.load_last)


def test_the_save_before_is_kept_and_stands_in_until_there_is_a_whole_one(folder: RunFolder) -> None:
    saves = [{**STATE, "progress": {"batch": batch}} for batch in range(4)]
    for state in saves[:2]:
        folder.save_last(state)
    folder.last.write_bytes(b"damaged")
    again = RunFolder(folder.path)
    assert again.load_last()["progress"] == {"batch": 0}
    [note] = again.notes
    assert note.startswith(f"{folder.last}: cannot be read (")
    assert note.endswith("); goes on from the save before it, last.previous.pt")
    again.save_last(saves[2])  # does not put the damaged one in the place of the good one
    assert again.load_last()["progress"] == {"batch": 2}
    again.last.unlink()
    assert again.has_save
    assert again.load_last()["progress"] == {"batch": 0}
    again.save_last(saves[2])
    again.save_last(saves[3])
    again.last.unlink()
    assert again.load_last()["progress"] == {"batch": 2}
    for file in (again.last, again.previous):
        file.write_bytes(b"")
    said = refusal(again.load_last)
    assert f"nor can the save before it ({again.previous}: cannot be read" in said
    assert said.endswith("; start a new run")


class Evil:
    """Touches a file when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_what_is_no_save_is_refused_and_runs_no_code(folder: RunFolder, tmp_path: Path, form: str) -> None:
    trap = tmp_path / "trap"
    for content in (
        Evil(trap),
        {"version": 1, "trainer": Evil(trap)},
        {"trainer": {}},
        [1],
        7,
        None,
        Config(),
    ):
        with folder.last.open("wb") as stream:
            pickle.dump(content, stream) if form == "pickle" else torch.save(content, stream)
        said = refusal(folder.load_last)
        assert said.endswith("start a new run")
    folder.last.write_bytes(random.Random(1).randbytes(5000))
    assert "cannot be read (File is not a zip file)" in refusal(folder.load_last)
    assert not trap.exists()


def test_a_folder_in_place_of_a_save_is_no_save(folder: RunFolder) -> None:
    folder.last.mkdir()
    assert not folder.has_save
    with pytest.raises(UserError, match="exists already; choose another --out"):
        folder.check_free()
