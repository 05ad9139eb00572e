"""What is saved when, that training changes none of it, and that a save which does not fit is refused."""

import errno
import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from flowerfast.errors import Stopped, UserError
from flowerfast.loaders.batch import Batch
from flowerfast.training import fit as module
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.evaluation import Evaluation
from flowerfast.training.progress import Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.state import TrainState
from flowerfast.training.writer import snapshot
from tests.training.outcomes import STEPS, same

Train = Callable[..., TrainResult]
PATIENCE = 60  # seconds until a test that hangs fails
THREE_EPOCHS = {"train.epochs": 3, "train.schedule": "constant"}


class Watched:
    """A run whose training thread notes what each epoch ends with and counts its steps.

    Args:
        accuracies: what validation finds, epoch by epoch.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, accuracies: tuple[float, ...]) -> None:
        self.ends: list[dict[str, Any]] = []
        self.steps = 0
        self.more_steps = threading.Condition()
        self._step, self._close = module.train_step, module.close_epoch
        self._accuracies = accuracies
        monkeypatch.setattr(module, "train_step", self.step)
        monkeypatch.setattr(module, "close_epoch", self.close)

    def step(self, state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        result = self._step(state, batch)
        with self.more_steps:
            self.steps += 1
            self.more_steps.notify_all()
        return result

    def close(self, run: TrainingRun, result: Evaluation, also: None, seconds: float) -> None:
        state = {key: run.state.state_dict()[key] for key in ("network", "optimizer")}
        self.ends.append(snapshot(state, torch.device("cpu")))
        result = replace(result, accuracy=self._accuracies[len(self.ends) - 1])
        self._close(run, result, also, seconds)

    def wait_for(self, steps: int) -> None:
        with self.more_steps:
            assert self.more_steps.wait_for(lambda: self.steps >= steps, PATIENCE)


def test_training_goes_on_and_changes_nothing_of_what_is_being_written(
    train_tiny: Train, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, (0.1, 0.2, 0.15))
    written: list[dict[str, Any]] = []
    save_epoch, save_last = RunFolder.save_epoch, RunFolder.save_last

    def slow(folder: RunFolder, epoch: int, *rest: Any) -> None:
        watched.wait_for(min((epoch + 2) * STEPS - 1, 3 * STEPS))  # deep in the next epoch, if there is one
        save_epoch(folder, epoch, *rest)

    def noted(folder: RunFolder, state: dict[str, Any]) -> None:
        save_last(folder, state)
        written.append(folder.load_last())

    monkeypatch.setattr(RunFolder, "save_epoch", slow)
    monkeypatch.setattr(RunFolder, "save_last", noted)
    train_tiny(settings=THREE_EPOCHS)
    files = [load_file(run_folder.epoch_file(epoch)) for epoch in range(3)]
    assert all(same(file, end["network"]) for file, end in zip(files, watched.ends, strict=True))
    assert not same(files[0], files[1])
    assert same(load_file(run_folder.best / "model.safetensors"), files[1])
    assert [last["progress"]["epoch"] for last in written] == [0, 1, 2, 3]
    for last, end in zip(written[1:], watched.ends, strict=True):
        assert same({key: last["trainer"][key] for key in end}, end)
        assert len(last["progress"]["history"]) == last["progress"]["epoch"]


def test_last_never_names_a_best_epoch_that_is_not_there(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, (0.1, 0.3, 0.2))
    found: list[tuple[int, bool]] = []
    save_last = RunFolder.save_last

    def checked(folder: RunFolder, state: dict[str, Any]) -> None:
        epoch = state["progress"]["best_epoch"]
        there = epoch >= 0 and same(
            load_file(folder.best / "model.safetensors"), watched.ends[epoch]["network"]
        )
        found.append((epoch, there))
        save_last(folder, state)

    monkeypatch.setattr(RunFolder, "save_last", checked)
    train_tiny(settings=THREE_EPOCHS)
    assert found == [(-1, False), (0, True), (1, True), (1, True)]


@pytest.mark.parametrize(("seconds", "saves"), [(0, 1 + 2 * (STEPS + 1)), (1e6, 1 + 2)])
def test_saves_come_as_often_as_the_settings_say(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, seconds: float, saves: int
) -> None:
    standings: list[tuple[int, int]] = []
    save_last = RunFolder.save_last

    def noted(folder: RunFolder, state: dict[str, Any]) -> None:
        standings.append((state["progress"]["epoch"], state["progress"]["batch"]))
        save_last(folder, state)

    monkeypatch.setattr(RunFolder, "save_last", noted)
    train_tiny(settings={"checkpoints.every_seconds": seconds})
    assert len(standings) == saves
    assert standings == sorted(standings)
    assert {(0, 0), (1, 0), (2, 0)} <= set(standings)


# ------------------------------------------------------------------------------------------ errors and stops


@pytest.mark.parametrize(("file", "epoch"), [("save_epoch", 1), ("save_best", 0), ("write_metrics", 2)])
def test_an_error_of_a_write_ends_the_run(
    train_tiny: Train, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch, file: str, epoch: int
) -> None:
    Watched(monkeypatch, (0.1, 0.1, 0.1))
    calls, write = [], getattr(RunFolder, file)

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == epoch + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(RunFolder, file, full)
    with pytest.raises(OSError, match="No space left on device"):
        train_tiny(settings=THREE_EPOCHS)
    assert run_folder.load_last()["progress"]["epoch"] == epoch + (file == "write_metrics")
    assert not run_folder.summary.exists()


def test_a_stop_waits_until_all_is_written(
    train_tiny: Train,
    run_folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: Callable[[int], AbstractContextManager[Stop]],
) -> None:
    written: list[tuple[int, int]] = []
    save_last = RunFolder.save_last

    def slow(folder: RunFolder, state: dict[str, Any]) -> None:
        time.sleep(0.3)  # time enough for a run that does not wait to end without this file
        save_last(folder, state)
        written.append((state["progress"]["epoch"], state["progress"]["batch"]))

    monkeypatch.setattr(RunFolder, "save_last", slow)
    with pytest.raises(Stopped) as caught:
        train_tiny(settings=THREE_EPOCHS, stop=stop_after(STEPS + 2 + 2))
    assert caught.value.signum == 15
    assert written == [(0, 0), (1, 0), (1, 2)]
    assert not list(run_folder.path.rglob("*.partial"))


def test_an_error_of_a_write_comes_before_a_stop(train_tiny: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "save_last", full)
    with pytest.raises(OSError, match="No space left on device"):
        train_tiny(stop=nullcontext(lambda: 15))


# ------------------------------------------------------------------------------------- saves that do not fit


def spoilt(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Saves that torch can read and that are none of this run_folder."""
    trainer, other = state["trainer"], timm.create_model("test_convnext", num_classes=3).state_dict()
    without = [{k: v for k, v in state.items() if k != key} for key in ("trainer", "totals", "progress")]
    return [
        *without,
        *({**state, "trainer": {k: v for k, v in trainer.items() if k != key}} for key in trainer),
        *({**state, "trainer": {**trainer, key: 3}} for key in ("network", "optimizer", "scheduler", "rng")),
        {**state, "trainer": {**trainer, "network": other}},
        {**state, "trainer": None},
        {**state, "progress": None},
        {**state, "progress": {**state["progress"], "unknown": 1}},
        *(
            {**state, "progress": {**state["progress"], name: math.nan}}
            for name in ("best_val_acc", "seconds")
        ),
        {**state, "progress": {**state["progress"], "batch": 99}},
        *({**state, "totals": {**state["totals"], "sums": s}} for s in (torch.zeros(7), 10**30)),
        *({**state, "totals": {**state["totals"], "samples": samples}} for samples in (None, math.nan)),
        {**state, "trainer": {**trainer, "scheduler": {**trainer["scheduler"], "last_epoch": 99}}},
        {**state, "trainer": {**trainer, "optimizer": {"state": {}, "param_groups": [{"lr": "x"}]}}},
        {**state, "version": 2},
    ]


def test_a_save_that_does_not_fit_is_refused_in_one_line(
    train_tiny: Train, begin: Callable[..., None], run: Path
) -> None:
    begin()
    folder = RunFolder(run)
    folder.previous.unlink()  # else it would stand in
    for state in spoilt(folder.load_last()):
        torch.save(state, folder.last)
        before = folder.last.read_bytes()
        with pytest.raises(UserError) as caught:
            train_tiny(resume=True)
        assert str(caught.value).startswith(f"{folder.last}: ")
        assert str(caught.value).endswith("; start a new run")
        assert "\n" not in str(caught.value)
        assert folder.last.read_bytes() == before
