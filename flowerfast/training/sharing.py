"""Gradients of all ranks together, by DistributedDataParallel.

Each rank has its part of every batch, and the parts differ by a sample, or more where files are bad. So what
is averaged is no mean of means: each rank's loss is the sum over its samples, times the number of ranks (for
DDP divides by that), and the sum of all is divided by the number of all samples once it is known.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flowerfast.machine import ignore_warnings
from flowerfast.ranks.meeting import device_group
from flowerfast.ranks.who import Ranks

Forward = Callable[[torch.Tensor], torch.Tensor]


class SharedNetwork:
    """A network that all ranks train.

    Batch normalisation is each rank's own: it normalises by the rank's samples. Its running statistics, which
    training does not look at, are averaged when they are asked for (`average`); as they are running means, it
    makes no difference how often. torch's SyncBatchNorm, which knows GPUs alone, would cost two collectives
    per layer and step.

    Args:
        model: the network, in training mode and frozen as it will be, whenever `begin` is called.
        forward: how training steps call it, compiled perhaps.
        device: where it is.
        ranks: this process among those that train it.
    """

    def __init__(self, model: nn.Module, forward: Forward, device: torch.device, ranks: Ranks) -> None:
        self._model, self._forward, self._device, self._ranks = model, forward, device, ranks
        self._group = device_group(device)
        # Of depthwise kernels, whose gradients are then copied once more: nothing that people could do about.
        ignore_warnings(message="Grad strides do not match bucket view strides")
        self._learning: list[nn.Parameter] = []
        self._parallel: DistributedDataParallel | None = None

    def begin(self) -> None:
        """Get ready for an epoch, in which other weights may learn than before."""
        learning = [weight for weight in self._model.parameters() if weight.requires_grad]
        if [*map(id, learning)] != [*map(id, self._learning)]:
            self._parallel, self._learning = None, learning  # with its hooks, before others are made
            self._parallel = DistributedDataParallel(
                _Askable(learning, self._forward),
                device_ids=None if self._device.type == "cpu" else [self._device.index],
                process_group=self._group,
            )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of this rank's images; of none a zero on which all weights that learn depend.

        So every rank takes part in every step, whatever it has left.
        """
        assert self._parallel is not None
        logits: torch.Tensor = self._parallel(images)
        return logits

    def alone(self, wanted: bool) -> AbstractContextManager[Any]:
        """Within, where that is wanted, gradients stay with this rank."""
        assert self._parallel is not None
        return self._parallel.no_sync() if wanted else nullcontext()

    def add_up(self, numbers: torch.Tensor) -> Any:
        """Begin to add up a tensor over all ranks, in its place; `wait()` of what is returned ends it."""
        return dist.all_reduce(numbers, group=self._group, async_op=True)

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give each of these tensors, floating, its mean over all ranks; equal ones stay as they are."""
        tensors = [*tensors]
        if not tensors:
            return
        flat = torch.cat([each.detach().reshape(-1).double() for each in tensors])
        dist.all_reduce(flat, group=self._group)
        flat /= self._ranks.world_size
        for each, mean in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
            each.detach().copy_(mean.view(each.shape))


class _Askable(nn.Module):
    """A network that may be asked for nothing, of which DDP is shown the weights that learn alone."""

    def __init__(self, learning: list[nn.Parameter], forward: Forward) -> None:
        super().__init__()
        self.learning = nn.ParameterList(learning)
        self._call = (forward,)  # in a tuple: a module, it would be a part of this one

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, or a zero."""
        if len(images):
            return self._call[0](images)
        return torch.stack([weight.sum() for weight in self.learning]).sum() * 0
