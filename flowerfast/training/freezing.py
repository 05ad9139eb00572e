"""Parts of a network that learn nothing: its first stages, and for some epochs or for all its backbone."""

from collections.abc import Iterator
from typing import Any, cast

from timm.models import group_modules, group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from flowerfast.config import TrainConfig
from flowerfast.errors import UserError
from flowerfast.training.weights import heads

_Part = tuple[list[nn.Parameter], list[nn.Module]]
"""Weights, and batch normalisations."""


class Freezing:
    """What learns in which epoch.

    Args:
        network: one of timm's, in training mode whenever an epoch begins.
        config: `freeze` and `frozen_stages`.

    Raises UserError when timm does not say which layer is the head, or has not so many stages.
    """

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        self._config = config
        self._backbone: _Part = _backbone(network) if config.freeze else ([], [])
        self._stages: _Part = _stages(network, config.frozen_stages) if config.frozen_stages else ([], [])

    def begin_epoch(self, epoch: int) -> None:
        """What is frozen in it, counted from 0, gets no gradients and keeps its statistics."""
        _freeze(self._backbone, is_frozen(self._config, epoch))
        _freeze(self._stages, True)


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether the whole backbone is frozen in an epoch, counted from 0."""
    return config.freeze == "backbone" or epoch < int(config.freeze)


def _freeze(part: _Part, frozen: bool) -> None:
    weights, norms = part
    for weight in weights:
        weight.requires_grad_(not frozen)
    for norm in norms:
        norm.train(not frozen)


def _backbone(network: nn.Module) -> _Part:
    """All but the head."""
    head = heads(network)
    learning = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    weights = [weight for name, weight in learning if not name.startswith(head)]
    if len(weights) == len(learning):
        raise UserError("train.freeze: timm does not say which layer is this network's head; set it to 0")
    return weights, [norm for name, norm in _norms(network) if not f"{name}.".startswith(head)]


def _stages(network: nn.Module, count: int) -> _Part:
    """The first of the coarse groups that timm has a network's layers in; the last one has its head."""
    try:
        matcher = cast(Any, network).group_matcher(coarse=True)
    except (AttributeError, AssertionError):  # it has none, or none that is coarse
        raise UserError(
            "train.frozen_stages: timm does not say which stages this network has; set it to 0"
        ) from None
    groups = group_parameters(network, matcher)
    if count >= len(groups):
        most = len(groups) - 1
        raise UserError(f"train.frozen_stages={count}: this network has {most} before its head; set fewer")
    first = sorted(groups)[:count]
    names = {name for group in first for name in groups[group]}
    modules = group_modules(network, matcher)
    inside = {name for group in first for name in modules.get(group, ())}
    weights = [weight for name, weight in network.named_parameters() if name in names]
    return weights, [norm for name, norm in _norms(network) if name in inside]


def _norms(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            yield name, module
