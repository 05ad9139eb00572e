"""Training: `fit` decides when, `train_step` how."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

import torch

from flowerfast.errors import RunFailed, Stopped
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.ranges import stage
from flowerfast.photos.walk import some
from flowerfast.photos.workers import WaitStopped, stopping
from flowerfast.ranks.meeting import naming
from flowerfast.ranks.telling import from_first, gather
from flowerfast.ranks.who import current
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.evaluation import Evaluation, LabelEvaluation, evaluate, evaluate_labels
from flowerfast.training.finite import BadLoss, LossWatch, all_finite
from flowerfast.training.progress import Standing, Totals, is_better
from flowerfast.training.state import TrainState
from flowerfast.training.waiting import WaitClock


def fit(run: TrainingRun, saved: dict[str, Any] | None = None) -> Standing:
    """Train until the last epoch, or until patience ends; from a save on if there is one.

    However it ends, nothing is being written any more. Raises Stopped after saving when `run.stop` says so,
    RunFailed when a loss or weights are no numbers, of which nothing is saved, and what a write raised.
    """
    settings = run.config.train
    with run.writer, naming(), stopping(run.lockstep.waiting), _stopped_while_waiting(run):
        if saved is not None:
            run.load_state_dict(saved)
            from_first(run.check_weights, in_step=True)
            if current().is_first:  # a kill may have struck between it and last.pt
                run.writer.submit([partial(run.folder.write_metrics, list(run.standing.history))])
        else:
            run.save()
        from_first(lambda: run.callbacks.start(run.facts()), in_step=True)
        standing = run.standing
        while standing.epoch < settings.epochs and not standing.out_of_patience(settings.patience):
            train_epoch(run)
            started = time.perf_counter()
            with run.spent.on("evaluate"):
                result = validate(run, run.val_loader)
                also = validate(run, run.augmented_loader) if run.augmented_loader is not None else None
            if (signum := run.lockstep.stop()) is not None:
                run.save()
                raise Stopped(signum)
            for each in [result] if also is None else [result, also]:
                if not math.isfinite(each.loss):
                    raise RunFailed(
                        f"epoch {standing.epoch + 1}: the validation loss is {each.loss}, and the training "
                        f"losses are numbers; {_way_out(run)}"
                    )
            close_epoch(run, result, also, time.perf_counter() - started)
        run.finish()
    return standing


@contextmanager
def _stopped_while_waiting(run: TrainingRun) -> Iterator[None]:
    """A stop that was asked for while no photos came is one between two steps."""
    try:
        yield
    except WaitStopped:
        signum = run.lockstep.stop()
        assert signum is not None
        run.save()
        raise Stopped(signum) from None


def validate(run: TrainingRun, loader: Loader) -> Evaluation | LabelEvaluation:
    """How the model does on a loader's photos; on some of them when a stop is asked for."""
    state, step = run.state, run.lockstep
    state.agree()
    batches = takewhile(lambda _: step.stop() is None, step.batches(loader.epoch(run.standing.epoch)))
    asked = state.evaluated, batches, len(run.classes), state.precision, run.config.eval.flip, gather
    return evaluate_labels(*asked, state.threshold) if run.has_several else evaluate(*asked)


def train_epoch(run: TrainingRun) -> None:
    """Train on what is left of the epoch at which the run stands."""
    standing, state, step = run.standing, run.state, run.lockstep
    state.begin_epoch(standing.epoch)
    batches, together = len(run.train_loader), state.config.accumulate
    run.reporter.start_epoch(standing.epoch, batches, standing.batch)
    clock = WaitClock(state.device)
    seconds, waited = standing.seconds, standing.waited  # of an earlier start of this epoch
    saved_at, watch = step.now(), LossWatch()

    def settle() -> None:
        """What is to be known before a save."""
        _check_finite(run, watch)
        standing.seconds, standing.waited = seconds + clock.total, waited + clock.waited()

    try:
        for batch in clock.watch(step.batches(run.train_loader.epoch(standing.epoch, standing.batch))):
            run.spent.note_first_batch()
            due = standing.batch % together == together - 1 or standing.batch == batches - 1
            if step.samples:
                state.begin_batch(standing.epoch, standing.batch)
                loss, correct = train_step(state, batch) if due else state.gradients(batch, due=False)
                run.totals.add(loss, correct, step.samples)
                _check_loss(run, watch.add(standing.batch, loss))
            elif due and state.holds_gradients and (norm := state.update()) is not None:
                _check_loss(run, watch.add(standing.batch, norm))
            standing.alone += step.left_out
            standing.batch += 1
            run.reporter.step(step.samples + step.left_out, run.totals)
            signum = step.stop()
            if signum is not None or step.now() - saved_at >= run.config.checkpoints.every_seconds:
                settle()
                run.save()
                saved_at = step.now()
            if signum is not None:
                raise Stopped(signum)
    except WaitStopped:
        settle()
        raise
    settle()


