"""Training: `fit` decides when, `train_step` how, `evaluate` how well."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from flowerfast.config import Config
from flowerfast.errors import RunFailed, Stopped, UserError, WriteFailed, one_line
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.ranges import stage
from flowerfast.photos.walk import some
from flowerfast.photos.workers import WaitStopped, stopping
from flowerfast.training.finite import BadLoss, LossWatch, all_finite
from flowerfast.training.progress import Reporter, Spent, Standing, Totals, sum_dtype
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.scores import Confusion
from flowerfast.training.seal import check
from flowerfast.training.state import Precision, TrainState
from flowerfast.training.waiting import WaitClock
from flowerfast.training.writer import Writer, snapshot

Stop = Callable[[], int | None]
"""Asked between steps: the number of the signal that wants the run to stop after saving, or None."""


@dataclass
class TrainingRun:
    """One training run: what `fit` works with.

    Attributes:
        config, folder, classes: settings, where results go, names of the labels.
        state: model, optimiser, schedule, precision.
        train_loader, val_loader: batches of the two halves.
        reporter: is told how it goes.
        record: what the loader chose, for a resumed run to choose the same.
        stop: says when to stop.
        standing, totals: where the run stands, and the sums of the epoch under way.
        named: how many bad files the user has been told of.
        spent: where this process's time has gone.
        writer: brings the files of a save to the disk while training goes on.
        refused: saves that the disk had no room for.
    """

    config: Config
    folder: RunFolder
    classes: list[str]
    state: TrainState
    train_loader: Loader
    val_loader: Loader
    reporter: Reporter
    record: dict[str, Any] = field(default_factory=dict)
    stop: Stop = lambda: None
    standing: Standing = field(default_factory=Standing)
    totals: Totals = field(init=False)
    named: int = 0
    spent: Spent = field(default_factory=Spent)
    writer: Writer = field(default_factory=Writer)
    refused: int = 0
    _owed: list[Callable[[], object]] = field(default_factory=list)  # writes of the best weights, still to do

    def __post_init__(self) -> None:
        self.totals = Totals(self.state.device)

    def save(self, finished: bool = False, best: bool = False) -> None:
        """Have last.pt written: from there a resumed run goes on as if nothing had happened.

        Args:
            finished: an epoch has just been closed: its weights come before last.pt, metrics.jsonl after it,
                and a kill between two files costs that epoch at most.
            best: its weights become best/ too, before last.pt says so.
        """
        with self.spent.on("write"):
            self._settle()  # before the copy, so that there is one copy at most
            saved = snapshot(self.state_dict(), self.state.device)
            files: list[Callable[[], object]] = [partial(self.folder.save_last, saved)]
            if finished:
                epoch, keep = self.standing.epoch - 1, self.config.checkpoints.keep
                weights = partial(self.folder.save_epoch, epoch, saved["trainer"]["network"], keep)
                metrics = partial(self.folder.write_metrics, saved["progress"]["history"])
                if best:
                    network, exif = self.state.model.network, self.config.data.exif
                    kept = partial(self.folder.save_best, network, self.classes, epoch, exif)
                    self._owed = [weights, kept, self._pay]
                else:
                    files = [weights, *files]
                files.append(metrics)
            # What is still owed comes first: last.pt never speaks of a best epoch that best/ does not hold.
            self.writer.submit([*self._owed, *files])

    def finish(self) -> None:
        """Have all written once training is over; what a full disk has refused is tried once more."""
        with self.spent.on("write"):
            settled = self._settle()
        if not settled:
            self.save(finished=True)
        with self.spent.on("write"):
            self.writer.wait()

    def _pay(self) -> None:
        self._owed = []

    def _settle(self) -> bool:
        """Wait for the save under way; whether there is none that failed, which is said the first time."""
        try:
            self.writer.wait()
        except WriteFailed as error:
            if not error.is_full or self.config.checkpoints.on_full == "stop":
                raise
            if not self.refused:
                self.reporter.note(
                    f"{error.what}: training goes on without this save (checkpoints.on_full=continue)"
                )
            self.refused += 1
            return False
        return True

    def name_bad(self) -> None:
        """Have the files named that turned out to be bad since this was last called."""
        bad = self.train_loader.photos.bad
        for file in bad[self.named :]:
            self.reporter.note(f"skipped: {file.path}: {file.error}")
        self.named = len(bad)

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        return {
            "trainer": self.state.state_dict(),
            "totals": self.totals.state_dict(),
            "progress": asdict(self.standing),
            "loader": self.record,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Back to a save. Raises UserError when it is not of this run."""
        try:
            self.state.load_state_dict(saved["trainer"])
            self.totals.load_state_dict(saved["totals"])
            self.standing = Standing(**saved["progress"])
            if self.standing.history:
                Confusion.read(self.standing.confusion, self.classes)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"{self.folder.last}: does not fit this run ({one_line(error)}); start a new run"
            ) from error

    def check_weights(self) -> None:
        """Make best/ anew if it is damaged and its epoch's weights are kept.

        Raises UserError when it cannot be, or other weights of the run are damaged.
        """
        folder, best = self.folder, self.standing.best_epoch
        for file in folder.epoch_files():
            check(file)
        problem = folder.best_problem() if best >= 0 else None
        if problem is None:
            return
        if not folder.epoch_file(best).is_file():
            saved = folder.last if folder.last.is_file() else folder.previous
            raise UserError(f"{problem}; bring a good copy back, or train on in a new run, --from {saved}")
        folder.save_best(self.state.model.network, self.classes, best, self.config.data.exif)
        self.reporter.note(f"{problem}; made anew from {folder.epoch_file(best).name}")


