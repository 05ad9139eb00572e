"""Where rows run, on which photos, how many of them; and the loaders that they look at."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.loaders import BadFiles, Choice, Recipe, make_loader
from flowerfast.parity import Executor

Kind = Literal["gpu", "cpu", "cache"]
"""How photos come to the graph: decoded by nvJPEG, by libjpeg-turbo, or decoded once and kept."""
KINDS: tuple[Kind, ...] = ("gpu", "cpu", "cache")
NO_NVJPEG = "nvJPEG, streams and memory of a GPU"
NO_STREAMS = "streams and memory of a GPU"
_NEVER_SHRINK = 8192
SEED = 1


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        name: of the preset.
        image_size, batch_size: of batches, in pixels and samples.
        pictures: in each of the sets `small` and `camera`.
        many: in the set of many sizes.
        per_class: rendered flowers of each of the five classes, for training.
        parity_samples: most photos compared with the reference.
        passes: epochs drawn by each consumer of the stream rows.
        memory_epochs: epochs over which memory is watched.
        growth_mib: most that memory may grow between the second and the last quarter of them, in MiB.
        steps: of training that mixed precision is watched for.
        train_size: pixels, side of the images that rows about training use.
        train_epochs: of each run of the compile row.
        accuracy: share of right answers below which a training run has learned nothing.
        model: timm model that is trained.
    """

    name: str
    image_size: int
    batch_size: int
    pictures: int
    many: int
    per_class: int
    parity_samples: int
    passes: int
    memory_epochs: int
    growth_mib: float
    steps: int
    train_size: int
    train_epochs: int
    accuracy: float
    model: str


FULL = Sizes("full", 224, 64, 512, 10_000, 120, 512, 5, 50, 16.0, 50, 64, 14, 0.6, "resnet18")
QUICK = Sizes("quick", 64, 8, 40, 200, 30, 40, 2, 50, 16.0, 50, 64, 8, 0.4, "resnet10t")
PRESETS = {sizes.name: sizes for sizes in (FULL, QUICK)}


@dataclass(frozen=True)
class Place:
    """The device, the folders of photos by name, and the sizes of everything.

    Attributes:
        device: cuda, or cpu for a rehearsal with DALI's CPU operators.
        sets: folders of class folders by name, see `pictures.py`.
        sizes: how much of everything.
        scratch: folder for what rows write.
        weights: file that training starts from instead of random weights.
    """

    device: str
    sets: dict[str, str]
    sizes: Sizes
    scratch: str
    weights: str | None = None

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Place":
        """The place that `to_json` described."""
        return cls(**{**tree, "sizes": Sizes(**tree["sizes"])})

    def to_json(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return asdict(self)

    @property
    def torch_device(self) -> torch.device:
        """With the index of a GPU."""
        return torch.device("cuda", torch.cuda.current_device()) if self.cuda else torch.device("cpu")

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"

    @property
    def backend(self) -> Literal["dali", "dali-cpu"]:
        """The executor under test."""
        return "dali" if self.cuda else "dali-cpu"

    def manifest(self, photos: str) -> Manifest:
        """Scan of one of the sets."""
        return load_manifest(Path(self.sets[photos]), min_classes=1)

    def data(self, kind: Kind, **changes: object) -> DataConfig:
        """Settings of a loader of that kind."""
        decoder = "gpu" if kind == "gpu" else "cpu"
        return DataConfig.model_validate({"decoder": decoder, "cache_side": _NEVER_SHRINK, **changes})

    def recipe(self, batch_size: int | None = None) -> Recipe:
        """Random training batches of the image size."""
        return Recipe(
            self.sizes.image_size, batch_size or self.sizes.batch_size, SEED, AugmentConfig(), shuffle=True
        )

    def open(self, photos: "str | Manifest", kind: Kind, task: "Task | None" = None) -> Executor:
        """Loader of all photos of a set."""
        task = task or Task()
        manifest = self.manifest(photos) if isinstance(photos, str) else photos
        memory = "vram" if self.cuda else "ram"
        choice = Choice(self.backend, "acceptance", memory if kind == "cache" else "none")
        made = make_loader(
            choice,
            manifest,
            np.arange(len(manifest)),
            self.recipe(task.batch_size),
            self.data(kind, **task.data),
            self.torch_device,
            BadFiles(manifest, task.on_bad, 1.0),
        )
        return cast(Executor, made)

    def unseen(self, kind: Kind) -> str:
        """What a rehearsal of a row with such a loader does not show."""
        if self.cuda:
            return ""
        return NO_NVJPEG if kind == "gpu" else NO_STREAMS


@dataclass(frozen=True)
class Task:
    """What one loader is opened for, beside its kind."""

    batch_size: int | None = None
    on_bad: Literal["skip", "fail"] = "skip"
    data: dict[str, Any] = field(default_factory=dict)
