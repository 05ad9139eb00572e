"""Whom a command speaks to: people, people who want little of it (--quiet), or scripts (--log-json)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowerfast import __version__
from flowerfast.errors import RunFailed, UserError
from flowerfast.files import to_json
from flowerfast.ranks.who import started


class PipeClosed(Exception):
    """Whoever reads standard output, `head` perhaps, has enough."""


@contextmanager
def printing() -> Iterator[None]:
    """Within, standard output that takes no more is PipeClosed, or RunFailed in one line."""
    try:
        yield
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:
        raise RunFailed(
            f"standard output: cannot be written ({error.strerror}); mend that, then run it again"
        ) from error


@dataclass
class Speech:
    """How the command under way speaks.

    Attributes:
        is_quiet: nothing is said but warnings, errors and the line that tells the result.
        is_json: every event is a line of JSON on standard output, where nothing else is written.
    """

    is_quiet: bool = False
    is_json: bool = False


SPEECH = Speech()


def choose_speech(command: str, quiet: bool, log_json: bool, *files: Path | None) -> None:
    """Speak as --quiet and --log-json say, until `speak_plainly`; `files` are what the command is to write.

    Of several ranks the first alone tells events. Raises UserError where two things are to be on standard
    output.
    """
    if quiet and log_json:
        raise UserError("--quiet and --log-json: give one of them")
    if log_json and Path("-") in files:
        raise UserError("--log-json: its lines hold the result too; give no other output as -, name a file")
    SPEECH.is_quiet, SPEECH.is_json = quiet, log_json and started().is_first
    with suppress(PipeClosed, RunFailed):  # as in plain speech, whoever does not listen ends no training
        event("start", command=command, version=__version__)


def speak_plainly() -> None:
    """Speak to people again."""
    SPEECH.is_quiet = SPEECH.is_json = False


def event(name: str, **fields: Any) -> None:
    """Tell scripts: a line of JSON with the name, the time (UTC) and plain values.

    Raises PipeClosed or RunFailed where standard output takes no more.
    """
    if SPEECH.is_json:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with printing():
            sys.stdout.write(to_json({"event": name, "time": now, **fields}) + "\n")
            sys.stdout.flush()
