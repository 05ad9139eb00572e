"""The run folder: what is written, when, and how a run finds its way back.

Every file is written under a temporary name and renamed, so that a kill at any moment leaves the old file or
the new one, never half of one.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors.torch import save_file
from torch import nn

from flowerfast.config import Config, load_config
from flowerfast.errors import UserError

LAST_VERSION = 1


class RunFolder:
    """Paths and files of one run.

    Args:
        path: the folder; made by `create`, checked by `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.split = path / "config.yaml", path / "split.json"
        self.metrics, self.summary = path / "metrics.jsonl", path / "summary.json"
        self.checkpoints, self.best = path / "checkpoints", path / "best"
        self.last = self.checkpoints / "last.pt"
        self.curves, self.confusion = path / "accuracy_loss_curve.png", path / "confusion_matrix.png"
        self.tensorboard = path / "tensorboard"

    def check_free(self) -> None:
        """Raise UserError when there is something at the path already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path}: exists already; continue it with --resume, or choose another --out"
            )

    def create(self, config: Config) -> None:
        """Make the folder and write the resolved configuration."""
        self.check_free()
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            replace_file(self.config, lambda f: f.write_text(config.to_yaml(), encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --out"
            ) from error

    def open(self) -> Config:
        """Configuration of an existing run. Raises UserError when there is none to resume."""
        if not self.config.is_file() or not self.last.is_file():
            raise UserError(
                f"{self.path}: no run to resume there ({self.last.name} is missing); drop --resume to start"
            )
        return load_config(self.config)

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write everything that an exact resume needs."""

        def write(file: Path) -> None:
            # Given a path, torch keeps the interpreter to itself while it writes, and training stands still.
            with open(file, "wb") as stream:
                torch.save({"version": LAST_VERSION, **state}, stream)

        replace_file(self.last, write)

    def load_last(self) -> dict[str, Any]:
        """State of `save_last`, on the CPU."""
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{self.last}: cannot be read ({error}); start a new run") from error
        if not isinstance(state, dict) or state.get("version") != LAST_VERSION:
            raise UserError(f"{self.last}: written by another version of flowerfast; start a new run")
        return state

    def epoch_file(self, epoch: int) -> Path:
        """Where the weights of an epoch (0-based) lie."""
        return self.checkpoints / f"epoch_{epoch:03d}.safetensors"

    def save_epoch(self, epoch: int, weights: Mapping[str, torch.Tensor], keep: int | None) -> None:
        """Write the weights of an epoch, tensors that share no memory; delete the oldest beyond `keep`."""
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        replace_file(self.epoch_file(epoch), lambda f: save_file(contiguous, f))
        kept = sorted(self.checkpoints.glob("epoch_*.safetensors"))
        for old in kept[: len(kept) - keep] if keep is not None else []:
            old.unlink()

    def save_best(self, network: nn.Module, classes: Sequence[str], epoch: int) -> None:
        """Make the saved weights of an epoch best/: config.json and weights, which timm loads by itself.

        Of the network only its settings are read, so that it may be training meanwhile.
        """
        fresh = self.path / "best.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        settings = copy.copy(network)
        vars(settings)["state_dict"] = dict  # timm writes weights and settings; here, no weights
        timm.models.save_for_hf(
            settings, str(fresh), model_config={"label_names": list(classes)}, safe_serialization=True
        )
        (fresh / "model.safetensors").unlink()
        _link(self.epoch_file(epoch), fresh / "model.safetensors")
        self.best.mkdir(exist_ok=True)
        # The config is the same every time, so that replacing file by file never mixes two states.
        for name in ("config.json", "model.safetensors"):
            _replace(fresh / name, self.best / name)
        fresh.rmdir()

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one object per epoch."""
        text = "".join(json.dumps(row) + "\n" for row in history)
        replace_file(self.metrics, lambda f: f.write_text(text, encoding="utf-8"))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        text = json.dumps(summary, indent=1) + "\n"
        replace_file(self.summary, lambda f: f.write_text(text, encoding="utf-8"))


def replace_file(file: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a temporary file, force it to the disk and rename it to `file`."""
    fresh = file.with_name(file.name + ".tmp")
    write(fresh)
    _replace(fresh, file)


def _replace(fresh: Path, file: Path) -> None:
    with open(fresh, "rb+") as stream:
        os.fsync(stream.fileno())
    os.chmod(fresh, _MODE)  # safetensors writes for the owner alone
    os.replace(fresh, file)


def _link(source: Path, file: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links.

    As files are replaced, never written in place, one name can change or go without the other.
    """
    try:
        os.link(source, file)
    except OSError:
        shutil.copyfile(source, file)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_MODE = 0o666 & ~_umask()  # read once: for a moment all threads of the process are without one


def free_run_path(base: Path, name: str) -> Path:
    """First of base/name-001, -002 ... that does not exist."""
    number = 1
    while (base / f"{name}-{number:03d}").exists():
        number += 1
    return base / f"{name}-{number:03d}"
