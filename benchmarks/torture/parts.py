"""All trials, in the order of the page."""

from benchmarks.torture import kills
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [kills.TRAIN_STRIKES, kills.PACK_KILLS, kills.CACHE_KILLS, kills.WRITERS]
