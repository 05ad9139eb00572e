"""What the trials of a search try: models that can be trained as asked, and settings drawn for each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.philox import generator
from flowerfast.settings import PRESET_SECTION, change_config
from flowerfast.training.architecture import configured
from flowerfast.training.at_hand import weights_at_hand
from flowerfast.training.image_size import least_batch
from flowerfast.training.model import build_network, with_normalisation
from flowerfast.training.state import TrainState

AUTO = "auto"
"""As model.name: trials take the models in turn of which weights are at hand."""
Say = Callable[[str], None]
_STRENGTHS: tuple[dict[str, Any], ...] = ({}, {PRESET_SECTION: "light"}, {PRESET_SECTION: "strong"})
"""Augmentation as the configuration has it, and two presets."""


def draw_trials(base: Config, trials: int, weights: Path | str | None, say: Say) -> list[dict[str, Any]]:
    """Settings of each trial, by dotted key, beside those of `base`; trial 0 changes none but an AUTO model.

    `say` is told which models at hand are left out, and why. Raises UserError where none can be trained.
    """
    if base.model.name == AUTO:
        fitting = _fitting(base, weights_at_hand(weights), trials, say)
    else:
        _check_fits(base, {})
        fitting = [{}]
    models = [(model, _sides(base, model)) for model in fitting]
    return [_draw(number, base, *models[number % len(models)]) for number in range(trials)]


def _fitting(base: Config, models: list[dict[str, Any]], most: int, say: Say) -> list[dict[str, Any]]:
    """The first of the models, `most` of them, that can be trained as `base` says; `say` is told why others
    cannot.

    Raises UserError where none can.
    """
    fitting: list[dict[str, Any]] = []
    for model in models:
        if len(fitting) == most:
            break
        try:
            _check_fits(base, model)
        except UserError as error:
            say(f"left out: {model['model.name']}: {error}")
        else:
            fitting.append(model)
    if not fitting:
        raise UserError(
            f"model.name={AUTO}: none of {', '.join(each['model.name'] for each in models)} can be trained "
            "with these settings; name one to be told why, or give other weights"
        )
    return fitting


def _sides(base: Config, model: Mapping[str, Any]) -> tuple[int, int]:
    """Image sizes that trials of a model draw from: the configuration's, and a smaller one if that fits."""
    side = base.data.image_size
    smaller = max(32, 32 * round(0.75 * side / 32))
    try:
        _check_fits(base, {**model, "data.image_size": smaller})
    except UserError:
        return side, side
    return side, smaller


def _check_fits(base: Config, changes: Mapping[str, Any]) -> None:
    """Raise UserError as `train` would where a network cannot be built or trained with the settings."""
    config = change_config(base, (), changes)
    size, model = config.data.image_size, config.model
    least_batch(configured(model, size), size, config.train.batch_size)
    network = build_network(model, ("", " "), size, None, eval_size=config.eval.image_size)
    TrainState(with_normalisation(network), config.train, torch.device("cpu"), 1)


def _draw(number: int, base: Config, model: Mapping[str, Any], sides: tuple[int, int]) -> dict[str, Any]:
    """Settings of a trial, beside those of `base`."""
    if number == 0:
        return {**model}
    numbers = generator("tune", base.train.seed, number)
    side = sides[int(numbers.integers(2))]
    lr, decay = 10 ** numbers.uniform(-1, 1), 10 ** numbers.uniform(-5, -1)
    return {
        "train.lr": _rounded(base.train.lr * lr),
        "train.weight_decay": _rounded(decay) if numbers.random() < 0.75 else 0.0,
        "data.image_size": side,
        **_STRENGTHS[int(numbers.integers(len(_STRENGTHS)))],
        **model,
    }


def _rounded(value: float) -> float:
    """Two significant digits: more say nothing."""
    return float(f"{value:.1e}")
