"""SIGINT, SIGTERM and SIGHUP: noted or raised while it lasts, handled as before afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowerfast.commands import signals as module
from flowerfast.commands.signals import Interrupted, Interrupts, StopSignals
from flowerfast.packing.shard_writer import ShardWriter

Cli = Callable[..., tuple[int, str, str]]
ALL = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@pytest.fixture
def handlers() -> Iterator[list[object]]:
    """The handlers at the beginning: not the ones that Python starts with."""
    before = [signal.signal(signum, lambda *_: None) for signum in ALL]
    yield [signal.getsignal(signum) for signum in ALL]
    for signum, handler in zip(ALL, before, strict=True):
        signal.signal(signum, handler)


def current() -> list[object]:
    return [signal.getsignal(signum) for signum in ALL]


@pytest.mark.parametrize("signum", ALL)
def test_a_signal_is_noted_and_the_handlers_come_back(handlers: list[object], signum: signal.Signals) -> None:
    with StopSignals() as stop:
        assert current() != handlers
        assert stop() is None
        signal.raise_signal(signum)
        assert stop() == signum
    assert current() == handlers
    assert stop() == signum


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once_and_by_its_own_number(
    handlers: list[object], monkeypatch: pytest.MonkeyPatch, second: signal.Signals
) -> None:
    monkeypatch.setattr(module, "_ONE_REQUEST", 0.0)

    def interrupted() -> None:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop() == signal.SIGTERM
            signal.raise_signal(second)

    with pytest.raises(Interrupted, match=f"^stopped by {second.name}$") as caught:
        interrupted()
    assert caught.value.signum == second
    assert current() == handlers


@pytest.mark.parametrize("kind", [StopSignals, Interrupts])
def test_what_comes_twice_at_once_is_one_request(handlers: list[object], kind: type[Interrupts]) -> None:
    with kind() as stop:
        with suppress(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        for signum in (
            signal.SIGTERM,
            *ALL[2:],
            *ALL[2:],
        ):  # as `timeout` does, and shells whose terminal closes
            signal.raise_signal(signum)
        assert stop.received == signal.SIGTERM
    assert current() == handlers


@pytest.mark.parametrize("signum", ALL)
def test_elsewhere_a_signal_ends_the_command(handlers: list[object], signum: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, Interrupts():
        signal.raise_signal(signum)
    assert caught.value.signum == signum
    assert not isinstance(caught.value, Exception)
    assert current() == handlers


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_what_was_ignored_still_is(handlers: list[object]) -> None:
    for signum in ALL:
        signal.signal(signum, signal.SIG_IGN)
    with Interrupts() as stop:
        for signum in ALL:
            signal.raise_signal(signum)
        assert stop.received is None
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGHUP)  # of nohup
        assert stop() is None
        signal.raise_signal(signal.SIGINT)  # of a script that stops what it has put into the background
        assert stop() == signal.SIGINT


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_what_is_said_after_the_terminal_has_gone_is_no_error() -> None:
    code = (
        "import signal, sys\nfrom flowerfast.commands.signals import StopSignals\n"
        "with StopSignals() as stop:\n    print('ready', flush=True)\n"
        "    while stop() is None:\n        signal.pause()\n"
        "    print('saved', flush=True)\n    sys.stderr.write('stopped')\n    sys.stderr.flush()\n"
        "    sys.exit(128 + stop())\n"
    )
    process, terminal = pytest.importorskip("pty").fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129


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


@pytest.mark.parametrize("kind", [StopSignals, Interrupts])
def test_what_is_raised_where_nothing_can_be_comes_again(
    handlers: list[object], monkeypatch: pytest.MonkeyPatch, kind: type[Interrupts]
) -> None:
    monkeypatch.setattr(module, "_ONE_REQUEST", 0.0)

    class Last:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # the second ends StopSignals

    def interrupted() -> None:
        with kind():
            Last()
            time.sleep(5)

    hook, started = sys.unraisablehook, time.monotonic()
    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM$"):
        interrupted()
    assert time.monotonic() - started < 4
    assert sys.unraisablehook is hook
    assert current() == handlers


LATE = """
import atexit, os, signal, sys, time
from flowerfast.commands import cli

def late():
    print("late", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    print("on", flush=True)

if sys.argv[1] == "before":
    cli.run = lambda: late() or 0
else:
    cli.run = lambda: int(sys.argv[2])
    atexit.register(late)
cli.main()
"""


@pytest.mark.parametrize(
    ("when", "code", "ends_with", "said"),
    [("before", 0, 143, "flowerfast: stopped by SIGTERM\n"), ("after", 0, 0, "")],
)
def test_a_signal_after_the_work_ends_at_once(when: str, code: int, ends_with: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, when, str(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (ends_with, "late\n", said)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_other_commands_end_at_a_signal_with_one_line_and_nothing_half_written(
    cli: Cli, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    add, calls = ShardWriter.add, list[object]()

    def stopping(*given: Any) -> None:
        calls.append(given)
        if len(calls) == 3:
            signal.raise_signal(signum)
        add(*given)

    monkeypatch.setattr(ShardWriter, "add", stopping)
    said = f"flowerfast: stopped by {signum.name}\n"
    assert cli("pack", trained.photos, "out") == (128 + signum, "", said)
    assert not [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.tar")]
    assert cli("pack", trained.photos, "out")[0] == 0

    def row(_: object) -> None:
        signal.raise_signal(signum)

    monkeypatch.setattr("flowerfast.commands.answers._row", row)
    assert cli("predict", trained.run, trained.photos, "--json", "rows.json") == (128 + signum, "", said)
    assert not [*tmp_path.glob("rows.json*")]
