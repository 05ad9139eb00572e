"""The optimiser of a run: plain SGD or one of timm's; its groups of weights, their rates and decays."""

from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from torch import nn

from flowerfast.config import TrainConfig
from flowerfast.errors import UserError, one_line
from flowerfast.nearest import did_you_mean, nearest
from flowerfast.training.fitting import check_alike
from flowerfast.training.weights import heads

Group = dict[str, Any]
"""Weights, and the options of the optimiser that are theirs, as torch has it."""
_CHANGES = ("lr", "momentum", "betas", "step")
"""What may change in a group from step to step; all else follows from the settings."""


def check_optimizer(config: TrainConfig) -> None:
    """Raise UserError unless the optimiser can be had here, with these settings: before anything is made."""
    _create([{"params": [nn.Parameter(torch.zeros(2, 2))]}], config)


def make_optimizer(network: nn.Module, config: TrainConfig, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a network's weights; `fused`: plain SGD as one kernel.

    Raises UserError when it cannot be had here, or `train.head_lr` is of a network without a known head.
    """
    return _create(_groups(network, config), config, fused)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any], place: str) -> None:
    """Take from a saved state what changes from step to step.

    A trial step shows what such a state holds, whatever the optimiser. It moves the weights, which are to be
    loaded afterwards. Raises ValueError, which names the place, or KeyError when the state does not fit.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    fresh = optimizer.state_dict()
    check_alike(saved, fresh, place)
    state = {}
    for number, kept in saved["state"].items():
        if number not in range(len(weights)):
            raise ValueError(f"{place}.state.{number}: of none of the {len(weights)} weights")
        names = fresh["state"].get(number, {}).keys()
        if lacking := sorted(names - kept.keys()):
            raise ValueError(f"{place}.state.{number}: no {lacking[0]}")
        state[number] = {name: kept[name] for name in names}
    for group, given in zip(fresh["param_groups"], saved["param_groups"], strict=True):
        if "step" not in given:
            group.pop("step", None)  # nor has it been counted yet
        group.update({name: given[name] for name in _CHANGES if name in group})
    others = {name: saved[name] for name in fresh.keys() - {"state", "param_groups"}}
    optimizer.load_state_dict({**fresh, **others, "state": state})


def _create(groups: list[Group], config: TrainConfig, fused: bool = False) -> torch.optim.Optimizer:
    name, lr, momentum, decay = config.optimizer, config.step_lr, config.momentum, config.weight_decay
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=decay, fused=fused)
    known = [each for each in map(str, list_optimizers()) if not get_optimizer_info(each).second_order]
    if name not in known:
        near = nearest(name, known)
        names = did_you_mean(near) if near else "; timm.optim.list_optimizers() in Python names all"
        raise UserError(f"train.optimizer={name!r}: no such optimiser here{names}")
    try:
        made: torch.optim.Optimizer = create_optimizer_v2(
            groups, name, lr=lr, weight_decay=decay, momentum=momentum
        )
    except (ImportError, AssertionError) as error:  # those of apex and bitsandbytes
        raise UserError(f"train.optimizer={name}: {one_line(error)}; choose another, as adamw") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"train.optimizer={name}: {one_line(error)}; mend that, or choose another") from error
    return made


def _groups(network: nn.Module, config: TrainConfig) -> list[Group]:
    c = config
    if c.decay_norms and c.layer_decay is None and c.head_lr == 1:
        return [{"params": [*network.parameters()], "lr": c.step_lr, "weight_decay": c.weight_decay}]
    decays: dict[str, Any] = {
        "weight_decay": c.weight_decay,
        "weight_decay_exclude_1d": not c.decay_norms,
        "no_weight_decay_list": () if c.decay_norms else getattr(network, "no_weight_decay", tuple)(),
    }
    if c.layer_decay is None:
        groups = param_groups_weight_decay(network, **decays)
    else:
        groups = param_groups_layer_decay(network, layer_decay=c.layer_decay, **decays)
    head = {id(weight) for weight in _head(network)} if c.head_lr != 1 else set()
    parted = []
    for group in groups:
        weights, lr = group.pop("params"), c.step_lr * group.pop("lr_scale", 1.0)
        for factor, inside in ((1.0, False), (c.head_lr, True)):
            part = [weight for weight in weights if (id(weight) in head) == inside]
            if part:
                parted.append({**group, "params": part, "lr": lr * factor})
    return parted


def _head(network: nn.Module) -> list[nn.Parameter]:
    found = [weight for name, weight in network.named_parameters() if name.startswith(heads(network))]
    if not found:
        raise UserError("train.head_lr: timm does not say which layer is this network's head; set it to 1")
    return found
