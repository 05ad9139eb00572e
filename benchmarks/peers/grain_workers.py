"""Grain: a shuffled MapDataset, decoded and augmented by torchvision in Grain's worker processes."""

from itertools import islice, repeat
from typing import Any

import torch
from torchvision.datasets import ImageFolder

from benchmarks.peers import Peer
from benchmarks.peers.paper import recipe
from flowerfast.bench.rounds import Source

HELD = 4
"""Batches that each worker has ready after a pause, in its hand and in the queues behind it."""
PEERS = (Peer("Grain + torchvision", "benchmarks.peers.grain_workers:epochs", packages=("grain",)),)


def prepare(worker: int, workers: int) -> None:
    """What DataLoader does in its workers: one thread, and random numbers of their own."""
    torch.set_num_threads(1)
    torch.manual_seed(worker)


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str) -> Source:
    """Batches of float32 (n, 3, S, S) and int64 labels, as arrays in shared memory."""
    import grain

    folder = ImageFolder(data, recipe(image_size))

    def load(index: int) -> tuple[Any, int]:
        image, label = folder[index]
        return image.numpy(), label

    epoch = grain.MapDataset.range(len(folder)).seed(0).shuffle().map(load).batch(batch_size)
    # Repeated without end: workers stay from epoch to epoch, and each has an order of its own.
    batches = iter(
        epoch.repeat()
        .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=cores), worker_init_fn=prepare)
    )
    passes = (islice(batches, len(epoch)) for _ in repeat(None))
    return Source(passes, lead=HELD * cores, close=batches.close)
