"""Photos that are the same: byte for byte, or nearly so by a perceptual hash and their tones.

The hash has a bit for each of the 64 lowest frequencies of the photo in grey, as in "Implementation and
benchmarking of perceptual image hash functions" (Zauner 2010). Who compares all pairs of 100,000 photos makes
5e9 comparisons. Instead: of two hashes that differ in at most `FARTHEST` bits, one of the four bands of 16
bits differs in at most one. So each photo is compared with those alone that share a band with it, but for a
bit (as in multi-index hashing, Norouzi et al. 2012).
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from flowerfast.machine import Progress

GRID = 32
"""Side of the grey picture, in pixels, that the hash is made of."""
TONES = (GRID // 2) ** 2
"""Values of the reduced picture by which pairs of like hashes are confirmed."""
FARTHEST = 7
"""Bits in which hashes may differ, at most, to be found."""
_LIKE = 0.85  # least correlation of the tones of two photos that are nearly the same
_BANDS, _WIDTH = 4, 16
_FREQUENCIES = 8
_CROWD = 256
"""Photos of one band that another is compared with at most: more alike than these only films are."""
_PAIRS = 1 << 20  # compared at a time
_ONES = np.array([number.bit_count() for number in range(1 << _WIDTH)], np.uint8)

_steps = np.arange(GRID)
_COSINES = np.cos(np.pi / (2 * GRID) * (2 * _steps[None] + 1) * _steps[:_FREQUENCIES, None])  # DCT-II
# The lowest frequencies first, and dealt out to the bands: each gets of the coarse and of the fine.
_DEALT = np.argsort(np.add.outer(np.arange(_FREQUENCIES), np.arange(_FREQUENCIES)).ravel(), kind="stable")
_DEALT = _DEALT.reshape(_WIDTH, _BANDS).T.ravel()


def perceptual_hash(grey: np.ndarray) -> int:
    """Hash of a picture, uint8 (GRID, GRID): 64 bits, which of its lowest frequencies are above their median.

    The mean, of which exposure decides, takes no part in the median.
    """
    waves = (_COSINES @ grey.astype(np.float64) @ _COSINES.T).ravel()
    bits = waves > np.median(waves[1:])
    return int.from_bytes(np.packbits(bits[_DEALT]).tobytes(), "big")


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ: uint64 (n,) each, to int64 (n,)."""
    words = np.bitwise_xor(one, other).view(np.uint16).reshape(-1, 64 // _WIDTH)
    counts: np.ndarray = _ONES[words].sum(axis=1, dtype=np.int64)
    return counts


def alike(tones: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether pairs of photos, int64 (n,) each, have the same tones but for brightness and contrast: bool."""
    first, second = (_standard(tones[rows]) for rows in (one, other))
    correlated: np.ndarray = (first * second).sum(axis=1) >= _LIKE
    return correlated


def _standard(tones: np.ndarray) -> np.ndarray:
    centred = tones.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return centred


def groups(
    digests: np.ndarray,
    hashes: np.ndarray,
    tones: np.ndarray,
    blank: np.ndarray,
    distance: int,
    progress: Progress | None = None,
) -> tuple[list[np.ndarray], bool]:
    """Photos that are the same, each int64 (m,), m > 1, ascending; and whether a crowd was not gone through.

    Args:
        digests: (n,), equal for equal files.
        hashes, tones: uint64 (n,), uint8 (n, TONES).
        blank: bool (n,), photos of which only equal files are the same: their hashes say nothing.
        distance: bits in which hashes may differ, 0 to `FARTHEST`.

    Who is like one of a group belongs to it, so its first and its last may differ by more than `distance`.
    """
    leaders = np.arange(len(digests))
    _, first, of = np.unique(digests, return_index=True, return_inverse=True)
    _join(leaders, np.arange(len(digests)), first[of.reshape(-1)])
    seen = np.sort(first)
    seen = seen[~blank[seen]]
    _, first, of = np.unique(hashes[seen], return_index=True, return_inverse=True)
    equal = seen, seen[first[of.reshape(-1)]]
    sure = alike(tones, *equal)
    _join(leaders, equal[0][sure], equal[1][sure])
    crowded = False
    # One for all of a hash and tones: copies by the thousand are compared once.
    chosen = np.union1d(seen[first], seen[~sure])
    for one, other, whole in _close(hashes[chosen], distance, progress):
        crowded |= not whole
        one, other = chosen[one], chosen[other]
        sure = alike(tones, one, other)
        _join(leaders, one[sure], other[sure])
    together = defaultdict(list)
    for row in range(len(leaders)):
        together[_leader(leaders, row)].append(row)
    return [np.array(rows) for rows in together.values() if len(rows) > 1], crowded


def _close(
    values: np.ndarray, distance: int, progress: Progress | None
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pairs of hashes, uint64 (n,), that differ in at most `distance` bits: places of both, int64 (m,) each,
    some pairs more than once; and whether all of their band were compared.
    """
    for band in range(_BANDS):
        keys = (values >> np.uint64(band * _WIDTH)).astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange((1 << _WIDTH) + 1))
        for turn, flipped in enumerate((0, *(1 << bit for bit in range(_WIDTH)))):
            wanted = (keys ^ np.uint16(flipped)).astype(np.int64)
            begin, many = starts[wanted], starts[wanted + 1] - starts[wanted]
            some = np.minimum(many, _CROWD)
            base = np.concatenate([[0], np.cumsum(some)])
            at = 0
            while at < len(values):
                until = max(int(np.searchsorted(base, base[at] + _PAIRS, "right")) - 1, at + 1)
                rows = np.repeat(np.arange(at, until), some[at:until])
                others = order[begin[rows] + np.arange(base[at], base[until]) - base[rows]]
                ahead = rows < others
                rows, others = rows[ahead], others[ahead]
                near = distances(values[rows], values[others]) <= distance
                yield rows[near], others[near], bool((many[at:until] <= _CROWD).all())
                at = until
            if progress:
                progress(band * (_WIDTH + 1) + turn + 1, _BANDS * (_WIDTH + 1))


def _join(leaders: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        first, second = sorted((_leader(leaders, a), _leader(leaders, b)))
        leaders[second] = first


def _leader(leaders: np.ndarray, row: int) -> int:
    while leaders[row] != row:
        leaders[row] = leaders[leaders[row]]
        row = int(leaders[row])
    return row
