"""What a run begins with: its settings in full, device, photos, halves and model."""

import os
from pathlib import Path

import numpy as np
import torch

from flowerfast.config import Config, ModelConfig
from flowerfast.demo.synthetic import demo_folder, demo_photos
from flowerfast.errors import UserError
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.engine import choose_backend
from flowerfast.loaders.ranges import name_stages
from flowerfast.machine import ProgressBars
from flowerfast.photos.photos import Photos
from flowerfast.places import in_full, is_table, url_of
from flowerfast.ranks.telling import from_first
from flowerfast.settings import DEMO, change_config
from flowerfast.training.architecture import FOLDER
from flowerfast.training.loss import balanced_weights, label_weights
from flowerfast.training.optimizer import check_optimizer
from flowerfast.training.parent import split_photos
from flowerfast.training.rank_checks import check_device
from flowerfast.training.run_folder import RunFolder


def with_photos(config: Config, resumed: RunFolder | None, bars: ProgressBars) -> Config:
    """The settings with all paths in full, to be resumed anywhere; rendered flowers are made if need be."""
    place = in_full(Path(config.data.path or demo_folder()).expanduser())
    if place == in_full(demo_folder()):
        with bars("rendering flowers") as bar:
            demo_photos(bar)
    elif resumed is not None and url_of(place) is None and not os.path.exists(place):
        raise UserError(
            f"{place}: the photos of this run are not there; give their new place, flowerfast train PHOTOS "
            f"--resume --out {resumed.path}"
        )
    given = {"data.cache_dir": config.data.cache_dir, "model.weights": config.model.weights}
    classes = config.data.classes
    if isinstance(classes, str) and Path(classes).is_file():  # names else
        given["data.classes"] = classes
    others = {key: str(Path(file).expanduser().resolve()) for key, file in given.items() if file is not None}
    if config.model.name.startswith(FOLDER):
        others["model.name"] = (
            f"{FOLDER}{Path(config.model.name.removeprefix(FOLDER)).expanduser().resolve()}"
        )
    return change_config(config, (), {"data.path": place, **others})


def prepare(config: Config) -> torch.device:
    """The device to train on; says what is missing for a run before the photos are looked at."""
    name_stages(config.log.nvtx)
    device = pick_device(config.train.device)
    check_device(device)
    choose_backend(config.data, device)
    check_optimizer(config.train)
    return device


def open_photos(config: Config, bars: ProgressBars) -> Photos:
    with bars("reading headers") as bar:
        return Photos.open(str(config.data.path), config.data, bar)


def with_best(config: Config, photos: Photos) -> Config:
    """The settings with what makes an epoch the best one of such photos. Raises UserError."""
    if photos.multilabel:
        return change_config(config, (), {"eval.best": "map"}) if config.eval.best == "accuracy" else config
    if config.eval.best == "map":
        raise UserError(
            f"eval.best=map: {photos.source} has one label a photo; use accuracy, macro_f1 or loss, or see "
            "data.label_separator and data.label_columns"
        )
    return config


def split_halves(config: Config, resumed: RunFolder | None, photos: Photos) -> tuple[Photos, Photos, str]:
    """See `split_photos`; the first rank reads the files that say how."""

    def halves() -> tuple[np.ndarray, np.ndarray, str]:
        train, val, note = split_photos(config, resumed, photos)
        return train.indices, val.indices, note

    train, val, note = from_first(halves)
    return photos.subset(train), photos.subset(val), note


def run_name(config: Config) -> str:
    """What a run without a name is called: as its photos."""
    path = Path(str(config.data.path))
    name = os.fsencode(path.name).decode(errors="replace")  # no run folder without a name in UTF-8
    name = Path(name).stem if is_table(path) else name
    return DEMO if path == demo_folder().resolve() else name or "run"


def start_model(config: Config, resumed: RunFolder | None) -> ModelConfig:
    """The model as a run begins with it.

    A resumed run brings its weights: neither the hub nor the weights file need be at hand, nor, once there is
    a best/, a description of the network that lies elsewhere.
    """
    if resumed is None:
        return config.model
    elsewhere = ":" in config.model.name and resumed.best.is_dir()
    name = f"{FOLDER}{resumed.best}" if elsewhere else config.model.name
    return config.model.model_copy(update={"pretrained": False, "weights": None, "name": name})


def class_weights(config: Config, photos: Photos) -> torch.Tensor | None:
    if config.train.class_weights == "none":
        return None
    if photos.multilabel:
        return label_weights(photos.table.counts(photos.indices), len(photos))
    return balanced_weights(photos.labels, len(photos.classes))
