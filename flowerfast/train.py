"""Training: `fit` decides when, `train_step` how, `evaluate` how well."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from flowerfast.checkpoint import RunFolder
from flowerfast.config import Config
from flowerfast.loaders.batch import Batch, Loader
from flowerfast.progress import Progress, Reporter, RunFailed, Spent, Stopped, StopSignals, Totals
from flowerfast.ranges import stage
from flowerfast.trainer import Precision, Trainer
from flowerfast.waiting import WaitClock
from flowerfast.writer import Writer, snapshot


@dataclass
class Run:
    """One training run: what `fit` works with.

    Attributes:
        config, folder, classes: settings, where results go, names of the labels.
        trainer: model, optimiser, schedule, precision.
        train_loader, val_loader: batches of the two halves.
        reporter: is told how it goes.
        progress, totals: where the run stands, and the sums of the epoch under way.
        spent: where this process's time has gone.
        writer: brings the files of a save to the disk while training goes on.
    """

    config: Config
    folder: RunFolder
    classes: list[str]
    trainer: Trainer
    train_loader: Loader
    val_loader: Loader
    reporter: Reporter
    progress: Progress = field(default_factory=Progress)
    totals: Totals = field(init=False)
    spent: Spent = field(default_factory=Spent)
    writer: Writer = field(default_factory=Writer)

    def __post_init__(self) -> None:
        self.totals = Totals(self.trainer.device)

    def save(self, finished: bool = False, best: bool = False) -> None:
        """Have last.pt written: from there a resumed run goes on as if nothing had happened.

        Args:
            finished: an epoch has just been closed: its weights come before last.pt, metrics.jsonl after it,
                and a kill between two files costs that epoch at most.
            best: its weights become best/ too, before last.pt says so.
        """
        with self.spent.on("write"):
            self.writer.wait()  # before the copy, so that there is one copy at most
            state = snapshot(self._state(), self.trainer.device)
            files: list[Callable[[], object]] = [partial(self.folder.save_last, state)]
            if finished:
                epoch, keep = self.progress.epoch - 1, self.config.checkpoints.keep
                weights = [partial(self.folder.save_epoch, epoch, state["trainer"]["network"], keep)]
                if best:
                    network = self.trainer.model.network
                    weights.append(partial(self.folder.save_best, network, self.classes, epoch))
                metrics = partial(self.folder.write_metrics, state["progress"]["history"])
                files = [*weights, *files, metrics]
            self.writer.submit(files)

    def _state(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer.state(),
            "totals": self.totals.state(),
            "progress": asdict(self.progress),
        }

    def restore(self) -> None:
        """Back to the last save."""
        saved = self.folder.load_last()
        self.trainer.load(saved["trainer"])
        self.totals.load(saved["totals"])
        self.progress = Progress(**saved["progress"])


def fit(run: Run, resume: bool = False) -> Progress:
    """Train until the last epoch, or until patience ends.

    However it ends, nothing is being written any more. Raises Stopped after saving when SIGINT or SIGTERM
    arrives, RunFailed when the loss is no number, and what a write raised.
    """
    settings = run.config.train
    with StopSignals() as signals, run.writer:
        if resume:
            run.restore()
            run.folder.write_metrics(run.progress.history)  # a kill may have struck between it and last.pt
        else:
            run.save()
        progress = run.progress
        while progress.epoch < settings.epochs and not progress.out_of_patience(settings.patience):
            train_epoch(run, signals)
            started = time.perf_counter()
            with run.spent.on("evaluate"):
                batches = takewhile(lambda _: signals.received is None, run.val_loader.epoch(progress.epoch))
                result = evaluate(run.trainer.model, batches, len(run.classes), run.trainer.precision)
            if signals.received is not None:
                run.save()
                raise Stopped(signals.received)
            close_epoch(run, result, time.perf_counter() - started)
        with run.spent.on("write"):
            run.writer.wait()
    return progress


def train_epoch(run: Run, signals: StopSignals) -> None:
    """Train on what is left of the epoch at which the run stands."""
    progress, trainer = run.progress, run.trainer
    trainer.model.train()
    run.reporter.start_epoch(progress.epoch, len(run.train_loader), progress.batch)
    clock = WaitClock(trainer.device)
    seconds, waited = progress.seconds, progress.waited  # of an earlier start of this epoch
    saved_at = time.monotonic()
    for batch in clock.watch(run.train_loader.epoch(progress.epoch, progress.batch)):
        run.spent.note_first_batch()
        if len(batch):
            loss, correct = _step(trainer, batch)
            run.totals.add(loss, correct, len(batch))
        progress.batch += 1
        run.reporter.step(len(batch), run.totals)
        stop = signals.received
        if stop is not None or time.monotonic() - saved_at >= run.config.checkpoints.every_seconds:
            _check_finite(run)
            progress.seconds, progress.waited = seconds + clock.total, waited + clock.waited()
            run.save()
            saved_at = time.monotonic()
        if stop is not None:
            raise Stopped(stop)
    _check_finite(run)
    progress.seconds, progress.waited = seconds + clock.total, waited + clock.waited()


def train_step(trainer: Trainer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of SGD on a batch; (mean loss, right answers) as device scalars, without a host sync."""
    with stage("forward"), trainer.precision.autocast(trainer.device):
        logits = trainer.forward(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=trainer.config.label_smoothing)
    with stage("backward"):
        trainer.scaler.scale(loss).backward()
    with stage("optimizer"):
        trainer.scaler.step(trainer.optimizer)
        trainer.scaler.update()
        trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.config.schedule == "onecycle":
        trainer.scheduler.step()
    return loss.detach(), (logits.argmax(1) == batch.labels).sum()


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, top-1 accuracy (0..1), and counts: int64 (C, C), rows true, columns predicted."""

    loss: float
    accuracy: float
    confusion: np.ndarray


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], classes: int, precision: Precision) -> Evaluation:
    """Loss, accuracy and confusion matrix of a model over batches on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    for batch in batches:
        if not len(batch):
            continue
        with precision.autocast(device):
            logits = model(batch.images).float()
        loss += F.cross_entropy(logits, batch.labels, reduction="sum")
        counts += torch.bincount(batch.labels * classes + logits.argmax(1), minlength=classes * classes)
    model.train(was_training)
    confusion = counts.view(classes, classes).cpu().numpy()
    total = max(int(confusion.sum()), 1)
    return Evaluation(loss.item() / total, int(confusion.trace()) / total, confusion)