def fit(run: TrainingRun, saved: dict[str, Any] | None = None) -> Standing:
    """Train until the last epoch, or until patience ends; from a save on if there is one.

    However it ends, nothing is being written any more. Raises Stopped after saving when `run.stop` says so,
    RunFailed when a loss or weights are no numbers, of which nothing is saved, and what a write raised.
    """
    settings = run.config.train
    with run.writer, stopping(lambda: run.stop() is not None), _stopped_while_waiting(run):
        if saved is not None:
            run.load_state_dict(saved)
            run.check_weights()
            # A kill may have struck between it and last.pt.
            run.writer.submit([partial(run.folder.write_metrics, list(run.standing.history))])
        else:
            run.save()
        standing = run.standing
        while standing.epoch < settings.epochs and not standing.out_of_patience(settings.patience):
            train_epoch(run)
            started = time.perf_counter()
            with run.spent.on("evaluate"):
                batches = takewhile(lambda _: run.stop() is None, run.val_loader.epoch(standing.epoch))
                result = evaluate(run.state.model, batches, len(run.classes), run.state.precision)
            if (signum := run.stop()) is not None:
                run.save()
                raise Stopped(signum)
            if not math.isfinite(result.loss):
                raise RunFailed(
                    f"epoch {standing.epoch + 1}: the validation loss is {result.loss}, and the training "
                    f"losses are numbers; {_way_out(run)}"
                )
            close_epoch(run, result, time.perf_counter() - started)
        run.finish()
    return standing


@contextmanager
def _stopped_while_waiting(run: TrainingRun) -> Iterator[None]:
    """A stop that was asked for while no photos came is one between two steps."""
    try:
        yield
    except WaitStopped:
        signum = run.stop()
        assert signum is not None
        run.save()
        raise Stopped(signum) from None


def train_epoch(run: TrainingRun) -> None:
    """Train on what is left of the epoch at which the run stands."""
    standing, state = run.standing, run.state
    state.model.train()
    run.reporter.start_epoch(standing.epoch, len(run.train_loader), standing.batch)
    clock = WaitClock(state.device)
    seconds, waited = standing.seconds, standing.waited  # of an earlier start of this epoch
    saved_at, watch = time.monotonic(), LossWatch()

    def settle() -> None:
        """What is to be known before a save."""
        _check_finite(run, watch)
        standing.seconds, standing.waited = seconds + clock.total, waited + clock.waited()

    try:
        for batch in clock.watch(run.train_loader.epoch(standing.epoch, standing.batch)):
            run.spent.note_first_batch()
            if len(batch) >= state.least_batch:
                loss, correct = train_step(state, batch)
                run.totals.add(loss, correct, len(batch))
                _check_loss(run, watch.add(standing.batch, loss))
            else:
                standing.alone += len(batch)
            standing.batch += 1
            run.reporter.step(len(batch), run.totals)
            signum = run.stop()
            if signum is not None or time.monotonic() - saved_at >= run.config.checkpoints.every_seconds:
                settle()
                run.save()
                saved_at = time.monotonic()
            if signum is not None:
                raise Stopped(signum)
    except WaitStopped:
        settle()
        raise
    settle()


