"""How the learning rate goes: by epoch or by step, with a rise at the beginning."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from flowerfast.config import TrainConfig


def goes_by_step(config: TrainConfig) -> bool:
    """Whether the schedule moves at each step, and not at the end of each epoch."""
    return config.schedule in ("onecycle", "cosine-batch") or config.warmup_epochs > 0


def make_schedule(optimizer: Optimizer, config: TrainConfig, steps_per_epoch: int) -> LRScheduler:
    """Schedule of the learning rates of all groups, see `goes_by_step`."""
    c = config
    if c.schedule == "onecycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        cycled = not {"momentum", "betas"}.isdisjoint(optimizer.defaults)
        return OneCycleLR(
            optimizer, rates, epochs=c.epochs, steps_per_epoch=steps_per_epoch, cycle_momentum=cycled
        )
    if goes_by_step(c):
        return LambdaLR(optimizer, _by_step(c, steps_per_epoch))
    if c.schedule == "step":
        return StepLR(optimizer, c.step_size, c.gamma)
    if c.schedule == "cosine":
        return CosineAnnealingLR(optimizer, c.epochs)
    return ConstantLR(optimizer, factor=1.0)


def _by_step(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step, counted from 0: that of the schedule times that of the rise."""
    c, rise = config, config.warmup_epochs * steps_per_epoch

    def factor(step: int) -> float:
        epoch = step // steps_per_epoch
        share = {
            "step": lambda: c.gamma ** (epoch // c.step_size),
            "cosine": lambda: _cosine(epoch / c.epochs),
            "cosine-batch": lambda: _cosine(step / (c.epochs * steps_per_epoch)),
            "constant": lambda: 1.0,
        }[c.schedule]()
        return share * min((step + 1) / rise, 1.0) if rise else share

    return factor


def _cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return (1 + math.cos(math.pi * min(done, 1.0))) / 2
