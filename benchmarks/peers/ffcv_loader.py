"""ffcv: photos in a file of its own (.beton), numba code on threads."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer
from flowerfast.files import replacing

PEERS = tuple(
    Peer(
        f"ffcv {kind}" if photos == "full" else f"ffcv {kind} (256)",
        "benchmarks.peers.ffcv_loader:epochs",
        photos=photos,
        packages=("ffcv", "numba", "cv2"),
        leaves_out=(("decode",) if mode == "raw" else ()) + ("rotate", "normalise"),
        remark="pixels stored uncompressed" if mode == "raw" else "photos re-encoded at quality 90",
        options={"mode": mode},
    )
    for photos in ("full", "small")
    for mode, kind in (("jpg", "JPEG"), ("raw", "raw"))
)


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str, mode: str) -> Iterator[Any]:
    """Batches of uint8 (n, S, S, 3)."""
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        RandomBrightness,
        RandomContrast,
        RandomHorizontalFlip,
        RandomTranslate,
        ToTensor,
    )

    image = [
        RandomResizedCropRGBImageDecoder((image_size, image_size)),
        RandomHorizontalFlip(),
        RandomBrightness(0.2, p=1.0),
        RandomContrast(0.2, p=1.0),
        RandomTranslate(padding=int(0.1 * image_size)),
        ToTensor(),
    ]
    return repeat(
        Loader(
            str(written(data, Path(cache), mode)),
            batch_size=batch_size,
            num_workers=cores,
            order=OrderOption.RANDOM,
            os_cache=True,
            drop_last=False,
            pipelines={"image": image, "label": [IntDecoder(), ToTensor()]},
        )
    )


def written(data: str, cache: Path, mode: str) -> Path:
    """The .beton file of a folder, made on first use."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    file = cache / f"ffcv-{mode}.beton"
    if not file.exists():
        fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=90), "label": IntField()}
        with replacing(file) as fresh:
            DatasetWriter(str(fresh), fields, num_workers=1).from_indexed_dataset(ImageFolder(data))
    return file
