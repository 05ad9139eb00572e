"""The wall: read and decode every JPEG whole, on as many threads as cores, and throw the pixels away."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from torchvision.datasets import ImageFolder

from benchmarks.peers import STEPS, Peer

PEERS = (
    Peer(
        "decode only",
        "benchmarks.peers.decode_only:epochs",
        role="limit",
        leaves_out=tuple(step for step in STEPS if step not in ("decode", "shuffle")),
        remark="libjpeg-turbo into reused memory; no loader that decodes whole JPEGs can be faster",
    ),
)


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str) -> Iterator[Any]:
    """Batches of labels; the images are gone."""
    samples = ImageFolder(data).samples
    local, pool = threading.local(), ThreadPoolExecutor(cores)

    def decode(sample: tuple[str, int]) -> int:
        encoded = Path(sample[0]).read_bytes()
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        if len(getattr(local, "buffer", b"")) < height * width * 3:
            local.buffer = np.empty(height * width * 3, np.uint8)
        simplejpeg.decode_jpeg(encoded, "RGB", buffer=local.buffer)
        return sample[1]

    def epoch() -> Iterator[Any]:
        labels = list(pool.map(decode, random.sample(samples, len(samples))))
        for start in range(0, len(labels), batch_size):
            yield None, labels[start : start + batch_size]

    while True:
        yield epoch()
