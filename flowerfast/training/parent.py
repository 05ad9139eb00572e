"""A run that begins with the weights of another: which file, which settings, which split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.seal import Damaged
from flowerfast.training.split_file import read_split


def parent_settings(place: Path | str, config: Path | str | None) -> tuple[Path | str, Mapping[str, Any]]:
    """(configuration to begin with, changes to it) of a run that takes its weights from another.

    Args:
        place: the other run: its best weights, else its last; or one of its weights files.
        config: another configuration than the other run's own.

    Raises UserError when there is no run with weights.
    """
    folder, weights = _weights(Path(place))
    inherited = folder.open()
    changes = {"model.weights": str(weights.resolve()), "model.parent": str(folder.path.resolve())}
    if config is not None:
        changes["model.name"] = inherited.model.name
    return folder.config if config is None else config, changes


def _weights(place: Path) -> tuple[RunFolder, Path]:
    folder = RunFolder(place.resolve().parents[1] if place.is_file() else place)
    if not folder.config.is_file() and place.name == "best":
        folder = RunFolder(place.resolve().parent)
    files = (place,) if place.is_file() else (folder.best / "model.safetensors", folder.last)
    weights = next((file for file in files if file.is_file()), None)
    if weights == folder.last != place and folder.best.is_dir():
        raise UserError(
            f"--from {place}: {files[0]} is missing; bring it back, or give other weights, such as {weights}"
        )
    if weights is None or not folder.config.is_file():
        kept = folder.epoch_files() if folder.config.is_file() else []
        what = f", such as {kept[-1]}" if kept else ""
        raise UserError(
            f"--from {place}: no run with weights there; give a run folder, or a file of weights{what}"
        )
    return folder, weights


def split_photos(config: Config, resumed: RunFolder | None, photos: Photos) -> tuple[Photos, Photos, str]:
    """(training photos, validation photos, what to say of it).

    A resumed run keeps its split. One with a parent keeps the parent's, so that what is validated on has not
    been trained on before, unless the photos are others. Raises UserError when they are, of a resumed run, or
    cannot be split.
    """
    if resumed is not None:
        return *read_split(resumed.split, photos), ""
    note, parent = "", config.model.parent
    if parent is not None:
        try:
            return *read_split(RunFolder(Path(parent)).split, photos), ""
        except Damaged:
            raise
        except UserError as error:
            note = f"split: not that of {parent}, which may have trained on photos held out now ({error})"
    return *photos.split(config.data.val_fraction, config.train.seed), note
