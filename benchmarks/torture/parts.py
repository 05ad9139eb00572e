"""All trials, in the order of the page."""

from benchmarks.torture.full import FULL_DISKS
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [FULL_DISKS]