def train_step(state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """One step, on a batch and those whose gradients wait for it, without a host sync.

    (mean loss, right answers) of the batch as device scalars; the loss is no number when the gradients have
    become too large to be clipped.
    """
    loss, correct = state.gradients(batch)
    with stage("optimizer"):
        norm = state.update()
    return loss if norm is None else loss.where(norm.isfinite(), math.nan), correct


def close_epoch(
    run: TrainingRun,
    result: Evaluation | LabelEvaluation,
    also: Evaluation | LabelEvaluation | None,
    eval_seconds: float,
) -> None:
    """Note the epoch's figures, move on to the next, have the files written.

    `also` is the validation on augmented photos beside `result`, the one on clean ones.
    """
    standing, state, totals = run.standing, run.state, run.totals
    seconds = max(standing.seconds, 1e-9)
    row: dict[str, Any] = {
        "epoch": standing.epoch,
        "train_loss": totals.loss(),
        "train_acc": totals.accuracy(),
        **{f"val_{name}": value for name, value in result.figures().items()},
        **_augmented(also),
        "lr": max(group["lr"] for group in state.optimizer.param_groups),
        "images_per_sec": totals.samples / seconds,
        "data_wait": min(standing.waited / seconds, 1.0),
        "seconds": standing.seconds + eval_seconds,
    }
    state.end_epoch()
    so_far = standing.history[standing.best_epoch] if standing.best_epoch >= 0 else None
    best = so_far is None or is_better(row, so_far, run.config.eval.best)
    if best:
        standing.best_epoch, standing.best_val_acc = standing.epoch, result.accuracy
        for name, value in result.kept().items():
            setattr(standing, name, value)
    standing.history.append(row)
    standing.epoch += 1
    standing.batch, standing.seconds, standing.waited = 0, 0.0, 0.0
    run.totals = Totals(state.device)
    run.reporter.end_epoch(row, best)
    run.name_bad()
    run.save(finished=True, best=best)
    from_first(partial(run.callbacks.epoch, row, run.folder.path), in_step=True)


def _augmented(also: Evaluation | LabelEvaluation | None) -> dict[str, float]:
    """What is told of a validation on augmented photos beside that on clean ones."""
    figures = {} if also is None else also.figures()
    return {f"val_aug_{name}": figures[name] for name in ("loss", "acc", "map") if name in figures}


def _check_finite(run: TrainingRun, watch: LossWatch) -> None:
    """Raise RunFailed when training has gone wrong: before a save, which is never of weights gone wrong."""
    _check_loss(run, watch.rest())
    if not all_finite(run.state.model.network.parameters()):
        raise _gone_wrong(run, run.standing.batch - 1, "weights are no numbers after it")


def _check_loss(run: TrainingRun, bad: BadLoss | None) -> None:
    if bad is not None:
        what = "training loss" + (" or gradient" if run.config.train.clip_grad is not None else "")
        raise _gone_wrong(run, bad.batch, f"the {what} is {bad.loss}")


def _gone_wrong(run: TrainingRun, batch: int, what: str) -> RunFailed:
    """The failure of a batch, counted from 0: which photos it is of, and what can be done."""
    whole = replace(run.train_loader.plan_sampler, rank=0, world_size=1)
    plan = next(whole.plans(run.standing.epoch, batch))
    photos = some([run.train_loader.photos.where(index) for index in plan.indices.tolist()])
    return RunFailed(f"epoch {run.standing.epoch + 1}, batch {batch + 1} ({photos}): {what}; {_way_out(run)}")


def _way_out(run: TrainingRun) -> str:
    """What people can do about numbers that have become too large: a resumed run would meet them again."""
    precise = " or train.amp=off" if run.state.precision.dtype is not None else ""
    kept = f"; --from {run.folder.path} begins with the best weights" if run.folder.best.is_dir() else ""
    return f"start a new run with a lower train.lr{precise}{kept}"