def close_epoch(run: Run, result: Evaluation, eval_seconds: float) -> None:
    """Note the epoch's figures, move on to the next, have the files written."""
    progress, trainer, totals = run.progress, run.trainer, run.totals
    seconds = max(progress.seconds, 1e-9)
    row: dict[str, Any] = {
        "epoch": progress.epoch,
        "train_loss": totals.loss(),
        "train_acc": totals.accuracy(),
        "val_loss": result.loss,
        "val_acc": result.accuracy,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "images_per_sec": totals.samples / seconds,
        "data_wait": min(progress.waited / seconds, 1.0),
        "seconds": progress.seconds + eval_seconds,
    }
    trainer.end_epoch()
    best = result.accuracy > progress.best_val_acc
    if best:
        progress.best_epoch, progress.best_val_acc = progress.epoch, result.accuracy
        progress.confusion = result.confusion.tolist()
    progress.history.append(row)
    progress.epoch += 1
    progress.batch, progress.seconds, progress.waited = 0, 0.0, 0.0
    run.totals = Totals(trainer.device)
    run.reporter.end_epoch(row, best)
    run.save(finished=True, best=best)


def _step(trainer: Trainer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return train_step(trainer, batch)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RunFailed(
            "a batch of one sample is too little for batch normalisation at this image size; "
            "change train.batch_size by one, or raise data.image_size"
        ) from error


def _check_finite(run: Run) -> None:
    loss = run.totals.loss()
    if not math.isfinite(loss):
        raise RunFailed(
            f"epoch {run.progress.epoch + 1}, batch {run.progress.batch}: the training loss is {loss}; "
            "lower train.lr, or set train.amp=off"
        )
