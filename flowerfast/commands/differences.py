"""How far the pixels of two backends are apart, counted as they come, and how far they may be."""

from dataclasses import dataclass, field

import numpy as np
import torch

from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Plan
from flowerfast.training.trained import TrainedModel


@dataclass(frozen=True)
class Bounds:
    """Largest differences, in levels of 255, at which two backends count as equal, and where they hold."""

    mean: float = 0.5
    p99: float = 3.0
    steps: tuple[str, ...] = ("whole chain", "more operations", "evaluation")

    def hold(self, mean: float, p99: float) -> bool:
        """Whether differences of this mean and 99th percentile are small enough."""
        return mean <= self.mean and p99 <= self.p99


BOUNDS = Bounds()
"""The published bounds; nothing else in the project states them."""


@dataclass(frozen=True)
class Difference:
    """How far two backends are apart after one step, over all pixels of all samples.

    Attributes:
        step: one of `parity.STEPS`.
        samples: pictures compared.
        mean, p99, max: of the absolute difference, in levels of 255.
        worst_photo, worst_mean: the picture of the largest mean, and that mean.
        top1_differs: share of the samples whose most likely class differs; None without a model.
    """

    step: str
    samples: int
    mean: float
    p99: float
    max: int
    worst_photo: str
    worst_mean: float
    top1_differs: float | None = None


class Histogram:
    """Absolute differences of uint8 values, counted: exact statistics of any number of pixels in 2 KB."""

    def __init__(self) -> None:
        self.counts = np.zeros(256, np.int64)

    def add(self, tested: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Count the differences of two uint8 arrays of one shape; returns them, uint8."""
        apart: np.ndarray = np.maximum(tested, expected) - np.minimum(tested, expected)
        self.counts += np.bincount(apart.ravel(), minlength=256)
        return apart

    def mean(self) -> float:
        """Mean absolute difference."""
        return float(self.counts @ np.arange(256) / self.counts.sum())

    def percentile(self, q: float) -> float:
        """As `numpy.percentile` (linear interpolation) of all values, 0 <= q <= 100."""
        ends = np.cumsum(self.counts)
        rank = q / 100 * (int(ends[-1]) - 1)
        below = int(rank)
        low, high = np.searchsorted(ends, [below, min(below + 1, int(ends[-1]) - 1)], side="right").tolist()
        return float(low + (high - low) * (rank - below))

    def max(self) -> int:
        """Largest absolute difference."""
        return int(np.flatnonzero(self.counts)[-1])


@dataclass
class Tally:
    """The sums of one step; `trained` answers for both sides, where it is there."""

    trained: TrainedModel | None
    histogram: Histogram = field(default_factory=Histogram)
    samples: int = 0
    worst: tuple[float, int] = (-1.0, 0)  # mean, sample
    differ: int = 0

    def add(self, plan: Plan, tested: np.ndarray, expected: np.ndarray) -> None:
        """Count what both sides made of a plan: uint8 arrays of one shape."""
        apart = self.histogram.add(tested, expected)
        means = apart.reshape(len(plan), -1).mean(axis=1)
        row = int(means.argmax())
        self.worst = max(self.worst, (float(means[row]), int(plan.indices[row])))
        self.samples += len(plan)
        if self.trained is not None:
            self.differ += int((_top1(self.trained, tested) != _top1(self.trained, expected)).sum())

    def result(self, step: str, photos: Photos) -> Difference:
        """What all that was added comes to; there must be some."""
        h, share = self.histogram, self.differ / self.samples if self.trained is not None else None
        worst_mean, index = self.worst
        path, p99 = photos.path(index), h.percentile(99)
        return Difference(step, self.samples, h.mean(), p99, h.max(), path, worst_mean, share)


@torch.inference_mode()
def _top1(trained: TrainedModel, pixels: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(pixels).to(trained.device).permute(0, 3, 1, 2)
    best: np.ndarray = trained.model(images).argmax(1).cpu().numpy()
    return best
