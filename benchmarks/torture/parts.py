"""All trials, in the order of the page."""

from benchmarks.torture import cuts, flips
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [
        *cuts.TRIALS,
        *flips.TRIALS,
    ]
