"""Where a run stands, what it has taken so far, whom it tells and whom it asks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from flowerfast.config import Config
from flowerfast.training.fitting import check_alike

Stop = Callable[[], int | None]
"""Asked between steps: the number of the signal that wants the run to stop after saving, or None."""


def sum_dtype(device: torch.device) -> torch.dtype:
    """In what a device sums over an epoch: double precision, where it has such."""
    return torch.float32 if device.type == "mps" else torch.float64


class Totals:
    """Sums over an epoch, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=sum_dtype(device), device=device)  # loss x samples, correct
        self._loss, self._correct = self._sums.unbind()  # one small kernel each per step
        self.samples = 0

    def add(self, loss: torch.Tensor, correct: torch.Tensor, samples: int) -> None:
        """Add a batch: its mean loss and its number of right answers, both on the device."""
        self._loss.add_(loss, alpha=samples)
        self._correct.add_(correct)
        self.samples += samples

    def loss(self) -> float:
        """Mean loss so far (waits for the device)."""
        return self._sums[0].item() / max(self.samples, 1)

    def accuracy(self) -> float:
        """Share of right answers so far (waits for the device)."""
        return self._sums[1].item() / max(self.samples, 1)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sums": self._sums.cpu(), "samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint. Raises KeyError or ValueError when it is none of such sums."""
        check_alike({name: state[name] for name in ("sums", "samples")}, self.state_dict(), "totals")
        if not torch.isfinite(state["sums"]).all() or state["samples"] < 0:
            raise ValueError("totals: not finite, or of a negative number of samples")
        self._sums.copy_(state["sums"])
        self.samples = state["samples"]


@dataclass
class Standing:
    """Where a run stands.

    Attributes:
        epoch, batch: the next batch to train on; batch == batches per epoch: only validation is left.
        best_epoch, best_val_acc, confusion, calibration: of the best epoch so far; -1 and empty before the
            first. The confusion is as `Confusion.to_json` has it, or the matrix that an earlier version
            wrote; the calibration as `Calibration.to_json`, empty of an earlier version.
        mistakes: of that epoch, see `mistakes.confident_mistakes`, or where photos have several labels
            `mistakes.wrong_decisions`; empty of an earlier version.
        label_scores: of that epoch, where photos have several labels, in the place of confusion and
            calibration, see `LabelScores.to_json`.
        commands: lines by which the run was started and resumed, see `machine.command_line`.
        seconds, waited: of the epoch under way, training only.
        alone: samples left out so far because each was alone in its batch, of which a network cannot learn.
        history: rows of metrics.jsonl.
    """

    epoch: int = 0
    batch: int = 0
    best_epoch: int = -1
    best_val_acc: float = -1.0
    seconds: float = 0.0
    waited: float = 0.0
    alone: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    confusion: dict[str, list[int]] | list[list[int]] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    mistakes: dict[str, list[Any]] = field(default_factory=dict)
    label_scores: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def note_command(self, command: str | None) -> None:
        """Note what has started this process: the first such line is kept, and the latest."""
        if command is not None and command not in self.commands[-1:]:
            self.commands = [*self.commands[:1], *self.commands[1:][2 - _COMMANDS :], command]

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs brought no better validation."""
        return patience is not None and len(self.history) - 1 - self.best_epoch >= patience


_COMMANDS = 10  # of a run, at most
_BY = {
    "accuracy": ("val_acc", 1),
    "macro_f1": ("val_macro_f1", 1),
    "map": ("val_map", 1),
    "loss": ("val_loss", -1),
}


def is_better(row: dict[str, Any], than: dict[str, Any], by: str) -> bool:
    """Whether an epoch's validation is better than that of another, by what `eval.best` says."""
    key, sign = _BY[by]
    return bool(sign * row[key] > sign * than[key])


class Spent:
    """Where a run's time goes: seconds of evaluating and of waiting for files, and the first batch."""

    def __init__(self) -> None:
        self._seconds = {"evaluate": 0.0, "write": 0.0}
        self._first_batch: float | None = None
        self._before = 0.0  # of `write`, before the first batch: they belong to starting up

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time within as `evaluate`, or as `write`: copying for files, or waiting for them."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[what] += time.perf_counter() - started

    def note_first_batch(self) -> None:
        """A batch is there; the first one ends the start-up."""
        if self._first_batch is None:
            self._first_batch, self._before = time.perf_counter(), self._seconds["write"]

    def summary(self, started: float, seconds: float) -> dict[str, float]:
        """What summary.json says of a process that began at `started` (perf_counter) and took `seconds`.

        Start-up ends when the first batch is there; what is neither that nor evaluating nor waiting for files
        is training, which goes on while they are written. A process that found nothing left to train on was
        only starting up.
        """
        first = self._first_batch
        startup = seconds if first is None else first - started
        evaluate = 0.0 if first is None else self._seconds["evaluate"]
        write = 0.0 if first is None else self._seconds["write"] - self._before
        return {
            "startup_seconds": startup,
            "train_seconds": max(seconds - startup - evaluate - write, 0.0),
            "eval_seconds": evaluate,
            "write_seconds": write,
        }


@runtime_checkable
class Reporter(Protocol):
    """What a run tells while it works."""

    def start_run(self, config: Config, folder: Path) -> None:
        """A run is about to begin, or to go on, in `folder`; nothing has been written yet."""

    def start_epoch(self, epoch: int, batches: int, done: int) -> None:
        """An epoch begins (or goes on after `done` batches)."""

    def step(self, samples: int, read: "Totals") -> None:
        """A step of `samples` is queued; `read.loss()` and `read.accuracy()` wait for the device."""

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """An epoch and its validation are over."""

    def fact(self, text: str) -> None:
        """Something that is as it should be: what was found, what was chosen."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """A reporter that says nothing."""

    def start_run(self, config: Config, folder: Path) -> None:
        """Say nothing."""

    def start_epoch(self, epoch: int, batches: int, done: int) -> None:
        """Say nothing."""

    def step(self, samples: int, read: Totals) -> None:
        """Say nothing."""

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """Say nothing."""

    def fact(self, text: str) -> None:
        """As a note."""
        self.note(text)

    def note(self, text: str) -> None:
        """Say nothing."""
