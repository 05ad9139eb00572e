"""Arguments of the Python API: what is none that could be meant is refused in one line."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import index
from pathlib import Path
from typing import Any

from flowerfast.documents import shown
from flowerfast.errors import RunFailed, UserError, one_line
from flowerfast.machine import Progress, ProgressBars
from flowerfast.places import url_of


def whole(name: str, value: Any, least: int, below: int = 2**63) -> int:
    """A whole number from `least` to `below` - 1, of Python or numpy. Raises UserError for anything else."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise UserError(f"{name}={shown(value)}: give a whole number")
    if not least <= number < below:
        raise UserError(f"{name}={shown(number)}: give a whole number from {least} to {below - 1}")
    return number


def path(name: str, value: Any) -> Path:
    """A path on this machine that the system could take, whether something is there or not.

    Raises UserError, for a URL too, of which pathlib makes a folder that is called as its scheme.
    """
    if (url := url_of(given := place(name, value))) is not None:
        raise UserError(f"{name}={url}: a URL; give a path on this machine")
    return given


def place(name: str, value: Any) -> Path:
    """A path as `path` has it, or a URL. Raises UserError."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        raise UserError(f"{name}={shown(value)}: give a path, as text or pathlib.Path")
    try:
        if not text:
            raise ValueError("an empty path")
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # said by whoever uses it
    except (OSError, ValueError) as error:
        raise UserError(f"{name}={shown(text)}: {one_line(error)}; give another path") from None
    url_of(text)  # text tells more than the path it becomes
    return Path(text)


def of_kind(name: str, value: Any, kind: Any, wanted: str) -> None:
    """Raise UserError unless a value is of a kind, as `isinstance` has it; `wanted` says what to give."""
    if not isinstance(value, kind):
        raise UserError(f"{name}={shown(value)}: give {wanted}")


def progress_bars(bars: ProgressBars) -> ProgressBars:
    """Progress bars that raise UserError where `bars`, or what it gives, makes none."""
    of_kind("bars", bars, Callable, "a function that makes progress bars")

    @contextmanager
    def make(title: str) -> Iterator[Progress | None]:
        made = bars(title)
        of_kind("bars: its result", made, AbstractContextManager, "a context manager, as nullcontext()")
        with made as bar:
            of_kind("bars: what it enters", bar, Callable | None, "a function (done, total), or None")
            yield bar

    return make


def signal_asked(stop: Any) -> Callable[[], int | None]:
    """The function `stop`, which raises RunFailed when it gives neither the number of a signal nor None.

    Raises UserError when it is no function.
    """
    of_kind("stop: what it enters", stop, Callable, "a function that gives the number of a signal, or None")

    def ask() -> int | None:
        given = stop()
        if given is None or (given in [*signal.Signals] and not isinstance(given, bool)):
            return given
        wanted = "the number of a signal, as signal.SIGTERM, or None"
        raise RunFailed(f"stop: its function gave {shown(given)}; let it give {wanted}")

    return ask
