"""Reading photos that the page cache does not hold: the first epoch on a machine that has just started."""

import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from flowerfast.data.manifest import Manifest

Figures = dict[str, Any]


def cold_read(manifest: Manifest, indices: Sequence[int], repeats: int) -> Figures:
    """Milliseconds per photo, read one after the other, with its content gone from the page cache.

    {"ms", "spread_ms", "images_per_sec"}, or {"not_measured": why}: the kernel is asked to let go of each
    file, and then whether it has; names and places of the files stay in its memory.
    """
    if manifest.shards is not None:
        return {"not_measured": "packed photos are mapped: the kernel keeps what is mapped"}
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return {"not_measured": "this system does not let a program drop files from its page cache"}
    taken = []
    for _ in range(repeats):
        kept = sum(not _dropped(os.path.join(manifest.root, manifest.path(index))) for index in indices)
        if kept > 0.05 * len(indices):
            return {"not_measured": f"the system kept {kept} of {len(indices)} files in its page cache"}
        started = time.perf_counter()
        for index in indices:
            manifest.read(index)
        taken.append(1000 * (time.perf_counter() - started) / len(indices))
    return figures(taken)


def _dropped(path: str) -> bool:
    """Ask for a file to be dropped from the page cache: whether its first byte is gone."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)
        finally:
            os.close(file)
    except BlockingIOError:  # it would have to be fetched from the disk
        return True
    except OSError:  # a file system that cannot say
        return False
    return False


def figures(taken: Sequence[float]) -> Figures:
    """Median of repeats in milliseconds per image, its spread (as in `measure.summary`) and the rate.

    The median is never below a microsecond, the least that is told apart here.
    """
    middle = statistics.median(taken)
    spread = 1.4826 * statistics.median(abs(ms - middle) for ms in taken)
    return {"ms": max(middle, 0.001), "spread_ms": spread, "images_per_sec": 1000 / max(middle, 0.001)}
