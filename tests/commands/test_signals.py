"""SIGINT and SIGTERM: noted while it lasts, handled as before afterwards."""

import signal
import threading
from collections.abc import Iterator

import pytest

from flowerfast.commands.signals import StopSignals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handlers() -> Iterator[list[object]]:
    """The handlers at the beginning: not the ones that Python starts with."""
    before = [signal.signal(signum, lambda *_: None) for signum in BOTH]
    yield [signal.getsignal(signum) for signum in BOTH]
    for signum, handler in zip(BOTH, before, strict=True):
        signal.signal(signum, handler)


def current() -> list[object]:
    return [signal.getsignal(signum) for signum in BOTH]


@pytest.mark.parametrize("signum", BOTH)
def test_a_signal_is_noted_and_the_handlers_come_back(handlers: list[object], signum: signal.Signals) -> None:
    with StopSignals() as stop:
        assert current() != handlers
        assert stop() is None
        signal.raise_signal(signum)
        assert stop() == signum
    assert current() == handlers
    assert stop() == signum


def test_the_second_signal_stops_at_once(handlers: list[object]) -> None:
    def interrupted() -> None:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop() == signal.SIGTERM
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert current() == handlers


def test_nothing_is_handled_before_and_nothing_outside_the_main_thread(handlers: list[object]) -> None:
    stop, refused = StopSignals(), []

    def enter() -> None:
        try:
            stop.__enter__()
        except ValueError as error:
            refused.append(error)

    assert current() == handlers
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert current() == handlers
