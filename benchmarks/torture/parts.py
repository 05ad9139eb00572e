"""All trials, in the order of the page."""

from benchmarks.torture import caches
from benchmarks.torture.formats import FORMATS, SHAPES
from benchmarks.torture.full import FULL_DISKS
from benchmarks.torture.soak import SOAK
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [SOAK, caches.DATA, caches.CODE, FORMATS, SHAPES, FULL_DISKS]
