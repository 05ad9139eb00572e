"""Ranks in step with each other: at each batch they tell each other how they stand, and do the same then.

What is told: whether the batch is there, how many samples of it are trained on, a signal that asks to stop,
how many files turned out bad, and the time. So no rank waits in a collective for one that has stopped, has
failed, or still waits for a disk, and all count the same.
"""

import time
from collections.abc import Iterator
from enum import IntEnum

from flowerfast.errors import RunFailed, UserError
from flowerfast.loaders.batch import Batch
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import WaitStopped
from flowerfast.ranks.meeting import RankLost
from flowerfast.ranks.telling import exchange, gather, raise_first
from flowerfast.ranks.who import current
from flowerfast.training.progress import Stop


class _Stand(IntEnum):
    """How a rank stands at a batch."""

    READY = 0
    WAITING = 1
    FAILED = 2


class Lockstep:
    """What all ranks know of each other at a batch. A process alone agrees with itself, at no cost.

    Args:
        asked: says whether this process was asked to stop.
        photos: whose bad files are to be known to all.
        least: a rank that has fewer samples of a batch leaves those out.

    Attributes:
        samples, left_out: of the batch at hand, on all ranks: trained on, and left out.
    """

    def __init__(self, asked: Stop, photos: Photos, least: int = 1) -> None:
        self._ask, self._photos, self._least = asked, photos, least
        self._many = current().are_many
        self._signal: int | None = None
        self._time = exchange([time.monotonic_ns()])[0][0] / 1e9
        self._known: frozenset[int] = frozenset()  # bad files that all ranks know of
        self.samples = self.left_out = 0

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of a loader, each once all ranks have theirs.

        Raises what a rank's loader raises, on all ranks, and WaitStopped where a rank waits for photos and is
        asked to stop.
        """
        if not self._many:
            for one in batches:
                self._count(len(one))
                yield one
            return
        while True:
            batch: Batch | None = None
            error: UserError | RunFailed | None = None
            try:
                batch = next(batches)
            except StopIteration:  # of all ranks: all have as many batches
                return
            except RankLost:
                raise
            except (UserError, RunFailed) as met:
                error = met
            self._meet(0 if batch is None else len(batch), error)
            if batch is not None:
                yield batch

    def stop(self) -> int | None:
        """The signal that asks all to stop after this batch, or None."""
        return self._signal if self._many else self._ask()

    def now(self) -> float:
        """Seconds of a clock that all ranks read alike."""
        return self._time if self._many else time.monotonic()

    def waiting(self) -> bool:
        """Tell that this rank still waits for photos: whether it is to stop. See `workers.stopping`."""
        if not self._many:
            return self._ask() is not None
        stands = self._tell(_Stand.WAITING, 0)
        if _Stand.FAILED in stands:
            raise_first(gather(None))
        return self._signal is not None

    def _meet(self, samples: int, error: UserError | RunFailed | None) -> None:
        """Wait until all ranks have their part of a batch."""
        while True:
            stands = self._tell(_Stand.READY if error is None else _Stand.FAILED, samples)
            if _Stand.FAILED in stands:
                raise_first(gather(error))
            if _Stand.WAITING not in stands:
                return
            if self._signal is not None:
                raise WaitStopped

    def _tell(self, stand: _Stand, samples: int) -> list[int]:
        """How each rank stands."""
        self._count(samples)
        numbers = stand, self.samples, self.left_out, self._ask() or 0, len(self._photos.bad_indices)
        rows = exchange([*map(int, numbers), time.monotonic_ns()])
        stands, trained, left_out, signals, bad, times = (list(column) for column in zip(*rows, strict=True))
        self.samples, self.left_out = sum(trained), sum(left_out)
        self._signal, self._time = max(signals) or None, times[0] / 1e9
        if _Stand.FAILED not in stands and max(bad) > len(self._known):
            self._share_bad()
        return stands

    def _share_bad(self) -> None:
        """Let all ranks know the bad files of all. Raises UserError, on all, when they are too many."""
        found = {bad: why for bad, why in self._photos.bad_reasons.items() if bad not in self._known}
        everyone = {index: why for part in gather(found) for index, why in part.items()}
        try:
            for index in sorted(everyone):
                self._photos.report_bad(index, everyone[index])
        except UserError as error:
            error.everywhere = True
            raise
        self._known = self._photos.bad_indices

    def _count(self, samples: int) -> None:
        trained = samples if samples >= self._least else 0
        self.samples, self.left_out = trained, samples - trained
