"""What is exported: a run's best model, and what its folder says of how it was made."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from flowerfast.config import Config
from flowerfast.documents import MOST_JSON, first_problem
from flowerfast.errors import UserError, one_line
from flowerfast.files import open_regular
from flowerfast.training.described import Described
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.seal import Damaged, read_sealed
from flowerfast.training.trained import TrainedModel, load_run

_Share = Field(ge=0, le=1)
_Interval = tuple[float, float] | None


class ClassFigures(BaseModel, extra="ignore", allow_inf_nan=False):
    """Of one class in summary.json."""

    name: str
    precision: float = _Share
    recall: float = _Share
    f1: float = _Share
    support: int = Field(ge=0)
    average_precision: float | None = Field(default=None, ge=0, le=1)


class Scaling(BaseModel, extra="ignore", allow_inf_nan=False):
    """The calibration in summary.json."""

    ece: float = _Share
    temperature: float | None = Field(default=None, gt=0)


class Summary(BaseModel, extra="ignore", allow_inf_nan=False):
    """What a model card takes of summary.json; earlier versions wrote less of it."""

    classes: list[str]
    best_epoch: int = Field(ge=0)
    best_val_acc: float = _Share
    best_val_map: float | None = Field(default=None, ge=0, le=1)
    epochs_run: int = Field(ge=1)
    train_samples: int = Field(ge=0)
    val_samples: int = Field(ge=0)
    per_class: list[ClassFigures] = []
    accuracy_interval: _Interval = None
    macro_f1: float | None = None
    macro_f1_interval: _Interval = None
    micro_f1: float | None = None
    threshold: float | None = None
    val_protocol: str = "clean"
    calibration: Scaling | None = None
    test_acc: float | None = None
    test_map: float | None = None
    test_acc_interval: _Interval = None
    test_samples: int = 0
    device: str | None = None
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Source:
    """A trained run.

    Attributes:
        home: the run folder; of a best/ that lies alone, that folder.
        best: where config.json and model.safetensors lie.
        model: the best model, on the CPU.
        described: its config.json.
        config: of the run; None: there is no run folder around it.
        summary: figures of this model; None, and `missing` says why, where they are not known.
        missing: why there are no figures, in words that end a sentence.
    """

    home: Path
    best: Path
    model: TrainedModel
    described: Described
    config: Config | None
    summary: Summary | None
    missing: str = ""


def read_source(run: Path) -> Source:
    """The run in a folder, or that around its best/.

    Raises UserError when there is no trained model, or one of the files that are read is damaged.
    """
    best = run / "best" if (run / "best").is_dir() else run
    above = RunFolder(best.resolve().parent)
    folder = RunFolder(run) if best != run else above
    config = folder.open() if folder.config.is_file() else None
    model = load_run(run, "cpu")
    summary, missing = None, "there is no run folder around these weights"
    if config is not None:
        summary, missing = _summary(folder, model.classes)
    home = folder.path if config is not None else run
    return Source(home, best, model, Described.read(best), config, summary, missing)


def _summary(folder: RunFolder, classes: tuple[str, ...]) -> tuple[Summary | None, str]:
    """(summary.json, "") or (None, why its figures are not those of the best weights)."""
    if not folder.summary.is_file():
        return None, "the run has not ended: it has no summary.json"
    try:
        summary = Summary.model_validate(_without_nulls(read_sealed(folder.summary)))
        rows = _lines(folder.metrics) if folder.metrics.is_file() else 0
    except Damaged:
        raise
    except ValidationError as error:
        place, value, rule = first_problem(error)
        raise UserError(
            f"{folder.summary}: not what flowerfast wrote ({place}={value}: {rule}); bring a good copy back"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder.summary}: cannot be read ({one_line(error)}); bring a good copy back"
        ) from error
    if tuple(summary.classes) != classes:
        return None, "summary.json is of other classes"
    if rows > summary.epochs_run:
        return None, "the run has gone on since its summary.json was written"
    return summary, ""


def _lines(file: Path) -> int:
    """Lines of a text file. Raises OSError, ValueError for a larger one than any run's."""
    with os.fdopen(open_regular(file), "rb") as stream:
        text = stream.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        raise ValueError(f"{file.name} is larger than {MOST_JSON:,} bytes")
    return text.count(b"\n")


def _without_nulls(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value is not None}
