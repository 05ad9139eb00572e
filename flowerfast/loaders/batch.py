"""What every loader yields."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(eq=False)
class Batch:
    """N decoded samples; unpacks as `images, labels = batch`.

    Attributes:
        images: uint8 (N, 3, S, S), RGB, channels_last strides, on the training device.
        labels: int64 (N,), on the training device.
        indices: int64 (N,), sample indices into the folder, on the CPU.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield self.images
        yield self.labels
