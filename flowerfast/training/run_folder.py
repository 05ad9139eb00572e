"""The run folder: what is written, when, and how a run finds its way back.

Every file that a resumed run reads is written under a temporary name and renamed, so that a kill at any
moment leaves the old file or the new one, never half of one.
"""

import copy
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors.torch import save_file
from torch import nn

from flowerfast.config import Config, Exif
from flowerfast.errors import RunFailed, UserError, WriteFailed, write_failure
from flowerfast.files import read_bytes, replacing, sync_folder, to_json, write_text, writing
from flowerfast.locks import only_writer
from flowerfast.settings import change_config, load_config
from flowerfast.training.saves import NewerVersion, read_save, write_save
from flowerfast.training.seal import METADATA, Damaged, check, seal, write_sealed

_OTHER = "choose another --out"


class RunFolder:
    """Paths and files of one run.

    Args:
        path: the folder; made by `create`, checked by `open`.
        claimed: it has just been made, empty, for this run (`claim_run_path`).

    Attributes:
        notes: what there is to say of its files, one line each.
    """

    def __init__(self, path: Path, claimed: bool = False) -> None:
        self.path, self._mine = path, claimed
        self.config, self.split = path / "config.yaml", path / "split.json"
        self.metrics, self.summary = path / "metrics.jsonl", path / "summary.json"
        self.checkpoints, self.best = path / "checkpoints", path / "best"
        self.last, self.previous = self.checkpoints / "last.pt", self.checkpoints / "last.previous.pt"
        self.curves, self.confusion = path / "accuracy_loss_curve.png", path / "confusion_matrix.png"
        self.tensorboard, self.report = path / "tensorboard", path / "report.html"
        self.notes: list[str] = []
        self._trained = False  # what was saved here has seen a batch
        self._keep_last = True  # it is whole: the next save makes it the previous one
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
        with only_writer(self.path, _OTHER) as unlocked:
            self.notes = [unlocked] if unlocked is not None else []
            self._held = os.stat(self.path) if unlocked is None else None
            yield

    def _is_there(self) -> bool:
        """Whether the folder that is held still has its name; where there are no locks nobody can tell."""
        try:
            return self._held is None or os.path.samestat(self._held, os.stat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return False

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
            raise UserError(f"{problem}, or {_OTHER}")

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
        results = self.metrics, self.summary, self.curves, self.confusion, self.report
        for file in (self.config, self.split, self.last, self.previous, *weights, *results):
            for place in (file, file.with_name(f"{file.name}.partial")):
                if place.exists() and not place.is_file():
                    return f"{place}: not a regular file; move it away"
        return None

    @property
    def _then(self) -> str:
        """How a run that has failed goes on."""
        return f"go on with --resume --out {self.path}" if self.has_save else "start again"

    def check_free(self) -> None:
        """Raise UserError when there is something at the path already.

        What a run leaves that died before its first save is nothing: a run may begin over it.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # safetensors, which timm reads weights with, takes no such path
            raise UserError(
                f"{self.path}: no valid UTF-8, so its weights could not be read; {_OTHER}"
            ) from None
        if self._is_free():
            return
        resumable = self.has_save and self.config.is_file()
        way_out = f"continue it with --resume, or {_OTHER}" if resumable else _OTHER
        raise UserError(f"{self.path}: exists already; {way_out}")

    def _is_free(self) -> bool:
        """Whether a run may begin there."""
        return not self.path.exists() or (self.path.is_dir() and (not _names(self.path) or self._unsaved()))

    @property
    def is_unsaved(self) -> bool:
        """Whether a run has begun there and nothing of it was saved yet."""
        return self._unsaved()

    def _unsaved(self, *but: str) -> bool:
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
            if mine and (not _names(self.path) or self._unsaved(self.last.name, self.previous.name)):
                shutil.rmtree(self.path, ignore_errors=True)
                self._held = None  # gone by this hand: what failed is what counts
            raise

    def create(self, config: Config) -> None:
        """Make the folder and write the resolved configuration."""
        self.check_there()
        self.check_free()
        self._mine = True
        try:
            with writing(self.config):
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                for above in self.path.absolute().parents[:2]:  # the second may be new too, as runs/ is
                    sync_folder(above)
            self.write_config(config)
        except WriteFailed:
            raise
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); {_OTHER}") from error

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

    def write_config(self, config: Config) -> None:
        """Write config.yaml. Raises OSError."""
        self.check_there()
        write_sealed(self.config, config.to_yaml())

    def open(self) -> Config:
        """Configuration of an existing run. Raises UserError when there is none to resume, or it is damaged.

        Runs of earlier versions took photos as they are stored.
        """
        if not self.config.is_file():
            what = "not a regular file" if self.config.exists() else "missing"
            way_out = "drop --resume to start" if self._is_free() else f"bring it back, or {_OTHER}"
            raise UserError(f"{self.path}: no run to resume there ({self.config.name} is {what}); {way_out}")
        check(self.config)
        config = load_config(self.config)
        if not config.model_fields_set:
            raise UserError(f"{self.config}: damaged, it is empty; bring a good copy back")
        earlier = "exif" not in config.data.model_fields_set
        return change_config(config, (), {"data.exif": "ignore"}) if earlier else config

    def identity(self) -> str:
        """By which a save of this run is told from those of others: its split, and what it began with."""
        digest = hashlib.sha256()
        if self.split.is_file():
            check(self.split)
            digest.update(read_bytes(self.split))
        config = self.open()
        train, size = config.train, config.data.image_size
        about = config.model.name, size, train.seed, train.lr, train.batch_size, train.schedule
        digest.update(repr(about).encode())
        return digest.hexdigest()

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write everything that an exact resume needs; the save before is kept."""
        self.check_there()
        with replacing(self.last, durable=True, needed=_tensor_bytes(state)) as fresh:
            write_save(state, fresh, self.last.suffix)
            self.check_there()  # that may have taken long
            if self._keep_last and self.last.is_file():
                with replacing(self.previous, durable=True) as previous:
                    _link(self.last, previous)
        self._keep_last = True
        progress = state.get("progress", {})
        self._trained = bool(progress.get("epoch") or progress.get("batch"))

    def load_last(self) -> dict[str, Any]:
        """State of the last save, on the CPU, or of the one before where that is damaged, which `notes` says.

        Raises UserError when both are, or are not there, or when it is of another version.
        """
        try:
            os.stat(self.last)
            return read_save(self.last)
        except NewerVersion as error:
            raise UserError(f"{error}; {self._anew()}") from error
        except OSError as error:
            problem = f"{self.last}: {error.strerror}"
        except UserError as error:
            problem = str(error)
        if not self.previous.is_file():
            raise UserError(f"{problem}; {self._anew()}")
        try:
            state = read_save(self.previous)
        except UserError as error:
            raise UserError(f"{problem}, nor can the save before it ({error}); {self._anew()}") from error
        self._keep_last = False
        self.notes.append(f"{problem}; goes on from the save before it, {self.previous.name}")
        return state

    def _anew(self) -> str:
        """What can be done without a save; it names only weights that are there."""
        best = (self.best / "model.safetensors").is_file()
        weights = self.path if best else next(reversed(self.epoch_files()), None)
        return "start a new run" + (f", which --from {weights} begins with its weights" if weights else "")

    def epoch_file(self, epoch: int) -> Path:
        """Where the weights of an epoch (0-based) lie."""
        return self.checkpoints / f"epoch_{epoch:03d}.safetensors"

    def save_epoch(self, epoch: int, weights: Mapping[str, torch.Tensor], keep: int | None) -> None:
        """Write the weights of an epoch, tensors that share no memory; delete the oldest beyond `keep`."""
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        file = self.epoch_file(epoch)
        self.check_there()
        with replacing(file, durable=True, needed=_tensor_bytes(contiguous)) as fresh:
            save_file(contiguous, fresh, metadata=METADATA)
            seal(fresh, file.suffix)
        for old in self.epoch_files()[:-keep] if keep is not None else []:
            old.unlink()

    def epoch_files(self) -> list[Path]:
        """Weights of the epochs that are kept, by the number of the epoch."""
        files = self.checkpoints.glob("epoch_*.safetensors")
        numbered = {int(number): f for f in files if (number := f.stem.removeprefix("epoch_")).isdecimal()}
        return [file for _, file in sorted(numbered.items())]

    def save_best(self, network: nn.Module, classes: Sequence[str], epoch: int, exif: Exif) -> None:
        """Make the saved weights of an epoch best/: config.json and weights, which timm loads by itself.

        Beside what timm reads stand the names of the classes, and `exif` as the photos were read with it.

        Of the network only its settings are read, so that it may be training meanwhile.
        """
        self.check_there()
        fresh = self.path / "best.tmp"  # of this run's own folder: `create` takes none that holds anything
        if fresh.is_symlink() or fresh.is_file():
            fresh.unlink()  # never what a link leads to
        shutil.rmtree(fresh, ignore_errors=True)
        settings = copy.copy(network)
        vars(settings)["state_dict"] = dict  # timm writes weights and settings; here, no weights
        about = {"label_names": list(classes), "exif": exif}
        weights = self.epoch_file(epoch)
        try:
            with writing(self.best, weights.stat().st_size):
                timm.models.save_for_hf(settings, str(fresh), model_config=about, safe_serialization=True)
                text = (fresh / "config.json").read_text(encoding="utf-8")
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self.check_there()
        # The config is the same every time, so that replacing file by file never mixes two states.
        write_sealed(self.best / "config.json", text)
        with replacing(self.best / "model.safetensors", durable=True) as file:
            _link(weights, file)

    def best_problem(self) -> str | None:
        """What is wrong with the files of best/; None: nothing."""
        for name in ("config.json", "model.safetensors"):
            try:
                check(self.best / name)
            except Damaged:
                return f"{self.best / name}: damaged"
            except OSError as error:
                return f"{self.best / name}: {error.strerror}"
        return None

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one object per epoch."""
        self.check_there()
        text = "".join(to_json(row) + "\n" for row in history)
        write_text(self.metrics, text, durable=True)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        self.check_there()
        write_sealed(self.summary, to_json(summary, indent=1) + "\n")


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _tensor_bytes(value: Any) -> int:
    """Bytes of the tensors in nested mappings and sequences."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))


def _link(source: Path, file: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links.

    As files are replaced, never written in place, one name can change or go without the other.
    """
    try:
        os.link(source, file)
    except (OSError, AttributeError, NotImplementedError):  # the last two: no such function on this system
        shutil.copyfile(source, file)


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
