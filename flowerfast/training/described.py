"""config.json of a network, as timm and a run's best/ have it: checked before anything is built from it."""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, field_validator, model_validator
from safetensors import safe_open
from torch import nn

from flowerfast.documents import conform, shown
from flowerfast.training.seal import read_sealed

MOST_CLASSES = 1_000_000
WEIGHTS = "model.safetensors"
_MOST_NUMBER = 4096  # of what a network is built with: widths, depths, sizes
_MOST_ITEMS = 256
_NOT_OURS = ("pretrained", "checkpoint", "cache", "scriptable", "exportable")
"""Begin the names of timm's own arguments, which say where weights come from; of a network none does."""

_Side = Annotated[int, Field(ge=1, le=_MOST_NUMBER)]
_Spreads = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=16)]
_Channels = Annotated[list[float], Field(min_length=1, max_length=16)]


class Preprocessing(BaseModel, extra="allow", allow_inf_nan=False):
    """`pretrained_cfg`: how photos are prepared; what else timm keeps there is its own."""

    input_size: tuple[Annotated[int, Field(ge=1, le=16)], _Side, _Side] = (3, 224, 224)
    crop_pct: float = Field(default=0.875, ge=0.01, le=1)
    mean: _Channels | None = None
    std: _Spreads | None = None

    @model_validator(mode="after")
    def _of_all_channels(self) -> "Preprocessing":
        counts = {self.input_size[0], *(len(each) for each in (self.mean, self.std) if each is not None)}
        if len(counts - {1}) > 1:
            raise ValueError("mean and std are not as many as input_size has channels")
        return self


class Described(BaseModel, extra="ignore", allow_inf_nan=False):
    """A network's config.json.

    Attributes:
        architecture: timm's name of it, no place where one lies.
        num_classes: outputs of its head.
        label_names: names of the classes, where they are known.
        label_descriptions: timm's longer names.
        pretrained_cfg: see `Preprocessing`.
        model_args: what the network is built with beside its defaults.
        exif: as its photos were read, see `DataConfig.exif`.
        flip: whether it was validated on mirror images too, see `EvalConfig.flip`.
        threshold: where its photos have several labels, see `EvalConfig.threshold`; None: they have one.
    """

    architecture: str = Field(pattern=r"^\w[\w-]*$", max_length=200)
    num_classes: int | None = Field(default=None, ge=0, le=MOST_CLASSES)
    label_names: tuple[str, ...] | None = Field(default=None, max_length=MOST_CLASSES)
    label_descriptions: dict[str, str] | None = None
    pretrained_cfg: Preprocessing
    model_args: dict[str, Any] = {}
    exif: str = "ignore"
    flip: bool = False
    threshold: float | None = Field(default=None, gt=0, lt=1)

    @field_validator("model_args")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        refused = [name for name in value if name.startswith(_NOT_OURS)]
        if refused:
            raise ValueError(f"{shown(refused[0])} is no argument of a network")
        _check_small(value)
        return value

    @model_validator(mode="after")
    def _as_many(self) -> "Described":
        counts = {self.num_classes, self.model_args.get("num_classes")}
        if self.label_names is not None:
            counts.add(len(self.label_names))
        if len(counts - {None}) > 1:
            raise ValueError("num_classes and label_names are not as many")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of a trained run. Raises ValueError for a network that is none."""
        missing = {"input_size", "crop_pct", "mean", "std"} - self.pretrained_cfg.model_fields_set
        if missing or not self.label_names:
            raise ValueError(f"config.json lacks {sorted(missing or {'label_names'})[0]}")
        return self.label_names

    @classmethod
    def read(cls, folder: Path) -> "Described":
        """That of a folder. Raises OSError, and ValueError in one line for what is none."""
        return conform(cls, read_sealed(folder / "config.json"))


def _check_small(value: Any, key: str = "") -> None:
    """Raise ValueError for what no network is built with, and would take all memory, or for ever."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict | list) and len(value) > _MOST_ITEMS:
        raise ValueError(f"more than {_MOST_ITEMS} arguments")
    for name, part in parts:
        _check_small(part, key or str(name))
    most = MOST_CLASSES if key == "num_classes" else _MOST_NUMBER
    if isinstance(value, int | float) and not -most <= value <= most:
        raise ValueError(f"{shown(key)} is {shown(value)}, more than {most:,}")


def check_shapes(network: nn.Module, weights: Path) -> None:
    """Compare a network, on the meta device, with a file of weights, of which only the header is read.

    So a description that asks for more memory than its weights fill is refused before any is taken.
    Raises ValueError, OSError and SafetensorError.
    """
    with safe_open(weights, "pt") as stored:
        names = stored.keys()
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in names}
    for name, tensor in network.state_dict().items():
        if shapes.pop(name, None) != tuple(tensor.shape):
            raise ValueError(f"{weights.name} does not fit the network, first at {shown(name)}")
    if shapes:
        raise ValueError(f"{weights.name} has {shown(next(iter(shapes)))}, which the network has not")


def on_meta(build: Any) -> nn.Module | None:
    """The network that a function builds, without memory for its weights; None: it cannot be built so."""
    try:
        with torch.device("meta"):
            network: nn.Module = build()
    except NotImplementedError:  # as of timm's networks that look at a value while they are built
        return None
    except RuntimeError as error:
        if "meta tensor" not in str(error).lower():
            raise
        return None
    return network
