"""What a person sees while it works: a live line on a terminal, plain lines elsewhere; events for scripts."""

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from flowerfast.commands.output import complain, out
from flowerfast.commands.speech import SPEECH, PipeClosed, event
from flowerfast.config import Config
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line, printable
from flowerfast.training.callbacks import Callback, RunFacts
from flowerfast.training.progress import Totals

_LIVE_SECONDS, _PLAIN_SECONDS = 0.5, 10.0
_FIGURES = (
    *("train_loss", "train_acc", "val_loss", "val_acc", "val_map", "val_macro_f1", "val_micro_f1"),
    *("val_aug_loss", "val_aug_acc", "val_aug_map"),
    *("lr", "images_per_sec", "data_wait"),
)
"""What TensorBoard is given of an epoch, where it has them."""


class TrainDisplay:
    """Tells of a training run on a console. See `Reporter`.

    Args:
        console: where to; its `is_terminal` decides between a live line and plain ones.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._epochs = console, 0
        self._interval = _LIVE_SECONDS if console.is_terminal else _PLAIN_SECONDS
        self._live: Live | None = None
        self._tensorboard: Path | None = None
        self._events: Any = None
        self._complained = False  # of a disk that takes no events
        self._epoch_seconds: list[float] = []
        self._epoch = self._batches = self._batch = self._samples = 0
        self._shown = self._started = time.monotonic()
        self.lost: Exception | None = None
        """Why nothing is shown any more: training goes on without, and the command says so at its end."""

    def start_run(self, config: Config, folder: Path) -> None:
        """A run is about to begin, or to go on. Raises UserError when TensorBoard is wanted and missing."""
        self._epochs = config.train.epochs
        if config.log.tensorboard:
            if find_spec("tensorboard") is None:
                raise UserError(
                    "log.tensorboard=true: TensorBoard is not installed; pip install "
                    '"flowerfast[tensorboard]"'
                )
            self._tensorboard = folder / "tensorboard"

    def start_epoch(self, epoch: int, batches: int, done: int) -> None:
        """An epoch begins (or goes on after `done` batches)."""
        self._epoch, self._batches, self._batch, self._samples = epoch, batches, done, 0
        self._shown = self._started = time.monotonic()
        if self._console.is_terminal and self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def step(self, samples: int, totals: Totals) -> None:
        """A step is queued; the sums are read, and the device waited for, a few times a second at most."""
        self._batch += 1
        self._samples += samples
        now = time.monotonic()
        if now - self._shown < self._interval:
            return
        self._shown = now
        self._tell_step(self._samples / (now - self._started), totals.loss(), totals.accuracy(), now)

    def _tell_step(self, rate: float, loss: float, accuracy: float, now: float) -> None:
        line = (
            f"epoch {self._epoch + 1}/{self._epochs}  batch {self._batch}/{self._batches}  {rate:,.0f} "
            f"images/s  loss {loss:.4f}  accuracy {accuracy:.1%}  ETA {self._eta(now)}"
        )
        if self._live is not None:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"))
        else:
            self._print(line)

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """An epoch and its validation are over."""
        self._epoch_seconds.append(row["seconds"])
        self._tell_epoch(row, best)
        if self._tensorboard is not None:
            self._add_events(self._tensorboard, row)

    def _tell_epoch(self, row: dict[str, Any], best: bool) -> None:
        if self._live is not None:
            self._live.update(Text(""))
        more = f" top-5 {row['val_top5']:.1%}" if "val_top5" in row else ""
        more += f" mAP {row['val_map']:.1%}" if "val_map" in row else ""
        augmented = (
            f", augmented loss {row['val_aug_loss']:.4f} accuracy {row['val_aug_acc']:.1%}"
            if "val_aug_acc" in row
            else ""
        )
        line = (
            f"epoch {row['epoch'] + 1}/{self._epochs}: "
            f"train loss {row['train_loss']:.4f} accuracy {row['train_acc']:.1%}, "
            f"val loss {row['val_loss']:.4f} accuracy {row['val_acc']:.1%}{more}{' (best)' if best else ''}"
            f"{augmented}, {row['images_per_sec']:,.0f} images/s, "
            f"{row['data_wait']:.0%} waiting for data, {row['seconds']:.1f} s"
        )
        self._print(line)

    def fact(self, text: str) -> None:
        """Something that is as it should be."""
        self._print(text)

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._print(text)

    def _print(self, text: str) -> None:
        if self.lost is not None:
            return
        try:
            self._console.print(Text(printable(text)), soft_wrap=True)
        except (PipeClosed, OSError) as error:
            self.lost = error

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _add_events(self, folder: Path, row: dict[str, Any]) -> None:
        from flowerfast.commands.events import Events  # imports TensorBoard, an optional dependency

        self._events = self._events or Events(folder)
        try:
            self._events.add(row["epoch"], {key: row[key] for key in _FIGURES if key in row})
        except OSError as error:  # the figures are in metrics.jsonl too
            what = error.what if isinstance(error, WriteFailed) else f"{folder}: {one_line(error)}"
            if not self._complained:
                self.note(f"{what}: training goes on, and events are added once they can be")
            self._complained = True

    def _eta(self, now: float) -> str:
        done = self._batch / max(self._batches, 1)
        this = (now - self._started) / max(done, 1e-9)
        per_epoch = sum(self._epoch_seconds) / len(self._epoch_seconds) if self._epoch_seconds else this
        left = this * (1 - done) + per_epoch * (self._epochs - self._epoch - 1)
        return str(timedelta(seconds=round(left)))


class QuietDisplay(TrainDisplay):
    """Tells of nothing but what the user should know, on standard error."""

    def start_epoch(self, epoch: int, batches: int, done: int) -> None:
        """Say nothing."""

    def step(self, samples: int, totals: Totals) -> None:
        """Say nothing."""

    def _tell_epoch(self, row: dict[str, Any], best: bool) -> None:
        pass

    def fact(self, text: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Something the user should know."""
        complain(text)


