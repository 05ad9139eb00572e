"""What every loader yields, and what every loader is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from flowerfast.config import AugmentConfig
from flowerfast.data.manifest import BadFile


@dataclass(frozen=True)
class Batch:
    """N decoded samples.

    Attributes:
        images: uint8 (N, 3, S, S), RGB, channels_last strides, on the training device.
        labels: int64 (N,), on the training device.
        indices: int64 (N,), sample indices into the manifest, on the CPU.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Recipe:
    """What a loader makes of its samples.

    Attributes:
        image_size: side of the output, in pixels.
        batch_size: samples per batch; the last batch of an epoch may be shorter.
        seed: seed of order and augmentation.
        augment: distributions of the random plan; None: the evaluation plan (resize, centre crop).
        shuffle: a new order each epoch; False: the order of `indices`.
        crop_pct: image_size / short side of the resized photo, for the evaluation plan.
    """

    image_size: int
    batch_size: int
    seed: int = 0
    augment: AugmentConfig | None = None
    shuffle: bool = False
    crop_pct: float = 0.875


class Loader(Protocol):
    """Batches of one set of samples, epoch by epoch.

    A file that cannot be decoded is left out of its batch (shorter then, at worst empty) and noted in
    `bad`, or raises UserError when the settings say so. Which samples share a batch, and their pixels,
    depend on nothing but (seed, epoch): not on workers, prefetch or where the epoch was entered.
    """

    @property
    def bad(self) -> dict[int, BadFile]:
        """Files left out so far, by sample index."""
        ...

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were chosen, one line each."""
        ...

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on; an abandoned iterator stops its workers."""
        ...

    def close(self) -> None:
        """Free threads, memory and device resources; may be called twice."""
        ...
