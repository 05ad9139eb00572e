"""Numbers to compare: of pictures, of memory, of losses and accuracies."""

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median

import numpy as np
import torch

from flowerfast.loaders.batch import Batch

Sums = dict[int, int]
"""Checksum of a picture by the sample's index."""
LOSS_APART = 0.03
"""Mean difference of losses from float32's, as a share of their mean, that mixed precision may make."""
LEARNED = 0.9
"""The last losses must be below this share of the first, or there was nothing to get wrong."""
_ENDS = 10  # losses that count as the first and the last
_PERIOD = 251  # a prime: weights do not fall into step with rows or channels


def checksums(images: torch.Tensor) -> torch.Tensor:
    """int64 (n,) of uint8 (n, 3, S, S) pictures: sums of weighted pixels, so that their places count too.

    Computed where the pictures are, in the stream that is current, without waiting for a GPU.
    """
    flat = images.permute(0, 2, 3, 1).flatten(1)
    weights = torch.arange(flat.shape[1], device=images.device) % _PERIOD + 1
    return (flat.long() * weights).sum(1)


def of_pixels(pixels: np.ndarray) -> np.ndarray:
    """The same of uint8 (n, S, S, 3), on the host."""
    found: np.ndarray = checksums(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    return found


def by_sample(drawn: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Sums:
    """Checksum by sample index of (indices, checksums) pairs; of a sample that came twice, the last."""
    found: Sums = {}
    for indices, sums in drawn:
        found |= dict(zip(indices.tolist(), sums.tolist(), strict=True))
    return found


def draw(batches: Iterator[Batch]) -> Sums:
    """Checksums of an epoch's pictures, one batch at a time."""
    return by_sample((batch.indices, checksums(batch.images).cpu()) for batch in batches)


def differing(found: Sums, expected: Sums) -> int:
    """Pictures that differ, are missing, or should not be there."""
    return sum(found.get(index) != expected.get(index) for index in {*found, *expected})


def growth(values: Sequence[float]) -> float:
    """Median of the last quarter less that of the second: pools and libraries fill in the first."""
    quarter = len(values) // 4
    return median(values[-quarter:]) - median(values[quarter : 2 * quarter])


def losses_apart(reference: Sequence[float], found: Sequence[float]) -> float:
    """Mean absolute difference of two runs' losses, as a share of the reference's mean."""
    return fmean(abs(a - b) for a, b in zip(reference, found, strict=True)) / fmean(reference)


def fell(losses: Sequence[float]) -> bool:
    """Whether a run has learned something."""
    return fmean(losses[-_ENDS:]) < LEARNED * fmean(losses[:_ENDS])


def spread(accuracy: float, photos: int) -> float:
    """Two standard errors of the difference of two accuracies about that value, each of so many photos."""
    sure = min(accuracy, 1 - 1 / photos)  # all right in both runs does not make one mistake an error
    return 2 * math.sqrt(2 * sure * (1 - sure) / photos)
