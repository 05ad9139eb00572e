"""A number per picture, computed where the pictures are, in the stream that is current."""

from collections.abc import Iterable

import numpy as np
import torch

_PERIOD = 251  # a prime: weights do not fall into step with rows or channels


def checksums(images: torch.Tensor) -> torch.Tensor:
    """int64 (n,) of uint8 (n, 3, S, S) pictures: sums of weighted pixels, so that their places count too.

    Does not wait for a GPU.
    """
    flat = images.permute(0, 2, 3, 1).flatten(1)
    weights = torch.arange(flat.shape[1], device=images.device) % _PERIOD + 1
    return (flat.long() * weights).sum(1)


def of_pixels(pixels: np.ndarray) -> np.ndarray:
    """The same of uint8 (n, S, S, 3), on the host."""
    found: np.ndarray = checksums(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    return found


def by_sample(drawn: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> dict[int, int]:
    """Checksum by sample index of (indices, checksums) pairs; of a sample that came twice, the last."""
    found: dict[int, int] = {}
    for indices, sums in drawn:
        found |= dict(zip(indices.tolist(), sums.tolist(), strict=True))
    return found


def differing(found: dict[int, int], expected: dict[int, int]) -> int:
    """Pictures that differ, are missing, or should not be there."""
    return sum(found.get(index) != expected.get(index) for index in {*found, *expected})
