"""SIGINT, SIGTERM and SIGHUP, as a command takes them."""

import os
import signal
import sys
import threading
import time
from typing import Any, Self

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_ALL = tuple(signum for signum in (signal.SIGINT, signal.SIGTERM, _HANGUP) if signum is not None)
_AGAIN = 0.05  # seconds
_ONE_REQUEST = 0.5
"""Seconds in which the same signal is the same request: `timeout`, for one, sends it to the command and to
its group."""


class Interrupted(BaseException):
    """A signal ends the command, which saves nothing more. Commands exit with 128 + `signum`.

    No `Exception`: nothing takes it for a failure of its own work.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupts:
    """For as long as it lasts, a signal raises `Interrupted` in the main thread; a second one does so again.

    In the main thread alone, as Python has it. A signal that was ignored before (nohup) still is.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._old: dict[int, Any] = {}
        self._terminals: list[int] = []
        self._hook, self._again = sys.unraisablehook, False

    def __enter__(self) -> Self:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        for signum in _ALL:
            old = signal.getsignal(signum)
            if old is not signal.SIG_IGN or self._takes_ignored(signum):
                self._old[signum] = signal.signal(signum, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._hook
        for signum, handler in self._old.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not Python's own

    def _swallowed(self, unraisable: Any) -> None:
        """Have a signal come again that came while an object was taken down, where nothing can be raised."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._hook(unraisable)
            return
        self._again = True
        again = threading.Timer(_AGAIN, _wake, (unraisable.exc_value.signum,))
        again.daemon = True
        again.start()

    def _takes_ignored(self, signum: int) -> bool:
        return False

    def _first(self, signum: int) -> None:
        raise Interrupted(signum)

    def _take(self, signum: int, _frame: object) -> None:
        if signum == _HANGUP:
            self._leave_terminal()
        if self._again:
            self._again = False
            raise Interrupted(signum)
        if self.received is None:
            self.received, self._since = signum, time.monotonic()
            self._first(signum)
        elif signum != _HANGUP and (
            signum != self.received or time.monotonic() - self._since >= _ONE_REQUEST
        ):  # of a terminal that closes, the system and the shell tell
            raise Interrupted(signum)

    def _leave_terminal(self) -> None:
        """Where the terminal is gone, what is still said goes nowhere: it would be an error."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            if not os.isatty(stream):
                os.dup2(nowhere, stream)
        os.close(nowhere)


def _wake(signum: int) -> None:
    """Send a signal to the main thread, whatever it waits for."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signum)
    else:
        signal.raise_signal(signum)


class StopSignals(Interrupts):
    """Turns the first signal into a flag that training reads between steps; a second one stops at once.

    Call it for the signal that came, or None. SIGINT is taken though it was ignored, as scripts have it whose
    background commands are to be stopped so.
    """

    def __call__(self) -> int | None:
        return self.received

    def _takes_ignored(self, signum: int) -> bool:
        return signum != _HANGUP

    def _first(self, signum: int) -> None:
        pass


def end_at_once(code: int) -> None:
    """From here on, when all is done, a signal no longer waits for the interpreter to take itself apart."""
    for signum in _ALL:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda *_: os._exit(code))
