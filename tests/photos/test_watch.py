"""Calls that do not come back are named, and end the process when nothing comes at all."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flowerfast.photos import watch as module
from flowerfast.photos import workers
from flowerfast.photos.watch import Watch


@pytest.fixture(autouse=True)
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Patience of parts of a second; exit codes in place of exits."""
    for name, seconds in {"TOLD_AFTER": 0.04, "GIVEN_UP_AFTER": 0.2, "LOOK": 0.01}.items():
        monkeypatch.setattr(workers, name, seconds)
    codes: list[int] = []
    over = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        over.wait()

    monkeypatch.setattr(module.os, "_exit", leave)
    yield codes
    over.set()


def watch() -> Watch:
    return Watch(lambda sample: f"photo {sample}", "it may hang")


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and not true():
        time.sleep(0.005)


def test_a_call_that_hangs_is_named_then_ends_the_process(
    exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with watch().over(np.array([3, 5, 9])):
        until(lambda: exits)
    assert exits == [1]
    told, *_, last = caplog.messages
    assert told.startswith("flowerfast: nothing made of one or more of 3 photos, photo 3 to photo 9 for 0.0")
    assert told.endswith("it may hang; still waiting")
    assert last.endswith("it may hang; run the command again, with --resume if there is a save")


def test_when_it_is_closed_its_thread_has_ended() -> None:
    for _ in range(100):
        looks = watch()
        with looks.over(np.array([1])):
            pass
        looks.close()
        assert not looks._thread.is_alive()


def test_calls_that_come_back_are_not_told_of(exits: list[int], caplog: pytest.LogCaptureFixture) -> None:
    looks = watch()
    for sample in range(40):
        with looks.over(np.array([sample])):
            time.sleep(0.01)
    assert (exits, caplog.messages) == ([], [])
    with looks.over(np.array([1])):
        until(lambda: caplog.text)
    assert "nothing made of photo 1 for" in caplog.text
    looks.close()
    looks.close()
