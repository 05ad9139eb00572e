"""Where the checks run and at what size: in full on a CUDA GPU, elsewhere small, as a rehearsal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

Kind = Literal["gpu", "cpu", "cache", "copied"]
"""How photos come to the graph: decoded by nvJPEG, by libjpeg-turbo, or decoded once and kept; or without it:
batches of the backend `cpu`, copied to the device."""
SEED = 1
_NEVER_SHRINK = 8192


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    image_size: int  # of batches, in pixels
    batch_size: int
    pictures: int  # in each of the sets `small` and `camera`
    many: int  # photos in the set of many sizes
    per_class: int  # rendered flowers of each of the five classes
    passes: int  # epochs drawn by each consumer of the stream check
    memory_epochs: int  # over which memory is watched
    growth_mib: float  # that memory may grow from the second quarter of them to the last
    steps: int  # of training that mixed precision is watched for
    train_size: int  # pixels, side of the images of whole training runs
    train_epochs: int  # of each run of the check of torch.compile
    accuracy: float  # below which such a run has learned nothing
    model: str  # that is trained


FULL = Sizes(224, 64, 512, 10_000, 120, 5, 50, 16.0, 50, 64, 14, 0.6, "resnet18")
REHEARSAL = Sizes(32, 4, 14, 14, 4, 2, 16, 4.0, 6, 32, 1, 0.0, "test_resnet")


@dataclass(frozen=True)
class Place:
    """The device, and the sizes that go with it."""

    device: torch.device
    sizes: Sizes

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device.type == "cuda"

    @property
    def backend(self) -> Literal["dali", "dali-cpu"]:
        """Who is under test."""
        return "dali" if self.cuda else "dali-cpu"

    def settings(self, kind: Kind, batch_size: int | None = None, **data: object) -> dict[str, Any]:
        """Arguments of `open_loader`, as JSON knows them; `data` are settings of that section."""
        memory = "vram" if self.cuda else "ram"
        return {
            "size": self.sizes.image_size,
            "batch_size": batch_size or self.sizes.batch_size,
            "seed": SEED,
            "device": str(self.device),
            "backend": "cpu" if kind == "copied" else self.backend,
            "cache": memory if kind == "cache" else "none",
            "data": {"decoder": "gpu" if kind == "gpu" else "cpu", "cache_side": _NEVER_SHRINK, **data},
        }


def open_photos(folder: Path | str, on_bad: Literal["skip", "fail"] = "skip") -> Photos:
    """Photos of which any number may be bad."""
    return Photos(folder, on_bad=on_bad, max_bad=1.0, min_classes=1)


def open_loader(photos: Photos, settings: dict[str, Any]) -> Loader:
    """A loader of random training batches."""
    given = {"augment": Augment(), **settings, "options": DataConfig(**settings["data"])}
    del given["data"]
    return Loader(photos, **given)
