"""Calls of other libraries that nothing can interrupt: when they hang it is said what they work on."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import finalize

import numpy as np

from flowerfast.machine import logger
from flowerfast.photos import workers
from flowerfast.photos.workers import standstill


class Watch:
    """Looks at the calls of one thread, from a thread of its own, which ends with this object.

    As long as `workers.results` would wait for a task, so long it waits for a call; then it ends the process
    with exit code 1, for the call would not be left alone: what has been saved stays.

    Args:
        where: names a sample, without a look at the disk.
        why: what may be the matter.
    """

    def __init__(self, where: Callable[[int], str], why: str) -> None:
        self._calls: list[np.ndarray] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_look, args=(self._calls, self._stop, where, why), name="flowerfast-watch", daemon=True
        )
        self._started = False
        self._dismiss = finalize(self, self._stop.set)

    @contextmanager
    def over(self, samples: np.ndarray) -> Iterator[None]:
        """Within, a call works on these samples, int64 (n,)."""
        if not self._started:
            self._started = True
            self._thread.start()
        self._calls[:] = [samples]
        try:
            yield
        finally:
            self._calls.clear()

    def close(self) -> None:
        """Look no more, and wait for the thread to end. May be called twice."""
        self._dismiss()
        if self._started and threading.current_thread() is not self._thread:
            self._thread.join(workers.LEFT_AFTER)


def _look(calls: list[np.ndarray], stop: threading.Event, where: Callable[[int], str], why: str) -> None:
    seen, waited, tell = None, 0.0, workers.TOLD_AFTER
    while not stop.wait(workers.LOOK):
        call = next(iter(calls), None)
        if call is None or call is not seen:
            seen, waited, tell = call, 0.0, workers.TOLD_AFTER
            continue
        waited += workers.LOOK
        if waited < min(tell, workers.GIVEN_UP_AFTER):
            continue
        said = standstill(call.tolist(), where, waited, why)
        if waited >= workers.GIVEN_UP_AFTER:
            logger.error(
                "flowerfast: error: %s; run the command again, with --resume if there is a save", said
            )
            os._exit(1)
        logger.warning("flowerfast: %s; still waiting", said)
        tell *= 2
