"""The wait clock: what counts as waiting for data."""

from collections.abc import Iterator

import pytest
import torch

from flowerfast.loaders.batch import Batch
from flowerfast.training import waiting
from flowerfast.training.waiting import WaitClock


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waiting, "time", made)
    return made


def batch() -> Batch:
    empty = torch.zeros(0, dtype=torch.int64)
    return Batch(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), empty, empty)


def loader(clock: Clock, seconds: list[float]) -> Iterator[Batch]:
    """One batch per entry, each `seconds` in the making."""
    for pause in seconds:
        clock.now += pause
        yield batch()


def test_time_in_the_loader_is_waiting_and_time_in_the_step_is_not(clock):
    watch = WaitClock(torch.device("cpu"))
    for _ in watch.watch(loader(clock, [2.0, 0.5, 0.0])):
        clock.now += 10
    assert watch.waited() == pytest.approx(2.5)
    assert watch.total == pytest.approx(32.5)


def test_batches_pass_unchanged_and_in_order():
    batches = [batch() for _ in range(5)]
    found = list(WaitClock(torch.device("cpu")).watch(iter(batches)))
    assert len(found) == 5
    assert all(a is b for a, b in zip(found, batches, strict=True))


def test_epoch_without_batches():
    watch = WaitClock(torch.device("cpu"))
    assert list(watch.watch(iter(()))) == []
    assert watch.waited() == 0
    assert watch.total >= 0


def test_waiting_can_be_read_in_mid_epoch(clock):
    watch = WaitClock(torch.device("cpu"))
    batches = watch.watch(loader(clock, [1.0, 2.0, 4.0]))
    read = []
    for _ in batches:
        read.append(watch.waited())
    assert read == [1.0, 3.0, 7.0]


def test_abandoned_epoch_closes_the_loader(clock):
    closed = []

    def closing() -> Iterator[Batch]:
        try:
            yield from loader(clock, [1.0, 1.0])
        finally:
            closed.append(True)

    batches = WaitClock(torch.device("cpu")).watch(closing())
    next(batches)
    batches.close()
    del batches
    assert closed == [True]


class Event:
    """A CUDA event; the device's clock moves when it is told to, and stops of the host are counted."""

    device_ms = 0.0
    synchronised = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        assert stream == "of cuda:1"  # not of whatever device is current
        self.at = Event.device_ms

    def synchronize(self) -> None:
        Event.synchronised += 1

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


def test_cuda_gaps_are_measured_on_the_device_and_read_late(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    monkeypatch.setattr(Event, "synchronised", 0)
    count = 2000
    watch = WaitClock(torch.device("cuda:1"))

    def batches() -> Iterator[Batch]:
        for _ in range(count):
            Event.device_ms += 2  # nothing to do on the device
            yield batch()

    for done, _ in enumerate(watch.watch(batches()), 1):
        Event.device_ms += 30  # the step
        # The host never waits for the last steps, and is never far ahead of the device: batches lie between.
        assert Event.synchronised == 0 or done - Event.synchronised >= 16
        assert done - Event.synchronised <= 32
    assert watch.waited() == pytest.approx(count * 0.002)
    assert watch.waited() == pytest.approx(count * 0.002)
    assert Event.synchronised == count


@pytest.mark.gpu
def test_cuda_clock_sees_a_starving_device():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    watch, matrix = WaitClock(device), torch.ones(2000, 2000, device=device)
    for _ in watch.watch(batch() for _ in range(10)):
        for _ in range(20):
            matrix = matrix @ matrix * 1e-4
    torch.cuda.synchronize()
    assert 0 <= watch.waited() <= watch.total
