"""A promise, how it is tried, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MOST = "most "
"""Begins the names of figures of which the greatest counts; others are added up."""


@dataclass
class Tally:
    """What a range of cases gave: how many there were, what failed, and figures by name."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def fail(self, case: int, what: object) -> None:
        """Note a case that broke the promise."""
        self.failures.append(f"{case}: {what}")

    def count(self, name: str, number: float = 1) -> None:
        """Add to a figure, or let it grow to the number if its name begins with MOST."""
        before = self.figures.get(name, 0)
        self.figures[name] = max(before, number) if name.startswith(MOST) else before + number

    def add(self, other: "Tally") -> None:
        """Take in what another range gave."""
        self.tried += other.tried
        self.failures += other.failures
        for name, number in other.figures.items():
            self.count(name, number)


@dataclass(frozen=True)
class Trial:
    """One promise.

    Args:
        name: as people choose it, and as the results file names it.
        promise: one sentence.
        unit: what one case is, in the plural.
        run: tries the cases of a range of numbers in a folder of its own, in a process of its own.
        full: cases of a whole run.
        quick: cases of the quick part, which the tests try too: seconds.
        chunk: cases of one process.
        seconds: after so long a process has hung; all its cases failed.
    """

    name: str
    promise: str
    unit: str
    run: Callable[[range, Path], Tally]
    full: int
    quick: int
    chunk: int
    seconds: float = 600.0
