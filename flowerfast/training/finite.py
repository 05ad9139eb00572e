"""Are losses and weights numbers? Found out without a step that waits for the device."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

EVERY = 16
"""Steps whose losses are read together, in one copy, once as many more steps are queued: so late, the copy is
done (`WaitClock` has the host wait for those steps anyway), and the device is never idle. On Apple's GPU,
which has no copy that nobody waits for, reading waits for what is queued."""


@dataclass(frozen=True)
class BadLoss:
    """A batch, counted from 0, whose loss is no number, and that loss."""

    batch: int
    loss: float


class LossWatch:
    """Finds the first batch of an epoch whose training loss is no number."""

    def __init__(self) -> None:
        self._batches: list[int] = []
        self._losses: list[torch.Tensor] = []
        self._asked: tuple[list[int], torch.Tensor, torch.cuda.Event | None] | None = None

    def add(self, batch: int, loss: torch.Tensor) -> BadLoss | None:
        """Take note of the loss of a step, a scalar on the device: what is known of earlier ones."""
        self._batches.append(batch)
        self._losses.append(loss)
        if len(self._losses) < EVERY:
            return None
        found = self._read()
        self._ask()
        return found

    def rest(self) -> BadLoss | None:
        """What there is among those that have not been looked at yet (waits for the device)."""
        found = self._read()
        if found is None and self._losses:
            self._ask()
            found = self._read()
        return found

    def _ask(self) -> None:
        """Have the losses brought to the host."""
        losses, event = torch.stack(self._losses), None
        if losses.is_cuda:
            losses = torch.empty_like(losses, device="cpu", pin_memory=True).copy_(losses, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._asked = self._batches, losses, event
        self._batches, self._losses = [], []

    def _read(self) -> BadLoss | None:
        if self._asked is None:
            return None
        batches, losses, event = self._asked
        self._asked = None
        if event is not None:
            event.synchronize()
        found = zip(batches, losses.tolist(), strict=True)
        return next((BadLoss(batch, loss) for batch, loss in found if not math.isfinite(loss)), None)


def all_finite(weights: Iterable[torch.Tensor]) -> bool:
    """Whether all are numbers (waits for the device): one pass over them."""
    largest = torch.nn.utils.get_total_norm([w.detach() for w in weights], norm_type=math.inf)
    return math.isfinite(largest.item())
