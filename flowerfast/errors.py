"""The failures that users meet."""

import signal


class UserError(ValueError):
    """Wrong input: the message is one line that says what, where and what to do. Commands exit with 2."""


class RunFailed(RuntimeError):
    """The run cannot go on; the message is one line with the way out. Commands exit with 1."""


class Stopped(Exception):
    """A signal asked the run to stop; everything is saved. Commands exit with 128 + `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after saving")
        self.signum = signum


def one_line(error: BaseException) -> str:
    """What an exception says, as one line: the system's words for an OSError, else the first of its own."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
