"""What is timed, and from which moment to which: rounds over a source of batches."""

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Drawn = Iterable[Any]
"""Unpacks as images, labels, like a `Batch` or a pair; `len(labels)` is the number of images."""
LEAD = 4
"""Batches drawn before the clock starts: more than what a pipeline holds ready after a pause."""


@dataclass
class Source:
    """What a variant draws from.

    Attributes:
        epochs: epochs without end, each an iterable of batches; an iterable may be the same object each time.
        counters: growing totals, such as seconds spent waiting; a round reports by how much they grew.
        lead: batches drawn before the clock starts.
        close: frees what the source holds.
    """

    epochs: Iterator[Iterable[Drawn]]
    counters: Callable[[], Mapping[str, float]] = dict
    lead: int = LEAD
    close: Callable[[], None] = lambda: None


@dataclass
class Round:
    """One measurement: images in seconds, and the growth of the source's counters meanwhile."""

    images: int
    seconds: float
    counters: dict[str, float] = field(default_factory=dict)


class Rounds:
    """Draws whole cycles of a source and times them.

    Between two rounds a pipeline fills its queues, which would flatter whoever has the longest: the first
    batches, as many as the source says (`lead`), are not timed. A round then lasts from one place in an epoch
    to the same place in a later one, so it holds whole epochs with all that starting and ending them costs.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._batches = self._draw()
        self._at = (0, -1)  # (epoch, batch) drawn last

    def warm_up(self) -> float:
        """Draw the first epoch, and the batch after it: seconds."""
        started = time.perf_counter()
        while self._at[0] == 0:
            next(self._batches)
        return time.perf_counter() - started

    def run(self, seconds: float) -> Round:
        """One round of at least so many seconds."""
        for _ in range(self._source.lead):
            next(self._batches)
        epoch, place = self._at
        synchronise()
        before, started, images = self._source.counters(), time.perf_counter(), 0
        while True:
            images += next(self._batches)
            if self._at < (epoch + 1, place):  # an epoch shorter than the first counts when it ends
                continue
            epoch = self._at[0]
            synchronise()
            taken = time.perf_counter() - started
            if taken >= seconds:
                after = self._source.counters()
                return Round(images, taken, {key: after[key] - before[key] for key in after})

    def close(self) -> None:
        """End the epoch under way and free the source."""
        self._batches.close()
        self._source.close()

    def _draw(self) -> Generator[int, None, None]:
        for number, epoch in enumerate(self._source.epochs):
            place = -1
            for place, (_, labels) in enumerate(epoch):
                self._at = (number, place)
                yield len(labels)
            if place < 0:
                raise ValueError(f"epoch {number} has no batches: there is nothing to time")
        raise ValueError("the source ran out of epochs")


def timed(task: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of so many calls, to the moment at which the device is idle again."""
    taken = []
    for _ in range(repeats):
        synchronise()
        started = time.perf_counter()
        task()
        synchronise()
        taken.append(time.perf_counter() - started)
    return taken


def synchronise() -> None:
    """Wait until the CUDA device, if this process uses one, is idle."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
