"""What every loader yields."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from flowerfast.photos.photos import Photos
from flowerfast.plans.mixing import Mix
from flowerfast.plans.plan import Plan


@dataclass(eq=False)
class Batch:
    """N decoded samples; unpacks as `images, labels = batch`.

    Attributes:
        images: uint8 (N, 3, S, S), RGB, channels_last strides, on the training device.
        labels: int64 (N,), on the training device; where photos have several, float32 (N, classes), 1 for
            each that one has.
        indices: int64 (N,), sample indices into the folder, on the CPU.
        partner_labels: as `labels`, where samples are mixed: label of the sample that each is mixed with, its
            own where it is not. On the training device.
        weight: float32 (N,), there too: share of the sample's own label, 0 to 1; its partner's has the rest.
        mix: how the samples are to be mixed; None: not at all, or it is done.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    partner_labels: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    mix: Mix | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield self.images
        yield self.labels


def place_batch(images: torch.Tensor, photos: Photos, plan: Plan) -> Batch:
    """Batch of a plan's images, uint8 (n, S, S, 3), that are where it is wanted; its labels go there too."""
    labels = torch.from_numpy(photos.targets(plan.indices))
    if images.is_cuda:
        labels = labels.pin_memory().to(images.device, non_blocking=True)
    return Batch(images.permute(0, 3, 1, 2), labels, torch.from_numpy(plan.indices), mix=plan.mix)
