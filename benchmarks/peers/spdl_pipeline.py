"""SPDL: a thread pipeline that decodes with FFmpeg, and crops, flips and rotates with FFmpeg's filters."""

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torchvision.datasets import ImageFolder

from benchmarks.peers import STEPS, Peer

TARGET = "benchmarks.peers.spdl_pipeline:epochs"
PACKAGES = ("spdl.io", "spdl.pipeline")
PEERS = (
    Peer(
        "SPDL with FFmpeg filters",
        TARGET,
        packages=PACKAGES,
        leaves_out=("jitter", "translate", "normalise"),
        remark="bicubic resize without antialias, linear rotation",
        options={"augment": True},
    ),
    Peer(
        "SPDL decode and resize",
        TARGET,
        role="limit",
        packages=PACKAGES,
        leaves_out=tuple(step for step in STEPS if step not in ("decode", "shuffle")),
        remark="no augmentation at all",
        options={"augment": False},
    ),
)


def epochs(
    data: str, image_size: int, batch_size: int, cores: int, cache: str, augment: bool
) -> Iterator[Any]:
    """Batches of uint8 (n, S, S, 3)."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    samples, pool = ImageFolder(data).samples, ThreadPoolExecutor(cores)

    def decode(sample: tuple[str, int]) -> Any:
        path, label = sample
        filters = random_filters(image_size) if augment else [f"scale={image_size}:{image_size}"]
        packets = spdl.io.demux_image(path)
        return spdl.io.decode_packets(packets, filter_desc=",".join([*filters, "format=rgb24"])), label

    def batch(samples: list[Any]) -> Any:
        frames, labels = zip(*samples, strict=True)
        return spdl.io.to_torch(spdl.io.convert_frames(list(frames))), labels

    def epoch() -> Iterator[Any]:
        pipeline = (
            PipelineBuilder()
            .add_source(random.sample(samples, len(samples)))
            .pipe(decode, executor=pool, concurrency=cores)
            .aggregate(batch_size)
            .pipe(batch, executor=pool)
            .add_sink(3)
            .build(num_threads=1)
        )
        with pipeline.auto_stop():
            yield from pipeline

    while True:
        yield epoch()


def random_filters(image_size: int) -> list[str]:
    """FFmpeg's filters for one photo: random resized crop, flip, rotation."""
    share, ratio = random.uniform(0.08, 1), math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    # Width and height of the photo are FFmpeg's own variables: nothing needs to be read beforehand.
    width, height = f"min(iw,sqrt({share * ratio}*iw*ih))", f"min(ih,sqrt({share / ratio}*iw*ih))"
    x, y = f"(iw-ow)*{random.random()}", f"(ih-oh)*{random.random()}"
    return [
        f"crop=w='{width}':h='{height}':x='{x}':y='{y}'",
        f"scale={image_size}:{image_size}",
        *(["hflip"] if random.random() < 0.5 else []),
        f"rotate=a={math.radians(random.uniform(-15, 15))}:c=black",
    ]
