"""How long training waits for data."""

import time
from collections.abc import Iterator

import torch

from flowerfast.loaders.batch import Batch
from flowerfast.loaders.ranges import stage

_FOLD = 16
"""Steps after which CUDA events are read, of as many steps before those. The host waits for the device then,
which has so many steps to go on with, so it is never idle. And the host is never further ahead than twice as
many, with as many batches in the device's memory: CUDA's queue alone would let it, where a step is a few CUDA
graphs."""


class WaitClock:
    """Times an epoch's batches, and how much of that the training steps stood waiting.

    On a CPU: the time inside the loader; on Apple's GPU too, which may have worked meanwhile. On CUDA the
    host runs ahead of the device, so its own waiting says little; there, events on the training stream mark
    the end of a step and the moment at which the next batch is ready, and the gap between the two is time in
    which the device had no training to do.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._waited = 0.0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._started = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._started

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass on the batches and note the gaps before each."""
        while True:
            asked, end_of_step = time.perf_counter(), self._mark()
            with stage("next batch"):
                batch = next(batches, None)
            if batch is None:
                return
            ready = self._mark()
            if end_of_step is None or ready is None:
                self._waited += time.perf_counter() - asked
            else:
                self._gaps.append((end_of_step, ready))
                if len(self._gaps) >= 2 * _FOLD:
                    self._fold(_FOLD)
            yield batch

    def waited(self) -> float:
        """Seconds waited so far (on CUDA, this waits for the device)."""
        self._fold(len(self._gaps))
        return self._waited

    def _mark(self) -> torch.cuda.Event | None:
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _fold(self, count: int) -> None:
        for end_of_step, ready in self._gaps[:count]:
            ready.synchronize()
            self._waited += end_of_step.elapsed_time(ready) / 1000
        del self._gaps[:count]
