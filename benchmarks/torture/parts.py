"""All trials, in the order of the page."""

from benchmarks.torture import caches, cuts, flips, kills
from benchmarks.torture.documents import DOCUMENTS
from benchmarks.torture.formats import FORMATS, SHAPES
from benchmarks.torture.full import FULL_DISKS
from benchmarks.torture.jpeg import MUTANTS, WRITTEN
from benchmarks.torture.jpeg_backends import BACKENDS
from benchmarks.torture.jpeg_bounds import BOUNDS
from benchmarks.torture.jpeg_coverage import COVERAGE
from benchmarks.torture.names import NAMES
from benchmarks.torture.ranks import RANK_KILLS
from benchmarks.torture.remote import REMOTE
from benchmarks.torture.soak import SOAK
from benchmarks.torture.trial import Trial


def all_trials() -> list[Trial]:
    """Every promise that is tried."""
    return [
        MUTANTS,
        WRITTEN,
        BACKENDS,
        BOUNDS,
        COVERAGE,
        FORMATS,
        SHAPES,
        DOCUMENTS,
        NAMES,
        caches.DATA,
        caches.CODE,
        *flips.TRIALS,
        *cuts.TRIALS,
        kills.TRAIN_STRIKES,
        kills.PACK_KILLS,
        kills.CACHE_KILLS,
        kills.WRITERS,
        RANK_KILLS,
        FULL_DISKS,
        REMOTE,
        SOAK,
    ]
