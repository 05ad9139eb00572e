"""All trials, in the order of the page."""

from benchmarks.torture.documents import DOCUMENTS
from benchmarks.torture.names import NAMES
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [
        NAMES,
        DOCUMENTS,
    ]
