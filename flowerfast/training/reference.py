"""The figures of the paper, beside those of a run that follows its recipe.

They are those of the paper's report of its experiment: five flower classes, ResNet18 with ImageNet weights,
validated on augmented images.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

from flowerfast.config import Config, known_keys
from flowerfast.settings import config_folder, load_config
from flowerfast.training.resuming import MAY_CHANGE

_SECTIONS = ("data", "augment", "model", "train", "eval")
_FREE = frozenset(MAY_CHANGE) | {
    "data.decoder",
    "data.hw_decoder_load",
    "data.max_pixels",
    "data.cache_side",
    "model.weights",
    "train.epochs",
    "train.seed",
    "train.device",
    "train.amp",
    "train.channels_last",
    "eval.augmented",
    "eval.batch_size",
}
"""Settings in which a run of the paper's recipe may differ: where and how fast it is trained, on which draw,
for how long, and from where the same weights come.
"""


class Compared(TypedDict):
    """A figure of the paper, and of a run as validated on augmented and on clean images; None: it was not."""

    figure: str
    paper: str
    augmented: str | None
    clean: str | None


def beside_the_paper(config: Config, history: Sequence[dict[str, Any]]) -> list[Compared] | None:
    """The paper's figures beside those of a run's history; None: the run follows another recipe."""
    paper = load_config(config_folder() / "paper.yaml")
    mine, theirs = config.model_dump(), paper.model_dump()
    for key in known_keys():
        section, _, name = key.partition(".")
        if section in _SECTIONS and key not in _FREE and mine[section][name] != theirs[section][name]:
            return None
    prefixes = {
        False: {"clean": "val"},
        True: {"augmented": "val"},
        "both": {"augmented": "val_aug", "clean": "val"},
    }
    columns = {
        protocol: _figures(history, prefix) for protocol, prefix in prefixes[config.eval.augmented].items()
    }
    return [
        {
            "figure": figure,
            "paper": paper_has,
            "augmented": columns["augmented"][row] if "augmented" in columns else None,
            "clean": columns["clean"][row] if "clean" in columns else None,
        }
        for row, (figure, paper_has) in enumerate(_PAPER)
    ]


_PAPER = (
    ("training accuracy in epoch 1", "67.4%"),
    ("validation accuracy in epoch 1", "87.0%"),
    ("best validation accuracy by epoch 3", "92.8%"),
    ("best validation accuracy", "93.3%"),
    ("in epoch", "13"),
    ("training accuracy in that epoch", "93.3%"),
    ("training loss, first and last epoch", "0.89, below 0.20"),
    ("validation loss, lowest and highest", "0.20, 0.26"),
)
"""(figure, what the paper has), in the order of `_figures`."""


def _figures(history: Sequence[dict[str, Any]], prefix: str) -> list[str]:
    accuracy, losses = ([row[f"{prefix}_{key}"] for row in history] for key in ("acc", "loss"))
    best = accuracy.index(max(accuracy))
    return [
        f"{history[0]['train_acc']:.1%}",
        f"{accuracy[0]:.1%}",
        f"{max(accuracy[:3]):.1%}",
        f"{accuracy[best]:.1%}",
        f"{best + 1}",
        f"{history[best]['train_acc']:.1%}",
        f"{history[0]['train_loss']:.2f}, {history[-1]['train_loss']:.2f}",
        f"{min(losses):.2f}, {max(losses):.2f}",
    ]
