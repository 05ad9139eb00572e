"""What is shown while a run works, on a terminal and elsewhere."""

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from flowerfast.commands import display
from flowerfast.commands.display import TrainDisplay, progress_bar
from flowerfast.settings import load_config
from flowerfast.training.progress import Totals

ROW = {
    "epoch": 0, "train_loss": 1.5, "train_acc": 0.25, "val_loss": 1.25, "val_acc": 0.5,
    "lr": 0.1, "images_per_sec": 1234.0, "data_wait": 0.07, "seconds": 2.0,
}  # fmt: skip


@pytest.fixture(params=[False, True], ids=["plain", "terminal"])
def console(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    monkeypatch.setattr(display, "_LIVE_SECONDS", 0.0)
    monkeypatch.setattr(display, "_PLAIN_SECONDS", 0.0)
    return Console(file=io.StringIO(), force_terminal=request.param, width=200, highlight=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def opened(console: Console, folder: Path) -> TrainDisplay:
    """The display of a run of two epochs."""
    shown = TrainDisplay(console)
    shown.start_run(load_config(settings={"train.epochs": 2}), folder)
    return shown


def wait_for(console: Console, text: str) -> None:
    """Until a text is shown; the live line of a terminal is drawn four times a second."""
    deadline = time.monotonic() + 30
    while text not in written(console):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_epoch_is_told_after_a_progress_bar(console: Console, tmp_path: Path) -> None:
    with progress_bar(console, "reading headers") as bar:
        bar(1, 2)
    shown = opened(console, tmp_path)
    totals = Totals(torch.device("cpu"))
    totals.add(torch.tensor(2.0), torch.tensor(3), 8)
    shown.start_epoch(0, batches=4, done=1)
    shown.step(8, totals)
    wait_for(console, "ETA")
    assert "epoch 1/2  batch 2/4" in written(console)
    assert "loss 2.0000  accuracy 37.5%  ETA 0:00:" in written(console)
    shown.end_epoch(ROW, best=True)
    shown.close()
    assert "epoch 1/2: train loss 1.5000 accuracy 25.0%, val loss 1.2500 accuracy 50.0% (best)" in written(
        console
    )
    assert "1,234 images/s, 7% waiting for data, 2.0 s" in written(console)


def test_both_validations_of_an_epoch_are_told(console: Console, tmp_path: Path) -> None:
    shown = opened(console, tmp_path)
    shown.end_epoch({**ROW, "val_aug_loss": 1.5, "val_aug_acc": 0.25}, best=False)
    shown.close()
    assert "val loss 1.2500 accuracy 50.0%, augmented loss 1.5000 accuracy 25.0%, 1,234" in written(console)


def test_names_from_users_are_not_markup(console: Console, tmp_path: Path) -> None:
    shown = opened(console, tmp_path)
    shown.note("skipped: a[/red]b[bold].jpg: not an image")
    shown.close()
    assert "a[/red]b[bold].jpg" in written(console)


def test_a_quick_task_shows_no_bar(console: Console) -> None:
    with progress_bar(console, "reading headers") as bar:
        bar(5, 10)
    assert "reading headers" not in written(console)


def test_a_long_task_shows_a_bar_on_a_terminal_only(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with progress_bar(console, "reading headers") as bar:
        bar(1, 10)
        now[0] = 1.5
        bar(5, 10)
    assert ("reading headers" in written(console)) == console.is_terminal


def test_events_that_found_no_room_are_written_with_the_next(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    console = Console(file=io.StringIO(), width=500)
    shown = TrainDisplay(console)
    shown.start_run(load_config(settings={"train.epochs": 4, "log.tensorboard": True}), tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for epoch in range(4):
        there = sum(file.stat().st_size for file in tmp_path.glob("tensorboard/*"))
        room = there + 50 if epoch in (1, 2) else limits[0]  # bytes: not enough for the events of an epoch
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            shown.end_epoch({**ROW, "epoch": epoch}, best=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    shown.close()
    assert written(console).count("training goes on, and events are added once they can be") == 1
    assert re.search(
        r"events\.\S+: cannot be written \(File too large: at least [\d,]+ bytes", written(console)
    )
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [0, 1, 2, 3]
    assert [event.value for event in events.Scalars("val_acc")] == [0.5] * 4
