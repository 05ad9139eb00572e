"""SIGINT and SIGTERM, as a command takes them."""

import signal
from typing import Any, Self


class StopSignals:
    """Turns SIGINT and SIGTERM into a flag that training reads between steps; a second one stops at once.

    In the main thread alone, as Python has it. Call it for the signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._old[signum] = signal.signal(signum, self._note)
        return self

    def __call__(self) -> int | None:
        return self.received

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not Python's own

    def _note(self, signum: int, _frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum
