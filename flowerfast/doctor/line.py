"""One thing that was looked at, and the boundary behind which it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from flowerfast.errors import one_line

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Line:
    """What was found.

    Attributes:
        name: what was looked at.
        state: ok; warn: it works, but slower or not for all; fail: it is broken, or stands idle.
        found: the facts, one line.
        mend: the command or step that mends it; empty where there is nothing to mend.
    """

    name: str
    state: State
    found: str
    mend: str = ""


def guarded(name: str, mend: str, check: Callable[[], Iterable[Line]]) -> list[Line]:
    """The lines of a check. One that raises ends with a line `name` that fails, to be mended by `mend`."""
    lines: list[Line] = []
    try:
        lines.extend(check())
    except Exception as error:  # whatever libraries, drivers and the system raise: that is what is asked for
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        lines.append(Line(name, "fail", f"{type(error).__name__}: {where}{one_line(error)}", mend))
    return lines


def told(problem: str) -> tuple[str, str]:
    """(what is wrong, what mends it) of a line that says both, with a semicolon between them."""
    what, _, remedy = problem.rpartition("; ")
    return (what, remedy) if what else (problem, "")