def train_step(state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of SGD on a batch; (mean loss, right answers) as device scalars, without a host sync."""
    loss, correct = state.gradients(batch)
    with stage("optimizer"):
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
    if state.config.schedule == "onecycle":
        state.scheduler.step()
    return loss, correct


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, top-1 and top-5 accuracy (0..1; None for fewer than six classes), confusion."""

    loss: float
    accuracy: float
    confusion: Confusion
    top5: float | None = None


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], classes: int, precision: Precision) -> Evaluation:
    """Loss, accuracies and confusion of a model over batches on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=sum_dtype(device), device=device)
    among5 = torch.zeros((), dtype=torch.int64, device=device)
    pairs: list[torch.Tensor] = []  # on the device, so that no batch is waited for: 16 bytes a sample
    for batch in batches:
        if not len(batch):
            continue
        with precision.autocast(device):
            logits = model(batch.images).float()
        loss += F.cross_entropy(logits, batch.labels, reduction="sum")
        pairs.append(torch.stack([batch.labels, logits.argmax(1)]))
        if classes > 5:
            among5 += (logits.topk(5).indices == batch.labels[:, None]).sum()
    model.train(was_training)
    true, predicted = torch.cat(pairs or [torch.zeros(2, 0, dtype=torch.int64)], 1).cpu().numpy()
    total = max(len(true), 1)
    confusion = Confusion.of(true, predicted, classes)
    top5 = among5.item() / total if classes > 5 else None
    return Evaluation(loss.item() / total, confusion.accuracy(), confusion, top5)


def close_epoch(run: TrainingRun, result: Evaluation, eval_seconds: float) -> None:
    """Note the epoch's figures, move on to the next, have the files written."""
    standing, state, totals = run.standing, run.state, run.totals
    seconds = max(standing.seconds, 1e-9)
    row: dict[str, Any] = {
        "epoch": standing.epoch,
        "train_loss": totals.loss(),
        "train_acc": totals.accuracy(),
        "val_loss": result.loss,
        "val_acc": result.accuracy,
        **({"val_top5": result.top5} if result.top5 is not None else {}),
        "lr": state.optimizer.param_groups[0]["lr"],
        "images_per_sec": totals.samples / seconds,
        "data_wait": min(standing.waited / seconds, 1.0),
        "seconds": standing.seconds + eval_seconds,
    }
    state.end_epoch()
    best = result.accuracy > standing.best_val_acc
    if best:
        standing.best_epoch, standing.best_val_acc = standing.epoch, result.accuracy
        standing.confusion = result.confusion.to_json()
    standing.history.append(row)
    standing.epoch += 1
    standing.batch, standing.seconds, standing.waited = 0, 0.0, 0.0
    run.totals = Totals(state.device)
    run.reporter.end_epoch(row, best)
    run.name_bad()
    run.save(finished=True, best=best)


def _check_finite(run: TrainingRun, watch: LossWatch) -> None:
    """Raise RunFailed when training has gone wrong: before a save, which is never of weights gone wrong."""
    _check_loss(run, watch.rest())
    if not all_finite(run.state.model.network.parameters()):
        raise _gone_wrong(run, run.standing.batch - 1, "weights are no numbers after it")


def _check_loss(run: TrainingRun, bad: BadLoss | None) -> None:
    if bad is not None:
        raise _gone_wrong(run, bad.batch, f"the training loss is {bad.loss}")


def _gone_wrong(run: TrainingRun, batch: int, what: str) -> RunFailed:
    """The failure of a batch, counted from 0: which photos it is of, and what can be done."""
    plan = next(run.train_loader.plan_sampler.plans(run.standing.epoch, batch))
    photos = some([run.train_loader.photos.where(index) for index in plan.indices.tolist()])
    return RunFailed(f"epoch {run.standing.epoch + 1}, batch {batch + 1} ({photos}): {what}; {_way_out(run)}")


def _way_out(run: TrainingRun) -> str:
    """What people can do about numbers that have become too large: a resumed run would meet them again."""
    precise = " or train.amp=off" if run.state.precision.dtype is not None else ""
    kept = f"; --from {run.folder.path} begins with the best weights" if run.folder.best.is_dir() else ""
    return f"start a new run with a lower train.lr{precise}{kept}"
