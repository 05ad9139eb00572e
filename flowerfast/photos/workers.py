"""Threads that read and decode photos, and the wait for them.

A read that a dead network disk never answers cannot be ended. So what it reads is named after a while,
whoever waits can be asked to stop, and the thread is left behind at the end. `ThreadPoolExecutor` would join
it, when it is shut down and again when the interpreter exits, and hold the process for ever.
"""

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet, finalize

import numpy as np

from flowerfast.errors import RunFailed
from flowerfast.machine import logger, usable_cores

T = TypeVar("T")

TOLD_AFTER = 30.0
"""Seconds without a result after which it is said what is being waited for; again after twice as long, ..."""
GIVEN_UP_AFTER = 1800.0
"""Seconds without a result that end the run: the slowest of disks brings a few photos in half an hour."""
LEFT_AFTER = 5.0
"""Seconds that threads get at the end for what they have begun."""
LOOK = 1.0
"""Seconds of one wait: what a process is stopped for meanwhile does not count."""
_ASKED_AFTER = 5.0  # seconds without a result after which who waits can be asked to stop
_CHUNK = 16  # headers per task: to read one takes less than to hand over a task

_asked: ContextVar[Callable[[], bool]] = ContextVar("_asked", default=lambda: False)


class WaitStopped(Exception):
    """Whoever waited for photos has been asked to stop."""


class Task(Future[T]):
    """A call that threads make.

    Attributes:
        samples: indices of the photos that it reads or decodes.
    """

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        self.samples = samples


_Order = tuple[Task[Any], Callable[..., Any], tuple[Any, ...]]


class Workers:
    """Threads that make calls in the order in which these are submitted.

    They end with this object, closed or not, and with the interpreter.

    Args:
        count: of threads, which start with the first call.
        name: before their numbers.
    """

    def __init__(self, count: int, name: str) -> None:
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._threads = [  # they know the queue alone
            threading.Thread(target=_work, args=(self._orders,), name=f"{name}_{number}", daemon=True)
            for number in range(count)
        ]
        self._started = False
        self._dismiss = finalize(self, _dismiss, self._orders, count)
        _everyone().add(self)

    def submit(self, samples: np.ndarray, function: Callable[..., T], *arguments: Any) -> Task[T]:
        """Have one of the threads call a function, which works on these samples."""
        if not self._dismiss.alive:
            raise RuntimeError("these threads have been stopped")
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        task: Task[T] = Task(samples)
        self._orders.put((task, function, arguments))
        return task

    def close(self) -> None:
        """Cancel what waits and stop the threads; one that hangs is left behind. May be called twice."""
        if not self._dismiss.alive:
            return
        while True:
            try:
                order = self._orders.get_nowait()
            except Empty:
                break
            if order is not None and order[0].cancel():
                order[0].set_running_or_notify_cancel()  # whoever waits for it is told
        self._dismiss()
        left = LEFT_AFTER
        while self._started and left > 0 and (busy := [t for t in self._threads if t.is_alive()]):
            busy[0].join(0.05)
            if busy[0].is_alive():
                left -= 0.05


def _work(orders: "SimpleQueue[_Order | None]") -> None:
    while (order := orders.get()) is not None:
        task, function, arguments = order
        if task.set_running_or_notify_cancel():
            try:
                task.set_result(function(*arguments))
            except BaseException as error:  # for whoever asks for the result
                task.set_exception(error)
        del order, task, function, arguments  # photos and rows must not live until the next order


def _dismiss(orders: "SimpleQueue[_Order | None]", count: int) -> None:
    for _ in range(count):
        orders.put(None)


@cache
def _everyone() -> "WeakSet[Workers]":
    """All workers. They end before what was imported before them, such as compiled code, is taken down."""
    everyone: WeakSet[Workers] = WeakSet()
    atexit.register(_close_all, everyone)
    return everyone


def _close_all(everyone: "WeakSet[Workers]") -> None:
    for workers in [*everyone]:
        workers.close()


@contextmanager
def stopping(asked: Callable[[], bool]) -> Iterator[None]:
    """Within, on this thread, whoever has waited for photos for some seconds stops once `asked` says so."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def results(tasks: Sequence[Task[T]], where: Callable[[int], str]) -> list[T]:
    """What the tasks return, in order. Waits for them, and says what for where that takes long.

    `where` names a sample, without a look at the disk. Raises what a task raised, WaitStopped where
    `stopping` says so, and RunFailed when nothing comes at all.
    """
    waited, tell, left = 0.0, TOLD_AFTER, len(tasks)
    while pending := wait(tasks, LOOK).not_done:
        waited += LOOK
        if len(pending) < left:
            waited, tell, left = 0.0, TOLD_AFTER, len(pending)
        if waited >= _ASKED_AFTER and _asked.get()():
            raise WaitStopped
        if waited >= GIVEN_UP_AFTER:
            then = "see to it, then run the command again, with --resume if there is a save"
            raise RunFailed(f"{_undone(tasks, where, waited)}; {then}")
        if waited >= tell:
            logger.warning("flowerfast: %s; still waiting", _undone(tasks, where, waited))
            tell *= 2
    return [task.result() for task in tasks]


def iter_chunks(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive pieces of `indices`, `size` long; the last may be shorter."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def in_order(
    pool: Workers,
    work: Callable[[np.ndarray], T],
    pieces: Iterable[np.ndarray],
    ahead: int,
    where: Callable[[int], str],
) -> Iterator[T]:
    """Results of `work` on pieces, indices of samples, in their order.

    At most `ahead` of them are under way or waiting; `where` names a sample.
    """
    waiting: deque[Task[T]] = deque()
    try:
        for samples in pieces:
            if len(waiting) == ahead:
                yield results([waiting.popleft()], where)[0]
            waiting.append(pool.submit(samples, work, samples))
        while waiting:
            yield results([waiting.popleft()], where)[0]
    finally:
        for task in waiting:
            task.cancel()


def one_by_one(samples: np.ndarray, look: Callable[[int], T], where: Callable[[int], str]) -> Iterator[T]:
    """What `look` gives for each of some samples, int64 (n,), from threads, so that a hang is named."""

    def look_at(some: np.ndarray) -> list[T]:
        return [look(sample) for sample in some.tolist()]

    threads = usable_cores()
    with closing(Workers(threads, "flowerfast-headers")) as pool:
        for seen in in_order(pool, look_at, iter_chunks(samples, _CHUNK), 2 * threads, where):
            yield from seen


def _undone(tasks: Sequence[Task[T]], where: Callable[[int], str], waited: float) -> str:
    samples = [sample for task in tasks if not task.done() for sample in task.samples.tolist()]
    return standstill(samples, where, waited, "the disk is slow or gone, or loops are being compiled")


def standstill(samples: Sequence[int], where: Callable[[int], str], waited: float, why: str) -> str:
    """What is being waited for, for how long, and why that may be."""
    names = where(samples[0]) if samples else "what is to be read first"
    if len(samples) > 1:
        names = f"one or more of {len(samples)} photos, {names} to {where(samples[-1])}"
    return f"nothing made of {names} for {waited:g} s: {why}"


def leave(tasks: Sequence[Task[T]]) -> None:
    """Cancel tasks and wait for those that have begun, but not for ever."""
    wait([task for task in tasks if not task.cancel()], LEFT_AFTER)
