"""Headers of many files at once: of usual JPEGs by a compiled loop on all cores, of the rest one by one."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np

from flowerfast.kernels import numba_problem
from flowerfast.machine import Progress, usable_cores
from flowerfast.photos.listing import Listing
from flowerfast.photos.workers import Workers, in_order

MANY = 50_000
"""Files from which on it pays to load the compiler: Pillow takes seconds for so many."""
_CHUNK = 512  # files per task
_MOST_BYTES = 256 << 20  # of a file that no limit of `header.check_bytes` refuses


def read_heads(root: Path, listing: Listing, progress: Progress | None) -> np.ndarray:
    """Width, height and orientation of files, int32 (n, 3); zeros where Pillow must look."""
    heads = np.zeros((len(listing), 3), np.int32)
    if len(listing) < MANY or os.name != "posix" or numba_problem() is not None:
        return heads
    from flowerfast.kernels.heads import read_heads as read

    folder = np.frombuffer(os.fsencode(root) + b"/", np.uint8)
    paths = [array.view() for array in (listing.path_bytes, listing.path_ends)]
    for array in paths:
        array.flags.writeable = False  # one type of all, compiled once
    rows = np.flatnonzero(listing.named & (listing.size <= _MOST_BYTES))

    def look(some: np.ndarray) -> np.ndarray:
        found: np.ndarray = read(folder, *paths, some, listing.size[some])
        return found

    threads, done = usable_cores(), 0
    pieces = [rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK)]
    with closing(Workers(threads, "flowerfast-heads")) as pool:
        for piece, found in zip(pieces, in_order(pool, look, pieces, 2 * threads, listing.path), strict=True):
            heads[piece] = found
            done += len(piece)
            if progress:
                progress(done, len(listing))
    return heads
