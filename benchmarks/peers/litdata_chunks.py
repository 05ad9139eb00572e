"""LitData: the files in chunks of its own, streamed from a local folder, torchvision's transforms."""

import io
from collections.abc import Iterator
from itertools import repeat
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose

from benchmarks.peers import Peer, made_once
from benchmarks.peers.paper import recipe

PEERS = (
    Peer(
        "LitData + torchvision",
        "benchmarks.peers.litdata_chunks:epochs",
        packages=("litdata",),
        remark="order shuffled by chunks, and within windows of a chunk",
    ),
)


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str) -> Iterator[Any]:
    """Batches of float32 (n, 3, S, S)."""
    from litdata import StreamingDataLoader, StreamingDataset

    chunks = written(data, Path(cache), cores)
    samples = StreamingDataset(
        str(chunks),
        cache_dir=str(chunks),
        shuffle=True,
        drop_last=False,
        transform=Decode(recipe(image_size)),
    )
    return repeat(
        StreamingDataLoader(samples, batch_size=batch_size, num_workers=cores, persistent_workers=True)
    )


class Decode:
    """An entry of a chunk to (float32 (3, S, S), label)."""

    def __init__(self, recipe: Compose) -> None:
        self._recipe = recipe

    def __call__(self, entry: dict[str, Any]) -> Any:
        return self._recipe(Image.open(io.BytesIO(entry["jpeg"])).convert("RGB")), entry["label"]


def entry(sample: tuple[str, int]) -> dict[str, Any]:
    """What a chunk keeps of a photo: the file's bytes and its label."""
    return {"jpeg": Path(sample[0]).read_bytes(), "label": sample[1]}


def written(data: str, cache: Path, cores: int) -> Path:
    """Folder of chunks, made on first use."""
    from litdata import optimize

    def fill(folder: Path) -> None:
        optimize(
            entry,
            ImageFolder(data).samples,
            output_dir=str(folder),
            chunk_bytes="64MB",
            num_workers=cores,
            start_method=get_start_method(),  # else DataLoader's workers spawn from here on
            verbose=False,
        )

    return made_once(cache / f"litdata-{cores}", fill)