class JsonDisplay(TrainDisplay, Callback):
    """Tells of a training run by events."""

    def on_start(self, run: RunFacts) -> None:
        """A run is about to train, or to go on."""
        facts = {**asdict(run), "folder": str(run.folder)}
        done = len(facts.pop("history"))
        self._tell("run", **facts, epochs_done=done)

    def fact(self, text: str) -> None:
        """Something that is as it should be."""
        self._tell("note", text=text)

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._tell("warning", text=text)

    def _tell_step(self, rate: float, loss: float, accuracy: float, now: float) -> None:
        place = {"epoch": self._epoch, "batch": self._batch, "batches": self._batches}
        self._tell("step", **place, images_per_sec=rate, train_loss=loss, train_acc=accuracy)

    def _tell_epoch(self, row: dict[str, Any], best: bool) -> None:
        self._tell("epoch", **row, best=best)

    def _tell(self, name: str, **fields: Any) -> None:
        if self.lost is not None:
            return
        try:
            event(name, **fields)
        except (PipeClosed, RunFailed) as error:
            self.lost = error


def train_display() -> TrainDisplay:
    """What tells of a run as the command speaks."""
    if SPEECH.is_json:
        return JsonDisplay(Console(file=io.StringIO(), force_terminal=False))  # on which nothing is drawn
    return QuietDisplay(out) if SPEECH.is_quiet else TrainDisplay(out)


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that shows a bar once the work has taken more than a second.

    For scripts it tells events, every ten seconds at most.
    """
    if SPEECH.is_json:
        yield _ProgressEvents(what)
        return
    # A disabled Progress of rich before 14.3 ends with an empty line on what is no terminal.
    if SPEECH.is_quiet or not console.is_terminal:
        yield _no_bar
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    # Lines that are printed meanwhile stand above the bar. Of a stream that goes elsewhere nothing does.
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    ) as bars:
        task = bars.add_task(printable(what), visible=False)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, visible=time.monotonic() - started > 1)

        yield show


class _ProgressEvents:
    """A progress bar for scripts."""

    def __init__(self, what: str) -> None:
        self._what, self._told = what, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if now - self._told >= _PLAIN_SECONDS:
            self._told = now
            with suppress(PipeClosed, RunFailed):  # what came of the work will not be told either
                event("progress", what=self._what, done=done, total=total)


def answers_bar(as_data: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar beside answers: on whichever of standard output and error is a terminal.

    With answers `as_data`, for a script, there is none on the terminal to which they are written.
    """
    console = out if out.is_terminal else Console(stderr=True)
    return nullcontext(_no_bar) if as_data and out.is_terminal else progress_bar(console, "predicting")


def _no_bar(done: int, total: int) -> None:
    pass
