"""A run folder that is moved, deleted or replaced while a run writes there; files of a run that are gone."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.errors import RunFailed, UserError
from flowerfast.training.progress import Silent
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from tests.training.outcomes import assert_same

Train = Callable[..., TrainResult]
Outcome = Callable[[Path], dict[str, Any]]


def deleted(run: Path) -> None:
    shutil.rmtree(run)


def moved(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def replaced(run: Path) -> None:
    moved(run)
    run.mkdir()
    (run / "mine.txt").write_text("x")


GONE = (deleted, moved, replaced)
LINE = "moved, deleted or replaced while the run was writing there; go on with --resume and its new place as"


class After(Silent):
    """A reporter that does something once an epoch has ended."""

    def __init__(self, epoch: int, do: Callable[[], object]) -> None:
        self._epoch, self._do = epoch, do

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """Do it."""
        if row["epoch"] == self._epoch:
            self._do()


def left(run: Path) -> list[str] | None:
    return sorted(os.listdir(run)) if run.exists() else None


@pytest.mark.parametrize(("become", "epoch"), [(deleted, 0), (moved, 0), (moved, 1), (replaced, 0)])
def test_a_run_whose_folder_is_gone_ends_and_makes_nothing_anew(
    train_tiny: Train, run: Path, outcome: Outcome, become: Callable[[Path], None], epoch: int
) -> None:
    """After the last epoch too, when only the last files are still to be written."""
    with pytest.raises(RunFailed, match=rf"^{run}: {LINE}"):
        train_tiny(reporter=After(epoch, lambda: become(run)))
    assert left(run) == (["mine.txt"] if become is replaced else None)
    if (become, epoch) == (moved, 0):
        train_tiny("elsewhere", resume=True)
        assert_same(outcome(run.with_name("elsewhere")), outcome(train_tiny("undisturbed").folder))


@pytest.mark.parametrize("become", GONE)
def test_so_does_one_that_is_done_but_for_its_report(
    train_tiny: Train, run: Path, monkeypatch: pytest.MonkeyPatch, become: Callable[[Path], None]
) -> None:
    write = RunFolder.write_summary

    def then_gone(folder: RunFolder, summary: dict[str, Any]) -> None:
        write(folder, summary)
        become(run)

    monkeypatch.setattr(RunFolder, "write_summary", then_gone)
    with pytest.raises(RunFailed, match=LINE):
        train_tiny(plots=True, settings={"train.epochs": 1})
    assert left(run) == (["mine.txt"] if become is replaced else None)


def test_a_run_that_fails_takes_away_no_folder_that_has_taken_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run", claimed=True)

    def fail() -> None:
        with folder.only_writer(), folder.discarded_on_failure():
            moved(folder.path)
            (folder.path / "checkpoints").mkdir(parents=True)  # another run that has just begun
            (folder.path / "config.yaml").write_text("x")
            raise RunFailed("lost")

    with pytest.raises(RunFailed, match="lost"):
        fail()
    assert left(folder.path) == ["checkpoints", "config.yaml"]


@pytest.mark.parametrize("name", ["checkpoints", "best"])
def test_what_is_deleted_of_a_run_alone_is_made_anew(
    train_tiny: Train, run: Path, outcome: Outcome, name: str
) -> None:
    """A best/ that no later epoch betters, by a resumed run."""
    train_tiny(reporter=After(1, lambda: shutil.rmtree(run / name, ignore_errors=True)))
    train_tiny(resume=True)
    found, whole = outcome(run), outcome(train_tiny("whole").folder)
    assert_same(found, {key: whole[key] for key in found})
    assert (run / "best/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "times"), [("checkpoints", 1), ("checkpoints", 2), ("best", 1), ("best", 2)]
)
def test_so_is_what_is_deleted_while_a_file_is_written_there(
    train_tiny: Train, run: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    """By the same run; deleted once more, it ends the run with a line."""
    fsync, left = os.fsync, [times]

    def after_deleting(file: int) -> None:
        begun = (run / "checkpoints/epoch_000.safetensors.partial").exists() or (run / "best").exists()
        if left[0] and begun and [*(run / name).glob("*.partial")]:
            left[0] -= 1
            shutil.rmtree(run / name)
        fsync(file)

    monkeypatch.setattr(os, "fsync", after_deleting)
    if times > 1:
        with pytest.raises(RunFailed, match=rf"^{run / name}/\S+: deleted while the run was writing there; "):
            train_tiny()
        return
    train_tiny()
    found, whole = outcome(run), outcome(train_tiny("whole").folder)
    assert_same(found, {key: whole[key] for key in found})
    assert (run / "best/model.safetensors").is_file()
    assert RunFolder(run).has_save
    assert not left[0]


def test_a_name_that_is_no_utf8_is_refused_before_anything_is_written(
    train_tiny: Train, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the photos: a run called after them gets another."""
    try:
        (tmp_path / os.fsdecode(b"photos-\xff")).symlink_to(photos)
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(UserError, match=r"run-\\xff: no valid UTF-8, .+; choose another --out$"):
        train_tiny(os.fsdecode(b"run-\xff"))
    assert sorted(os.listdir(os.fsencode(tmp_path))) == [b"photos", b"photos-\xff"]
    named = tmp_path / os.fsdecode(b"named-\xff")
    photos.rename(named)
    monkeypatch.chdir(tmp_path)
    assert train_tiny(None, {"train.epochs": 1}, named).folder == Path("runs/named-\ufffd-001")


def no_saves(run: Path) -> None:
    for file in (run / "checkpoints").glob("*.pt"):
        file.unlink()


def no_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def nothing_kept(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "best")


def only_epochs(run: Path) -> None:
    no_saves(run)
    shutil.rmtree(run / "best")


@pytest.mark.parametrize("lose", [no_saves, no_checkpoints, nothing_kept, only_epochs])
def test_advice_names_only_what_is_there(train_tiny: Train, run: Path, lose: Callable[[Path], None]) -> None:
    train_tiny()
    lose(run)
    with pytest.raises(UserError) as caught:
        train_tiny(resume=True)
    said = str(caught.value)
    assert said.startswith(f"{run / 'checkpoints/last.pt'}: No such file or directory; start a new run")
    named = re.findall(r"--from (\S+)", said)
    expected = {nothing_kept: [], only_epochs: [str(run / "checkpoints/epoch_001.safetensors")]}
    assert named == expected.get(lose, [str(run)])
    for place in named:
        train_tiny("next", start_from=place)
    if lose is only_epochs:
        with pytest.raises(UserError, match=rf"^--from {run}: .+, such as {expected[lose][0]}$"):
            train_tiny("other", start_from=run)


def test_a_lost_best_is_not_answered_with_a_save_that_is_not_there(train_tiny: Train, run: Path) -> None:
    train_tiny()
    shutil.rmtree(run / "best")
    for file in ("last.pt", *(f.name for f in RunFolder(run).epoch_files())):
        (run / "checkpoints" / file).unlink()
    with pytest.raises(UserError, match=r"--from \S+last\.previous\.pt$"):
        train_tiny(resume=True)
