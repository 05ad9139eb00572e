"""Which image sizes a network takes, and how many samples it needs to train on.

Tried on the meta device, whose tensors have a shape and no content, before anything is fetched or made; and
once on the CPU, when the network is built.
"""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import nn

from flowerfast.errors import UserError, one_line
from flowerfast.training.architecture import Architecture

_STEPS = (32, 14)  # most strides and patches divide one of these
_MOST = 6  # sizes that are tried on either side


def least_batch(architecture: Architecture, image_size: int, batch_size: int = 2) -> int:
    """Samples that a training batch must have at an image size: 2 where batch normalisation would see a
    single value per channel, else 1.

    Raises UserError with sizes that fit when the network does not take this one, and when `batch_size` is
    less than it needs.
    """
    try:
        least = _least_batch(architecture, image_size)
    except Exception as error:  # networks raise whatever comes of shapes that do not fit
        raise _unfit(architecture, image_size, error) from error
    if batch_size < least:
        raise UserError(
            f"train.batch_size={batch_size}: the batch normalisation of model.name={architecture.name} needs "
            f"{least} samples at data.image_size={image_size}; set train.batch_size={least} or more"
        )
    return least


def check_forward(network: nn.Module, architecture: Architecture, image_size: int) -> None:
    """Run one image through a network that has its weights: a few networks look up positions by value.

    Raises UserError with sizes that fit when it fails.
    """
    try:
        _answer(network, image_size)
    except Exception as error:
        raise _unfit(architecture, image_size, error) from error


def check_eval_size(network: nn.Module, name: str, size: int) -> None:
    """As `check_forward`, at the size of evaluation, of a network that was built for another.

    Raises UserError when it fails: many networks of patches take one size alone.
    """
    try:
        _answer(network, size)
    except Exception as error:  # networks raise whatever comes of shapes that do not fit
        raise UserError(
            f"eval.image_size={size}: {name} does not take such images where it is trained on others "
            f"({one_line(error)}); set eval.image_size=null"
        ) from error


def _unfit(architecture: Architecture, image_size: int, error: Exception) -> UserError:
    fitting = ", ".join(map(str, sorted(_fitting(architecture, image_size)))) or "none that was tried"
    return UserError(
        f"data.image_size={image_size}: model.name={architecture.name} does not take such images "
        f"({one_line(error)}); sizes that fit: {fitting}"
    )


def _least_batch(architecture: Architecture, image_size: int) -> int:
    with suppress(Exception):  # what fails on meta need not fail in earnest
        return _tried(architecture, image_size, "meta")
    return _tried(architecture, image_size, "cpu")


def _tried(architecture: Architecture, image_size: int, device: str) -> int:
    with torch.device(device), torch.no_grad():
        network = architecture.create(2, image_size).train()
        try:
            network(torch.zeros(1, 3, image_size, image_size))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            network(torch.zeros(2, 3, image_size, image_size))
            return 2
    return 1


def _answer(network: nn.Module, image_size: int) -> None:
    training = network.training
    with torch.inference_mode():
        device = next(network.parameters()).device
        network.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    network.train(training)


def _fitting(architecture: Architecture, image_size: int) -> Iterator[int]:
    """Sizes near this one that the network takes: its own, the next below and the next above."""
    own = architecture.cfg.input_size[-1] if architecture.cfg is not None else image_size
    near = {size for step in _STEPS for size in range(step, 2 * image_size + 1, step) if size >= 32} - {own}
    below = sorted((size for size in near if size < image_size), reverse=True)[:_MOST]
    above = sorted(size for size in near if size > image_size)[:_MOST]
    for sizes in ((own,), below, above):
        for size in sizes:
            with suppress(Exception):
                _tried(architecture, size, "meta")
                _answer(architecture.create(2, size), size)
                yield size
                break
