"""A run that is resumed for more epochs, or with its photos at another place."""

from collections.abc import Mapping
from typing import Any

from flowerfast.config import Config, change_config
from flowerfast.errors import UserError
from flowerfast.machine import write_text
from flowerfast.training.progress import Standing
from flowerfast.training.run_folder import RunFolder


def check_length(config: Config, stored: Config, saved: Mapping[str, Any]) -> None:
    """Raise UserError when a resumed run is given another number of epochs and would not heed it."""
    epochs = config.train.epochs
    if epochs == stored.train.epochs:
        return
    done = len(saved["progress"]["history"])
    if epochs < done:
        raise UserError(f"train.epochs={epochs}: the run has {done} epochs already; give as many or more")
    patience = config.train.patience
    if epochs > done and Standing(**saved["progress"]).out_of_patience(patience):
        raise UserError(
            f"train.epochs={epochs}: train.patience={patience} ended the run after {done} epochs; to go on "
            "set train.patience=null or a higher one"
        )


def keep_changes(config: Config, folder: RunFolder) -> None:
    """Have config.yaml say how long a resumed run is now, and where its photos are."""
    stored = folder.open()
    changed = change_config(stored, (), {"train.epochs": config.train.epochs, "data.path": config.data.path})
    if changed != stored:
        write_text(folder.config, changed.to_yaml(), durable=True)
