"""A save, all that an exact resume needs, as a file: written whole, and not believed unless it is."""

import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from flowerfast.documents import DocumentError, conform
from flowerfast.errors import UserError, one_line
from flowerfast.training.fitting import is_number
from flowerfast.training.progress import Standing
from flowerfast.training.seal import Damaged, add_place, check, seal

VERSION = 1
_MEASURED = {"epoch", "train_loss", "train_acc", "val_loss", "val_acc", "images_per_sec", "data_wait"}
"""What a summary or a chart takes from each row of a history."""


class NewerVersion(UserError):
    """A save of a version of flowerfast to come."""


def write_save(state: Mapping[str, Any], file: Path, suffix: str) -> None:
    """Write a save with its checksum to a file that is to have the suffix. Raises OSError."""
    # Given a path, torch keeps the interpreter to itself while it writes, and training stands still.
    with file.open("wb") as stream:
        torch.save({"version": VERSION, **state}, stream)
    add_place(file)
    seal(file, suffix)


def read_save(file: Path) -> dict[str, Any]:
    """A save, on the CPU. Raises UserError, which names no way out, when it is damaged or none.

    Raises NewerVersion for one of a version to come.
    """
    try:
        if not check(file):  # of an earlier version
            check_archive(file)
            with zipfile.ZipFile(file) as archive:
                if archive.comment:
                    raise ValueError("its end is missing")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Damaged as error:
        raise UserError(f"{file}: damaged, its checksum does not fit") from error
    except Exception as error:  # of a damaged file torch makes almost any: UnpicklingError, KeyError, ...
        raise UserError(f"{file}: cannot be read ({one_line(error)})") from error
    version = state.get("version") if isinstance(state, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise NewerVersion(f"{file}: written by another version of flowerfast")
    if version != VERSION:
        raise UserError(f"{file}: written by another version of flowerfast, or no save")
    if problem := _problem(state):
        raise UserError(f"{file}: not a whole save ({problem})")
    return state


def check_archive(file: Path) -> None:
    """Compare what `torch.save` wrote with the checksums in it, as torch itself does not.

    Raises ValueError for one that differs, OSError when the file cannot be read.
    """
    if not zipfile.is_zipfile(file):
        return  # as torch saved long ago, without checksums
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")


def _problem(state: dict[str, Any]) -> str | None:
    lacking = [name for name in ("trainer", "totals", "progress") if not isinstance(state.get(name), dict)]
    if lacking:
        return f"no {lacking[0]} in it"
    if not isinstance(state.get("loader", {}), dict):
        return "its loader is no mapping"
    progress = state["progress"]
    try:
        standing = conform(Standing, progress)
    except DocumentError as error:
        return f"progress.{error}"
    for name in ("best_val_acc", "seconds", "waited"):
        if not is_number(progress.get(name, 0.0)):
            return f"progress.{name}={progress[name]}: not finite"
    numbers = all(
        row.keys() >= _MEASURED
        and all(isinstance(name, str) for name in row)
        and all(map(is_number, row.values()))
        for row in standing.history
    )
    fits = standing.best_epoch < len(standing.history) == standing.epoch and standing.batch >= 0
    known = asdict(standing)
    return None if numbers and fits and known | progress == known else "its progress is none of a run"
