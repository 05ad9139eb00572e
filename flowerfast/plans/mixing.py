"""MixUp and CutMix as data: which samples of a batch are mixed, where, and in what shares.

Two neighbours in an epoch's order are partners. What becomes of them follows from (seed, epoch, their place
in the order) alone, so it hangs on no rank, worker or backend. Sources: Zhang et al., "mixup: Beyond
empirical risk minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019; timm's `Mixup` (mode `pair`), whose
boxes these are.
"""

from dataclasses import dataclass, fields

import numpy as np

from flowerfast.augment import Augment
from flowerfast.philox import stream_key, uniforms

WHOLE = 1 << 16
"""Weights of pixels are so many parts of a whole: whole numbers, so that all devices give the same."""
_BLOCKS = 11  # of four draws each per pair; 42 are used
_ATTEMPTS = 6  # one fails in 5 % of the cases at most
_GAMMA = 3 * _ATTEMPTS + 1  # draws per gamma variate


@dataclass(frozen=True)
class Mix:
    """How n samples are mixed, each with its partner; all arrays of length n, of pixels where not said.

    Within the box a pixel becomes (own * x + (WHOLE - own) * partner's x + WHOLE / 2) / WHOLE, rounded down;
    outside it stays. A sample whose partner is not there stays as it is.

    Attributes:
        pair: int64, the same number for two samples that are partners.
        own: int64, weight of the sample's own pixels within the box, in 1 / WHOLE.
        top, left, height, width: int64, the box; of MixUp the whole picture.
        share: float32, share of the sample's own label; its partner's has the rest.
    """

    pair: np.ndarray
    own: np.ndarray
    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    share: np.ndarray

    def select(self, rows: np.ndarray) -> "Mix":
        """Of some samples: `rows` are positions, int64 (m,), or a mask, bool (n,)."""
        return Mix(*(getattr(self, field.name)[rows] for field in fields(self)))

    def partners(self) -> np.ndarray:
        """Position of each sample's partner, int64 (n,); its own where that is not there."""
        order = np.argsort(self.pair, kind="stable")
        met = np.flatnonzero(self.pair[order][1:] == self.pair[order][:-1])
        first, second, partners = order[met], order[met + 1], np.arange(len(self.pair))
        partners[first], partners[second] = second, first
        return partners


def pairs(start: int, first: int, end: int) -> np.ndarray:
    """The pair of each sample from `first` to `end`, places in the order of an epoch, int64 (end - first,).

    Partners are the first and second sample of a batch, which begins at `start`, the third and fourth, and so
    on. A pair is called by the place of its first sample.
    """
    return start + (np.arange(first, end) - start) // 2 * 2


def part_of(held: int, rank: int, world_size: int, whole_pairs: bool) -> tuple[int, int]:
    """First sample and end of a rank's part of a batch of `held`, perhaps cut between pairs only."""
    unit = 2 if whole_pairs else 1
    units = -(-held // unit)
    first, end = (min(units * each // world_size * unit, held) for each in (rank, rank + 1))
    return first, end


def make_mix(seed: int, epoch: int, pair: np.ndarray, augment: Augment, size: int) -> Mix:
    """What becomes of samples of these pairs, int64 (n,), in an epoch; pictures have `size` pixels a side.

    Each pair is mixed with the probability `mix_prob`, where both kinds are on by either with 1/2.
    """
    u = uniforms(stream_key("mix", seed, epoch), pair, _BLOCKS)
    mixed = u[:, 0] < augment.mix_prob
    by_box = u[:, 1] < (0.5 if augment.mixup else 1.0) if augment.cutmix else np.zeros(len(u), bool)
    alpha = np.where(by_box, augment.cutmix, augment.mixup)
    share = _beta(alpha, u[:, 4 : 4 + _GAMMA], u[:, 4 + _GAMMA : 4 + 2 * _GAMMA])
    own = np.where(by_box, 0, np.rint(share * WHOLE)).astype(np.int64)
    side = (size * np.sqrt(1 - share)).astype(np.int64)
    top, height = _cut(np.floor(u[:, 2] * size).astype(np.int64), side, size)
    left, width = _cut(np.floor(u[:, 3] * size).astype(np.int64), side, size)
    top, left = np.where(by_box, top, 0), np.where(by_box, left, 0)
    height, width = np.where(by_box, height, size), np.where(by_box, width, size)
    own = np.where(mixed, own, WHOLE)
    kept = 1 - (WHOLE - own) * height * width / (WHOLE * size * size)
    return Mix(np.asarray(pair, np.int64), own, top, left, height, width, kept.astype(np.float32))


def _cut(centre: np.ndarray, length: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(start, length) of what is within the picture: timm's `rand_bbox`."""
    start, end = np.maximum(centre - length // 2, 0), np.minimum(centre + (length + 1) // 2, size)
    return start, end - start


def _beta(alpha: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Variates of Beta(alpha, alpha), float64 (n,), by two gamma variates of uniform draws, (n, _GAMMA) each.

    In logarithms, for with a small alpha both may be less than the smallest number.
    """
    apart = np.clip(_log_gamma(alpha, other) - _log_gamma(alpha, one), -700, 700)
    variates: np.ndarray = 1 / (1 + np.exp(apart))
    return variates


def _log_gamma(alpha: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Logarithms of variates of Gamma(alpha, 1).

    Source: Marsaglia and Tsang, "A simple method for generating gamma variables", 2000, for alpha + 1, and
    their step down to alpha. All attempts are made at once and the first that is accepted is taken; should
    none be, which happens once in 10^8 times, that is the last.
    """
    d = (alpha + 2 / 3)[:, None]
    tries = 1 - u[:, :-1].reshape(len(u), _ATTEMPTS, 3)  # in (0, 1]
    x = np.sqrt(-2 * np.log(tries[..., 0])) * np.cos(2 * np.pi * tries[..., 1])  # Box and Muller: normal
    cubed = np.maximum(1 + x / np.sqrt(9 * d), 1e-9) ** 3
    accepted = np.log(tries[..., 2]) < x * x / 2 + d - d * cubed + d * np.log(cubed)
    accepted[:, -1] = True
    taken = cubed[np.arange(len(u)), accepted.argmax(axis=1)]
    logarithms: np.ndarray = np.log(d[:, 0] * taken) + np.log(1 - u[:, -1]) / alpha
    return logarithms
