"""What every loader yields."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flowerfast.photos.photos import Photos


@dataclass(eq=False)
class Batch:
    """N decoded samples; unpacks as `images, labels = batch`.

    Attributes:
        images: uint8 (N, 3, S, S), RGB, channels_last strides, on the training device.
        labels: int64 (N,), on the training device.
        indices: int64 (N,), sample indices into the folder, on the CPU.
        partner_labels: int64 (N,), labels of what is mixed into the samples, on the training device; None:
            nothing is.
        weight: float32 (N,), share of a sample's own label, the rest is the partner's; None with the labels.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    partner_labels: torch.Tensor | None = None
    weight: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield self.images
        yield self.labels


def place_batch(images: torch.Tensor, photos: Photos, indices: np.ndarray) -> Batch:
    """Batch of images, uint8 (n, S, S, 3), that are where it is wanted; its labels go there too."""
    labels = torch.from_numpy(photos.table.label[indices].astype(np.int64))
    if images.is_cuda:
        labels = labels.pin_memory().to(images.device, non_blocking=True)
    return Batch(images.permute(0, 3, 1, 2), labels, torch.from_numpy(indices))
