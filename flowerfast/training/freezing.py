"""A network whose head alone learns, for some epochs or for all."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from flowerfast.config import TrainConfig
from flowerfast.errors import UserError
from flowerfast.training.weights import heads


class Backbone:
    """All of a network but its head.

    Args:
        network: one of timm's, in training mode when it is frozen or let go.

    Raises UserError when timm does not say which layer is the head.
    """

    def __init__(self, network: nn.Module) -> None:
        head = heads(network)
        weights = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
        self._weights = [weight for name, weight in weights if not name.startswith(head)]
        if len(self._weights) == len(weights):
            raise UserError("train.freeze: timm does not say which layer is this network's head; set it to 0")
        self._norms = [
            module
            for name, module in network.named_modules()
            if isinstance(module, _BatchNorm) and not f"{name}.".startswith(head)
        ]

    def freeze(self, frozen: bool = True) -> None:
        """Have it get no gradients, and its batch norms keep their statistics; or have all be as before."""
        for weight in self._weights:
            weight.requires_grad_(not frozen)
        for norm in self._norms:
            norm.train(not frozen)


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether the backbone is frozen in an epoch, counted from 0."""
    return config.freeze == "backbone" or epoch < int(config.freeze)
