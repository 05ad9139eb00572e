"""Where a run lies: the names of its files, its lock, and what else may lie there.

A run never writes where its folder was moved away, nor through a link, nor over what is not its own.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from flowerfast.errors import RunFailed, UserError, WriteFailed, write_failure
from flowerfast.locks import is_still, only_writer

OTHER = "choose another --out"


class RunPlace:
    """Paths of one run, and the right to write there.

    Args:
        path: the folder; made by `RunFolder.create`, checked by `RunFolder.open`.
        claimed: it has just been made, empty, for this run (`claim_run_path`).
    """

    def __init__(self, path: Path, claimed: bool = False) -> None:
        self.path, self._mine = path, claimed
        self.config, self.split = path / "config.yaml", path / "split.json"
        self.metrics, self.summary = path / "metrics.jsonl", path / "summary.json"
        self.table = path / "metrics.csv"
        self.checkpoints, self.best = path / "checkpoints", path / "best"
        self.last, self.previous = self.checkpoints / "last.pt", self.checkpoints / "last.previous.pt"
        self.curves, self.confusion = path / "accuracy_loss_curve.png", path / "confusion_matrix.png"
        self.tensorboard, self.report = path / "tensorboard", path / "report.html"
        self.notes: list[str] = []
        self._trained = False  # what was saved here has seen a batch
        self._held: os.stat_result | None = None  # the folder that is locked, which no other one is

    @property
    def has_save(self) -> bool:
        """Whether a run has been saved there, to be resumed."""
        return self.last.is_file() or self.previous.is_file()

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Hold the folder, made if need be, from the first look at it to the last file, see `locks`.

        Raises UserError when another run is writing there, or it cannot be made; RunFailed where its disk is
        why.
        """
        if self.path.exists() and not self.path.is_dir():
            self.check_free()
        with only_writer(self.path, OTHER) as unlocked:
            self.notes = [unlocked] if unlocked is not None else []
            self._held = os.stat(self.path) if unlocked is None else None
            yield

    def _is_there(self) -> bool:
        """Whether the folder that is held still has its name; where there are no locks nobody can tell."""
        return self._held is None or is_still(self._held, self.path)

    def check_there(self) -> None:
        """Raise RunFailed when the folder was moved or deleted: to be called before a file is written there.

        Half a run would be made anew in its place. checkpoints/ and best/, deleted alone, are made anew,
        by `Writer` even where that happens while a file is written there.
        Raises RunFailed too when something else has taken the place of a file or folder of the run.
        """
        if not self._is_there():
            raise RunFailed(
                f"{self.path}: moved, deleted or replaced while the run was writing there; go on with "
                "--resume and its new place as --out, or start again"
            )
        if (problem := self._misplaced()) is not None:
            raise RunFailed(f"{problem}, then {self._then}")

    def check_places(self) -> None:
        """Raise UserError when something else lies in the place of a file or folder of the run."""
        if (problem := self._misplaced()) is not None:
            raise UserError(f"{problem}, or {OTHER}")

    def _misplaced(self) -> str | None:
        """What lies in the place of a file or folder of the run and would end it, or be written through.

        A link in the place of a file is harmless: files are replaced, never written in place.
        """
        for folder in (self.checkpoints, self.best):
            if folder.is_symlink():
                return (
                    f"{folder}: a link, and what it leads to may be another run's; put a folder in its place"
                )
        for folder in (self.checkpoints, self.best, self.tensorboard):
            if folder.exists() and not folder.is_dir():
                return f"{folder}: not a folder; move it away"
        weights = self.best / "config.json", self.best / "model.safetensors", *self.epoch_files()
        results = self.metrics, self.table, self.summary, self.curves, self.confusion, self.report
        for file in (self.config, self.split, self.last, self.previous, *weights, *results):
            for place in (file, file.with_name(f"{file.name}.partial")):
                if place.exists() and not place.is_file():
                    return f"{place}: not a regular file; move it away"
        return None

    @property
    def _then(self) -> str:
        """How a run that has failed goes on."""
        return f"go on with --resume --out {self.path}" if self.has_save else "start again"

    def epoch_file(self, epoch: int) -> Path:
        """Where the weights of an epoch (0-based) lie."""
        return self.checkpoints / f"epoch_{epoch:03d}.safetensors"

    def epoch_files(self) -> list[Path]:
        """Weights of the epochs that are kept, by the number of the epoch."""
        files = self.checkpoints.glob("epoch_*.safetensors")
        numbered = {int(number): f for f in files if (number := f.stem.removeprefix("epoch_")).isdecimal()}
        return [file for _, file in sorted(numbered.items())]

    def check_free(self) -> None:
        """Raise UserError when there is something at the path already.

        What a run leaves that died before its first save is nothing: a run may begin over it.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # safetensors, which timm reads weights with, takes no such path
            raise UserError(
                f"{self.path}: no valid UTF-8, so its weights could not be read; {OTHER}"
            ) from None
        if self._is_free():
            return
        resumable = self.has_save and self.config.is_file()
        way_out = f"continue it with --resume, or {OTHER}" if resumable else OTHER
        raise UserError(f"{self.path}: exists already; {way_out}")

    def _is_free(self) -> bool:
        """Whether a run may begin there."""
        return not self.path.exists() or (self.path.is_dir() and (not _names(self.path) or self.is_unsaved()))

    def is_unsaved(self, *but: str) -> bool:
        """Whether this is what `create` and a first save that was never finished leave, and no more.

        `but` are names of files of checkpoints/ that may be there all the same.
        """
        before = {file.name for file in (self.checkpoints, self.config, self.split)}
        saves = {f"{self.last.name}.partial", *but}
        begun = self.checkpoints.is_dir() and not _names(self.checkpoints) - saves
        return (
            begun
            and self._misplaced() is None
            and {name.removesuffix(".partial") for name in _names(self.path)} <= before
        )

    @contextmanager
    def discarded_on_failure(self) -> Iterator[None]:
        """Take the folder away again when the block fails before a save that has seen a batch.

        Only what this run's `create` and saves wrote: nothing of anyone else, and no weights.
        """
        try:
            yield
        except BaseException:
            mine = self._mine and not self._trained and self.path.is_dir() and self._is_there()
            if mine and (not _names(self.path) or self.is_unsaved(self.last.name, self.previous.name)):
                shutil.rmtree(self.path, ignore_errors=True)
                self._held = None  # gone by this hand: what failed is what counts
            raise

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Within, a file that the disk refuses is RunFailed: one line that says how the run goes on.

        So is whatever comes of a folder that is no more there.
        """
        try:
            yield
        except (OSError, UserError) as error:
            self.check_there()
            if isinstance(error, FileNotFoundError) and self.path in Path(error.filename or "").parents:
                raise RunFailed(
                    f"{error.filename}: deleted while the run was writing there; {self._then}"
                ) from error
            if not isinstance(error, WriteFailed):
                raise
            raise RunFailed(error.line(self._then)) from error


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def claim_run_path(base: Path, name: str) -> Path:
    """Make the first of base/name-001, -002 ... that is not there: runs that start at once get one each.

    Raises UserError when it cannot be made, RunFailed where its disk is why.
    """
    for number in count(1):
        path = base / f"{name}-{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if path.exists():
                continue
            raise UserError(f"{base}: not a folder; give the run a place with --out") from None
        except OSError as error:
            failed = write_failure(error, path, 0)
            if failed is not None:
                raise RunFailed(failed.line("try again, or give --out")) from error
            raise UserError(f"{path}: cannot be made ({error.strerror}); give --out") from error
        return path
    raise AssertionError  # count() has no end
