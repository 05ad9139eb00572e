"""All trials, in the order of the page."""

from benchmarks.torture.jpeg import MUTANTS, WRITTEN
from benchmarks.torture.jpeg_backends import BACKENDS
from benchmarks.torture.jpeg_bounds import BOUNDS
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [MUTANTS, WRITTEN, BACKENDS, BOUNDS]
