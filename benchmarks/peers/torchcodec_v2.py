"""torchcodec's image decoder, then torchvision's v2 transforms on uint8 tensors, in DataLoader workers."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.peers import Peer
from benchmarks.peers.torchvision_v2 import recipe

PEERS = (
    Peer("torchcodec + torchvision v2", "benchmarks.peers.torchcodec_v2:epochs", packages=("torchcodec",)),
)


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str) -> Iterator[Any]:
    """Batches of float32 (n, 3, S, S)."""
    from torchcodec.decoders import decode_image  # a path to uint8 (3, h, w)

    folder = ImageFolder(data, recipe(image_size), loader=decode_image)
    return repeat(DataLoader(folder, batch_size, shuffle=True, num_workers=cores, persistent_workers=True))
