"""The run folder: what is written, when, and how a run finds its way back.

Every file that a resumed run reads is written under a temporary name and renamed, so that a kill at any
moment leaves the old file or the new one, never half of one.
"""

import copy
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors.torch import save_file
from torch import nn

from flowerfast.config import Config, Exif
from flowerfast.errors import UserError, WriteFailed
from flowerfast.files import read_bytes, replacing, sync_folder, to_json, write_text, writing
from flowerfast.settings import change_config, load_config
from flowerfast.training.run_place import OTHER, RunPlace
from flowerfast.training.saves import NewerVersion, read_save, write_save
from flowerfast.training.seal import METADATA, Damaged, check, seal, write_sealed


class RunFolder(RunPlace):
    """Files of one run, see `RunPlace` for its arguments.

    Attributes:
        notes: what there is to say of its files, one line each.
    """

    def __init__(self, path: Path, claimed: bool = False) -> None:
        super().__init__(path, claimed)
        self._keep_last = True  # it is whole: the next save makes it the previous one

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
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); {OTHER}") from error

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
            way_out = "drop --resume to start" if self._is_free() else f"bring it back, or {OTHER}"
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
        other = () if train.optimizer == "sgd" else (train.optimizer,)  # once it was the only one
        about = config.model.name, size, train.seed, train.lr, train.batch_size, train.schedule, *other
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

    def save_best(
        self,
        network: nn.Module,
        classes: Sequence[str],
        epoch: int,
        exif: Exif,
        flip: bool = False,
        threshold: float | None = None,
    ) -> None:
        """Make the saved weights of an epoch best/: config.json and weights, which timm loads by itself.

        Beside what timm reads stand the names of the classes, `exif` as the photos were read with it, `flip`
        where they were validated together with their mirror images, and `threshold` where they have several
        labels.

        Of the network only its settings are read, so that it may be training meanwhile.
        """
        self.check_there()
        fresh = self.path / "best.tmp"  # of this run's own folder: `create` takes none that holds anything
        if fresh.is_symlink() or fresh.is_file():
            fresh.unlink()  # never what a link leads to
        shutil.rmtree(fresh, ignore_errors=True)
        settings = copy.copy(network)
        vars(settings)["state_dict"] = dict  # timm writes weights and settings; here, no weights
        about: dict[str, Any] = {"label_names": list(classes), "exif": exif}
        about |= {"flip": True} if flip else {}
        about |= {} if threshold is None else {"threshold": threshold}
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
        """Write metrics.jsonl, one object per epoch, and the same as a table, metrics.csv."""
        self.check_there()
        text = "".join(to_json(row) + "\n" for row in history)
        write_text(self.metrics, text, durable=True)
        write_text(self.table, _table(history))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        self.check_there()
        write_sealed(self.summary, to_json(summary, indent=1) + "\n")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, a column for each key that one of them has; empty where there is no number."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(json.loads(to_json(row)) for row in rows)
    return text.getvalue()


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
