"""A timm network behind a normalisation layer: raw uint8 pixels in, logits out."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from flowerfast.arguments import of_kind, path
from flowerfast.config import ModelConfig
from flowerfast.documents import shown
from flowerfast.errors import UserError
from flowerfast.training.architecture import Architecture, configured, find_architecture
from flowerfast.training.image_size import check_eval_size, check_forward
from flowerfast.training.weights import labels_of, load_weights

_CROP_PCT = 0.875  # of models that have none of their own


class Classifier(nn.Module):
    """Normalisation, then the network.

    Args:
        network: takes normalised float images (N, 3, S, S), gives logits (N, classes).
        mean, std: per channel, of pixels scaled to 0..1.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        deviation = torch.tensor(std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, -1, 1, 1) / deviation, persistent=False)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of uint8 images (N, 3, S, S)."""
        pixels = torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)  # one pass over them
        logits: torch.Tensor = self.network(pixels)
        return logits


def build_network(
    config: ModelConfig,
    classes: Sequence[str],
    image_size: int,
    crop_pct: float | None,
    say: Callable[[str], None] = lambda _: None,
    eval_size: int | None = None,
) -> nn.Module:
    """timm network with a head for `classes`, and the preprocessing that goes with it in `pretrained_cfg`.

    Weights come from the file `config.weights`, else from the hub when `config.pretrained`, else they are
    random (torch's global seed). A head that knows other classes, by number or by name, is made anew. `say`
    is told what is fetched, and what had to be done to a file. Photos are evaluated at `eval_size`, None: at
    `image_size`. Raises UserError for an unknown name, an unreachable hub, a file that does not fit, an image
    size that the network does not take.
    """
    architecture = configured(config, image_size)
    if config.weights is not None:
        file = path("model.weights", config.weights)
        network = architecture.create(len(classes), image_size)
        other = (labels_of(file) or tuple(classes)) != tuple(classes)
        fresh_head = not load_weights(network, file, config.name, other, say)
    elif config.pretrained:
        network = architecture.create_pretrained(len(classes), image_size, say)
        fresh_head = not _knows(architecture, classes)
    else:
        network, fresh_head = architecture.create(len(classes), image_size), False
    if fresh_head:
        # torch's own init: timm's for EfficientNet grows as the classes get fewer, and for five of them the
        # first steps then spoil the pretrained features.
        cast(Any, network).reset_classifier(len(classes))
    check_forward(network, architecture, image_size)
    if eval_size not in (None, image_size):
        check_eval_size(network, config.name, eval_size)
    describe(pretrained_cfg(network), len(classes), eval_size or image_size, crop_pct)
    return network


def describe(cfg: dict[str, Any], classes: int, image_size: int, crop_pct: float | None) -> None:
    """Put into timm's description of a network how its photos are evaluated here, for `best/`.

    timm's own evaluation transform of it then gives the photos of our evaluation plan, up to the rounding of
    the resize: the short side to round(image_size / crop_pct), bilinear, then the centre.
    """
    for key in ("test_input_size", "test_crop_pct", "label_names", "label_descriptions"):
        cfg.pop(key, None)
    share = crop_pct if crop_pct is not None else cfg.get("crop_pct") or _CROP_PCT
    side = round(image_size / share)
    if math.floor(image_size / share) != side:  # timm rounds down: a share at which both give our side
        share = image_size / (side + 0.25)
    cfg.update(
        input_size=(3, image_size, image_size),
        crop_pct=share,
        crop_mode="center",
        interpolation="bilinear",
        num_classes=classes,
    )


def _knows(architecture: Architecture, classes: Sequence[str]) -> bool:
    """Whether pretrained weights have a head for these classes: as many, of these names if it has names."""
    cfg = architecture.cfg
    if cfg is None or cfg.num_classes != len(classes):
        return False
    return not cfg.label_names or tuple(cfg.label_names) == tuple(classes)


def own_crop_pct(name: str) -> float:
    """Share of the short side that a timm model's own preprocessing keeps. Raises UserError."""
    cfg = find_architecture(name).cfg
    return float(cfg.crop_pct) if cfg is not None and cfg.crop_pct else _CROP_PCT


def pretrained_cfg(network: nn.Module) -> dict[str, Any]:
    """timm's description of a network: preprocessing, name of the head."""
    return cast(dict[str, Any], network.pretrained_cfg)


def with_normalisation(network: nn.Module) -> Classifier:
    """The network behind the normalisation layer of its own `pretrained_cfg`. UserError: it has none."""
    wanted = "a model of timm.create_model(...)"
    of_kind("with_normalisation: network", network, nn.Module, wanted)
    if not hasattr(network, "pretrained_cfg"):
        raise UserError(f"with_normalisation: network={shown(network)}: has no pretrained_cfg; give {wanted}")
    cfg = pretrained_cfg(network)
    return Classifier(network, cfg["mean"], cfg["std"])
