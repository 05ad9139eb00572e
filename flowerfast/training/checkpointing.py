"""A run under way and its checkpoints: written while training goes on, read by a resumed run."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from flowerfast.config import Config
from flowerfast.errors import UserError, WriteFailed, one_line
from flowerfast.loaders.loader import Loader
from flowerfast.machine import command_line
from flowerfast.photos.layout import TEST
from flowerfast.ranks.telling import from_first
from flowerfast.training.callbacks import Callbacks, RunFacts
from flowerfast.training.label_scores import LabelScores
from flowerfast.training.lockstep import Lockstep
from flowerfast.training.mistakes import check_mistakes
from flowerfast.training.progress import Reporter, Spent, Standing, Stop, Totals
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.scores import Confusion
from flowerfast.training.seal import check
from flowerfast.training.state import TrainState
from flowerfast.training.writer import Writer, snapshot


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
        lockstep: what all ranks that train together know of each other.
        standing, totals: where the run stands, and the sums of the epoch under way.
        named: how many bad files the user has been told of.
        spent: where this process's time has gone.
        writer: brings the files of a save to the disk while training goes on.
        refused: saves that the disk had no room for.
        augmented_loader: batches of augmented photos to validate on too (eval.augmented=both).
        callbacks: the user's own, called by the first rank.
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
    lockstep: Lockstep = field(init=False)
    named: int = 0
    spent: Spent = field(default_factory=Spent)
    writer: Writer = field(default_factory=Writer)
    refused: int = 0
    augmented_loader: Loader | None = None
    callbacks: Callbacks = field(default_factory=Callbacks)
    _owed: list[Callable[[], object]] = field(default_factory=list)  # writes of the best weights, still to do

    def __post_init__(self) -> None:
        self.standing.note_command(command_line())
        self.totals = Totals(self.state.device)
        self.lockstep = Lockstep(self.stop, self.train_loader.photos, self.state.least_batch)

    @property
    def has_several(self) -> bool:
        """Whether a photo may have several labels."""
        return self.train_loader.photos.multilabel

    def facts(self) -> RunFacts:
        """What callbacks are told of the run."""
        train = self.train_loader.photos
        return RunFacts(
            self.folder.path,
            self.config.model_dump(mode="json"),
            tuple(self.classes),
            train_samples=len(train),
            val_samples=len(self.val_loader.photos),
            test_samples=int((train.table.fold == TEST).sum()),
            history=self.standing.history,
        )

    def save(self, finished: bool = False, best: bool = False) -> None:
        """Have last.pt written: from there a resumed run goes on as if nothing had happened.

        Args:
            finished: an epoch has just been closed: its weights come before last.pt, metrics.jsonl after it,
                and a kill between two files costs that epoch at most.
            best: its weights become best/ too, before last.pt says so.
        """
        with self.spent.on("write"):
            self.state.agree()
            from_first(partial(self._save, finished, best), in_step=True)

    def _save(self, finished: bool, best: bool) -> None:
        self._settle()  # before the copy, so that there is one copy at most
        saved = snapshot(self.state_dict(), self.state.device)
        files: list[Callable[[], object]] = [partial(self.folder.save_last, saved)]
        if finished:
            epoch, keep = self.standing.epoch - 1, self.config.checkpoints.keep
            trained = saved["trainer"]
            kept = trained.get("ema", trained)["network"]
            weights = partial(self.folder.save_epoch, epoch, kept, keep)
            metrics = partial(self.folder.write_metrics, saved["progress"]["history"])
            if best:
                best_too = partial(self._save_best, epoch)
                self._owed = [weights, best_too, self._pay]
            else:
                files = [weights, *files]
            files.append(metrics)
        # What is still owed comes first: last.pt never speaks of a best epoch that best/ does not hold.
        self.writer.submit([*self._owed, *files])

    def finish(self) -> None:
        """Have all written once training is over; what a full disk has refused is tried once more."""
        with self.spent.on("write"):
            from_first(self._finish, in_step=True)

    def _finish(self) -> None:
        if not self._settle():
            self._save(finished=True, best=False)
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

    def _save_best(self, epoch: int) -> None:
        network, config = self.state.model.network, self.config
        how = config.data.exif, config.eval.flip, config.eval.threshold if self.has_several else None
        self.folder.save_best(network, self.classes, epoch, *how)

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
            self.standing.note_command(command_line())
            self._check_step()
            check_mistakes(self.standing.mistakes, len(self.val_loader.photos.table), len(self.classes))
            if self.standing.history and self.has_several:
                LabelScores.read(self.standing.label_scores, self.classes)
            elif self.standing.history:
                Confusion.read(self.standing.confusion, self.classes)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"{self.folder.last}: does not fit this run ({one_line(error)}); start a new run"
            ) from error

    def _check_step(self) -> None:
        """Raise ValueError unless the schedule and the epoch are where a run can be."""
        batches, standing = len(self.train_loader), self.standing
        if standing.batch > batches:
            raise ValueError(f"progress.batch={standing.batch}: an epoch has {batches}")
        steps, done = self.state.scheduler.last_epoch, standing.epoch * batches + standing.batch
        if not 0 <= steps <= done:
            raise ValueError(f"trainer.scheduler.last_epoch={steps}: {done} batches are done")

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
        self._save_best(best)
        self.reporter.note(f"{problem}; made anew from {folder.epoch_file(best).name}")
