"""A disk that takes no more: one line, nothing half written, the last good save stands and goes on."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from flowerfast.config import Config
from flowerfast.errors import RunFailed, Stopped, WriteFailed
from flowerfast.training.progress import Silent, Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from tests.training.outcomes import STEPS, assert_same

resource = pytest.importorskip("resource")
Train = Callable[..., TrainResult]
OFTEN = {"checkpoints.every_seconds": 0}
GO_ON = {**OFTEN, "checkpoints.on_full": "continue"}
LINE = r"cannot be written \(File too large: at least [\d,]+ bytes needed, [\d,]+ free.+; make room, then "


@contextmanager
def full() -> Iterator[Callable[[], None]]:
    """Within, no file grows beyond some kilobytes, until the function is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield make_room
    finally:
        make_room()


class Filling(Silent):
    """A reporter that fills the disk after an epoch; with `soon` there is room again once that was noted."""

    def __init__(self, after: int = 0, soon: bool = True) -> None:
        self.after, self.soon = after, soon
        self.notes: list[str] = []
        self._full: AbstractContextManager[Callable[[], None]] = full()

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """Fill the disk."""
        if row["epoch"] == self.after:
            self._full.__enter__()

    def note(self, text: str) -> None:
        """Make room."""
        self.notes.append(text)
        if self.soon and "training goes on without this save" in text:
            self.close()

    def close(self) -> None:
        """Make room."""
        self._full.__exit__(None, None, None)


@pytest.fixture
def whole(train_tiny: Train, outcome: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What an undisturbed run gives."""
    return outcome(train_tiny("whole").folder)


def left_behind(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.name.endswith((".partial", ".tmp"))]


def test_a_run_that_finds_no_room_at_all_leaves_nothing(train_tiny: Train, run: Path) -> None:
    with (
        full(),
        pytest.raises(RunFailed, match=re.escape(str(run / "checkpoints/last.pt")) + ".+start again"),
    ):
        train_tiny()
    assert not run.exists()
    assert train_tiny().folder == run


@pytest.mark.parametrize("on_full", ["stop", "continue"])
def test_the_last_good_save_stands_and_goes_on(
    train_tiny: Train,
    run: Path,
    whole: dict[str, Any],
    outcome: Callable[[Path], dict[str, Any]],
    on_full: str,
) -> None:
    """With `continue` the run ends so too, as the disk stays full to the end."""
    reporter = Filling(after=0, soon=False)
    try:
        with pytest.raises(RunFailed, match=LINE + re.escape(f"go on with --resume --out {run}")) as caught:
            train_tiny(settings={**OFTEN, "checkpoints.on_full": on_full}, reporter=reporter)
    finally:
        reporter.close()
    assert "\n" not in str(caught.value)
    assert not left_behind(run)
    progress = RunFolder(run).load_last()["progress"]
    # The epoch's last step may still have been on its way to the disk when that was full.
    assert (progress["epoch"], progress["batch"]) in ((0, STEPS - 1), (0, STEPS))
    assert sum("goes on without this save" in note for note in reporter.notes) == (on_full == "continue")
    train_tiny(resume=True)
    assert_same(outcome(run), whole)


def test_a_run_goes_on_until_there_is_room_again(
    train_tiny: Train, run: Path, whole: dict[str, Any], outcome: Callable[[Path], dict[str, Any]]
) -> None:
    """The best epoch, the first here, gets to best/ with a later save."""
    reporter = Filling()
    try:
        summary = train_tiny(settings=GO_ON, reporter=reporter).summary
    finally:
        reporter.close()
    assert "saves that the disk had no room for: 1; the last one is whole" in summary["notes"]
    found = outcome(run)
    lost = "checkpoints/epoch_000.safetensors"  # unless they are the best ones
    assert {*whole} - {*found} <= {lost}
    assert_same(found, {name: whole[name] for name in found})
    assert not left_behind(run)


def test_a_stop_does_not_speak_of_a_save_that_found_no_room(
    train_tiny: Train, run: Path, stop_after: Callable[[int], AbstractContextManager[Stop]]
) -> None:
    reporter = Filling(soon=False)
    try:
        with pytest.raises(RunFailed, match=r"last\.pt: cannot be|model\.safetensors|epoch_000") as caught:
            train_tiny(settings=GO_ON, reporter=reporter, stop=stop_after(STEPS + 2 + 2))
    finally:
        reporter.close()
    assert not isinstance(caught.value, Stopped)
    assert RunFolder(run).has_save


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO], ids=errno.errorcode.get
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_whatever_a_disk_says_the_old_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(Config())
    state: dict[str, Any] = {"progress": {"batch": 1}, "totals": {}}
    folder.save_last(state | {"trainer": {"save": 1}})

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, where, refuse)
    with pytest.raises(RunFailed) as caught, folder.explaining():
        folder.save_last(state | {"trainer": {"save": 2}})
    room = errno.ENOSPC, errno.EDQUOT
    assert re.search(rf"last(\.previous)?\.pt: cannot be written \({os.strerror(code)}", str(caught.value))
    assert ("bytes needed" in str(caught.value)) == (code in room)
    assert ("make room" in str(caught.value)) == (code in room)
    assert folder.load_last()["trainer"] == {"save": 1}
    assert not left_behind(tmp_path)


def test_best_weights_that_find_no_room_leave_the_old_ones(
    build: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = RunFolder(tmp_path / "run"), build()
    folder.create(Config())
    folder.save_epoch(0, network.state_dict(), None)
    folder.save_best(network, ("a", "b", "c"), 0, "apply")
    before = {file.name: file.read_bytes() for file in folder.best.iterdir()}

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    with full(), pytest.raises(WriteFailed, match="File too large: at least"):
        folder.save_best(network, ("a", "b", "c"), 0, "apply")
    assert {file.name: file.read_bytes() for file in folder.best.iterdir()} == before
    assert not left_behind(folder.path)


def test_a_report_that_finds_no_room_is_made_by_a_resumed_run(
    train_tiny: Train, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", refuse)
        with pytest.raises(RunFailed, match=r"curve\.png: .+ then go on with --resume"):
            train_tiny(settings={"train.epochs": 1}, plots=True)
    train_tiny(resume=True, plots=True)
    assert (run / "report.html").is_file()
