"""torchvision's v2 transforms on uint8 tensors, in DataLoader workers."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from benchmarks.peers import Peer
from benchmarks.peers.paper import MEAN, STD

PEERS = (Peer("torchvision v2 tensors", "benchmarks.peers.torchvision_v2:epochs"),)


def read(path: str) -> torch.Tensor:
    """A photo as uint8 (3, h, w)."""
    return decode_image(path, ImageReadMode.RGB)


def recipe(image_size: int) -> v2.Compose:
    """The five augmentations on uint8 tensors, then floats."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(image_size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
            v2.RandomAffine(0, translate=(0.1, 0.1)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str) -> Iterator[Any]:
    """Batches of float32 (n, 3, S, S)."""
    folder = ImageFolder(data, recipe(image_size), loader=read)
    return repeat(DataLoader(folder, batch_size, shuffle=True, num_workers=cores, persistent_workers=True))
