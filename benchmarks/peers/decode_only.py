"""The wall: read and decode every JPEG whole, on as many threads as cores, and throw the pixels away."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from torchvision.datasets import ImageFolder

from benchmarks.peers import STEPS, Peer

TARGET = "benchmarks.peers.decode_only:epochs"
FACTS: dict[str, Any] = {
    "role": "limit",
    "leaves_out": tuple(step for step in STEPS if step not in ("decode", "shuffle")),
}
PEERS = (
    Peer(
        "decode only",
        TARGET,
        **FACTS,
        remark="libjpeg-turbo into reused memory; no loader that decodes whole JPEGs can be faster",
        options={"decoder": "simplejpeg"},
    ),
    Peer(
        "decode only by OpenCV",
        TARGET,
        **FACTS,
        packages=("cv2",),
        remark="into new memory",
        options={"decoder": "opencv"},
    ),
    Peer(
        "decode only by kornia-rs",
        TARGET,
        **FACTS,
        packages=("kornia_rs",),
        remark="into new memory; holds Python's lock meanwhile, so that threads take turns",
        options={"decoder": "kornia_rs"},
    ),
)
Decode = Callable[[bytes], np.ndarray]
"""A JPEG's bytes to uint8 (h, w, 3) RGB; each thread has its own."""


def simplejpeg_decoder() -> Decode:
    """libjpeg-turbo into memory that is used again for the next photo."""
    buffer = np.empty(0, np.uint8)

    def decode(encoded: bytes) -> np.ndarray:
        nonlocal buffer
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        if len(buffer) < height * width * 3:
            buffer = np.empty(height * width * 3, np.uint8)
        return simplejpeg.decode_jpeg(encoded, "RGB", buffer=buffer)

    return decode


def opencv_decoder() -> Decode:
    """cv2.imdecode; like the others it leaves photos as they are stored, whatever EXIF says of turning."""
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return lambda encoded: cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)


def kornia_rs_decoder() -> Decode:
    """kornia-rs's libjpeg-turbo."""
    from kornia_rs.io import ImageDecoder

    return ImageDecoder().decode


DECODERS = {"simplejpeg": simplejpeg_decoder, "opencv": opencv_decoder, "kornia_rs": kornia_rs_decoder}


def epochs(
    data: str, image_size: int, batch_size: int, cores: int, cache: str, decoder: str
) -> Iterator[Any]:
    """Batches of labels; the images are gone."""
    samples = ImageFolder(data).samples
    local = threading.local()

    def prepare() -> None:
        local.decode = DECODERS[decoder]()

    pool = ThreadPoolExecutor(cores, initializer=prepare)

    def decode(sample: tuple[str, int]) -> int:
        local.decode(Path(sample[0]).read_bytes())
        return sample[1]

    def epoch() -> Iterator[Any]:
        labels = list(pool.map(decode, random.sample(samples, len(samples))))
        for start in range(0, len(labels), batch_size):
            yield None, labels[start : start + batch_size]

    while True:
        yield epoch()
