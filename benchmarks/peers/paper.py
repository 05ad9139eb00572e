"""The paper's recipe: ImageFolder and DataLoader, a worker process per core, floats from the CPU."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.peers import Peer

NAME = "paper's recipe"
TARGET = "benchmarks.peers.paper:epochs"
PEERS = (
    Peer(NAME, TARGET, role="paper"),
    Peer(f"{NAME} (256)", TARGET, photos="small"),
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def recipe(image_size: int) -> transforms.Compose:
    """The five augmentations on PIL images, then floats."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(brightness=0.2, contrast=0.2),
            transforms.RandomAffine(0, translate=(0.1, 0.1)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def epochs(
    data: str, image_size: int, batch_size: int, cores: int, cache: str = "", device: str = "cpu"
) -> Iterator[Any]:
    """Batches on `device`: float32 (n, 3, S, S)."""
    loader = DataLoader(
        ImageFolder(data, recipe(image_size)),
        batch_size,
        shuffle=True,
        num_workers=cores,
        pin_memory=device != "cpu",
        persistent_workers=True,
    )
    return repeat(loader) if device == "cpu" else ((_move(b, device) for b in loader) for _ in repeat(None))


def _move(batch: list[torch.Tensor], device: str) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.to(device, non_blocking=True) for tensor in batch)
