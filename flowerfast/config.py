"""Every setting, its unit and its bounds.

The default of every setting lives here. Models are frozen; an unknown key is refused with the nearest known
one.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from flowerfast.documents import first_problem, shown
from flowerfast.errors import UserError
from flowerfast.nearest import hint

Share = Annotated[float, Field(ge=0, le=1)]
Backend = Literal["auto", "cpu", "dali-cpu", "dali"]
Exif = Literal["apply", "ignore"]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(_explain(error, type(self).__name__, type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for text or a number, and what no file or loop could hold."""
        if isinstance(value, bytes):
            raise ValueError("give text, not bytes")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds the character U+0000")
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = {kind, *get_args(kind)}
        if value == "" and str in kinds:
            raise ValueError("is empty; leave it out, or give a value")
        parts = [*value] if isinstance(value, list | tuple) else [value]
        if bool in map(type, parts) and {int, float} & kinds:
            raise ValueError("give a number, not true or false")
        if any(isinstance(part, int) and abs(part) >= 2**64 for part in parts):
            raise ValueError("that is too large a number")
        return value

    # For who calls the class: a section within a whole configuration is explained with its key (`validate`).
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class DataConfig(Section):
    """Where pixels come from and who decodes them."""

    path: str | None = None
    """Folder of class folders, of train/, val/, test/, or of packed shards; null: rendered flowers."""
    layout: Literal["auto", "split", "classes"] = "auto"
    """Folders named train, val, test: halves (split), or classes; auto: halves that hold class folders."""
    image_size: int = Field(default=224, ge=32, le=2048)
    """Side of the square training image, in pixels."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of each class held out for validation (ignored when DATA has val/)."""
    backend: Backend = "auto"
    """Who decodes and augments; auto: on a GPU the faster of dali and cpu (bench measures; else dali)."""
    workers: int = Field(default=0, ge=0, le=256)
    """CPU threads that decode and augment; 0: one per usable core."""
    kernels: Literal["auto", "numba", "torchvision"] = "auto"
    """Who runs the cpu backend's steps: numba (compiled), torchvision; auto: numba once it has compiled."""
    decode_scale: Literal["auto", "off"] = "off"
    """auto: the cpu backend decodes usual JPEGs at 1/2, 1/4 or 1/8 where the crop stays large enough."""
    prefetch: int = Field(default=3, ge=1, le=32)
    """Batches made ahead of the training step."""
    cache: Literal["auto", "none", "ram", "disk", "vram"] = "none"
    """Keep decoded photos in ram, on disk or on the GPU in vram; auto: in the first that has room for all."""
    cache_gb: float | None = Field(default=None, gt=0, le=1e9)
    """Most GB (1e9 bytes) of the cache, on disk of all its files; null: a third of what is free."""
    cache_dir: str | None = None
    """Folder in which `flowerfast-photos` holds the disk cache; null: `photos` in the user's cache folder."""
    cache_side: int = Field(default=320, ge=32, le=8192)
    """Short side of a cached photo, in pixels; smaller photos are kept as they are."""
    exif: Exif = "apply"
    """apply: photos are turned upright as their EXIF orientation says; ignore: taken as they are stored."""
    on_bad: Literal["skip", "fail"] = "skip"
    """A file that cannot be decoded is skipped, named and counted, or stops the run."""
    max_bad: Share = 0.05
    """With on_bad=skip, the share of bad files above which the run stops all the same."""
    max_pixels: int = Field(default=80_000_000, ge=1)
    """A photo of more pixels than this, or 1,000,000 along a side, counts as bad (guards memory)."""
    hw_decoder_load: Share | Literal["auto"] = "auto"
    """With decoder=gpu, share of JPEGs for its hardware decoder; auto: the best measured, else by GPU."""
    dali_prefetch: int = Field(default=2, ge=1, le=16)
    """Depth of DALI's own queue, in batches."""
    decoder: Literal["auto", "gpu", "cpu"] = "auto"
    """Where dali decodes on a CUDA machine: gpu (nvJPEG), or cpu (exactly as the reference); auto: cpu."""
    gpu_kernels: Literal["auto", "triton", "dali"] = "auto"
    """Who augments on the GPU: triton (exactly as the reference) or dali; auto: triton if a trial passes."""

    @field_validator("backend", mode="before")
    @classmethod
    def _older_name(cls, value: Any) -> Any:
        """`cpu` was called torchvision once."""
        return "cpu" if value == "torchvision" else value

    @field_validator("decode_scale", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """YAML 1.1 reads a bare off as a bool; users mean the word."""
        return "off" if value is False else value


class Augment(Section):
    """Distributions of the plan; the defaults are the reference recipe's; presets: augment=light, strong."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's share of the photo's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width / height."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    rotate: float = Field(default=15.0, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    brightness: Share = 0.2
    """Brightness factor is drawn from 1 ± this."""
    contrast: Share = 0.2
    """Contrast factor is drawn from 1 ± this."""
    translate: Share = 0.1
    """Largest shift either way, as a share of image_size."""
    vflip: Share = 0.0
    """Probability of a vertical flip."""
    saturation: Share = 0.0
    """Saturation factor is drawn from 1 ± this."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Hue is turned by ± this share of the colour circle at most."""
    grey: Share = 0.0
    """Probability that a picture loses its colours."""
    policy: Literal["none", "trivial", "rand"] = "none"
    """One operation of any strength (trivial: TrivialAugmentWide), or policy_ops of one (RandAugment)."""
    policy_ops: int = Field(default=2, ge=1, le=8)
    """With policy=rand, operations per picture."""
    policy_magnitude: int = Field(default=9, ge=0, le=30)
    """With policy=rand, strength of each, of 30."""
    blur: Share = 0.0
    """Probability of a Gaussian blur, sigma 0.1 to 2 pixels."""
    erase: Share = 0.0
    """Probability that a rectangle of 2 to 33 % of the picture is made black."""
    mixup: float = Field(default=0.0, ge=0, le=100)
    """MixUp: alpha of Beta(alpha, alpha), the distribution of the shares; 0: off, else 0.01 or more."""
    cutmix: float = Field(default=0.0, ge=0, le=100)
    """CutMix: the same for the area of a rectangle; with mixup as well, half of the pairs get either."""
    mix_prob: Share = 1.0
    """With mixup or cutmix, probability that two pictures are mixed."""

    @classmethod
    def preset(cls, name: str) -> "Augment":
        """Settings by name: none, paper, light or strong. Raises UserError."""
        return cls.model_validate(_with_preset({_PRESET: name}))

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        return _with_preset({_PRESET: given} if isinstance(given, str) else given)

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed with each other."""
        return max(self.mixup, self.cutmix) > 0 and self.mix_prob > 0

    def unmixed(self) -> "Augment":
        """The same without mixing, for pictures that keep their own label."""
        return self.model_copy(update={"mixup": 0.0, "cutmix": 0.0})

    @field_validator("mixup", "cutmix")
    @classmethod
    def _alpha(cls, value: float) -> float:
        if 0 < value < 0.01:
            raise ValueError("must be 0, or 0.01 or more")
        return value

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _range(cls, value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        cap = 1 if info.field_name == "crop_scale" else 100
        if not 0 < value[0] <= value[1] <= cap:
            raise ValueError(f"must be [low, high] with 0 < low <= high <= {cap}")
        return value


PRESETS: dict[str, dict[str, Any]] = {
    "none": {
        "crop_scale": (1.0, 1.0),
        "crop_ratio": (1.0, 1.0),
        "flip": 0.0,
        "rotate": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "translate": 0.0,
    },
    "paper": {},
    "light": {
        "crop_scale": (0.5, 1.0),
        "rotate": 0.0,
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0.1,
        "translate": 0.0,
    },
    "strong": {
        "crop_scale": (0.25, 1.0),
        "rotate": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "translate": 0.0,
        "policy": "trivial",
        "erase": 0.25,
        "mixup": 0.2,
        "cutmix": 1.0,
    },
}
"""What each preset of `Augment` changes of its defaults, which are those of `paper`."""
_PRESET = "preset"


def _with_preset(given: Any) -> Any:
    """The values with those of the preset that they name beneath. Raises UserError for one that is none."""
    if not isinstance(given, Mapping) or _PRESET not in given:
        return given
    name = given[_PRESET]
    if not isinstance(name, str) or name not in PRESETS:
        raise UserError(f"augment={shown(name)}: no such preset; give one of {', '.join(PRESETS)}")
    return PRESETS[name] | {key: value for key, value in given.items() if key != _PRESET}


class ModelConfig(Section):
    """The network: any timm model."""

    name: str = "resnet18"
    """timm model name, e.g. resnet18 or convnext_tiny; hf-hub:OWNER/NAME or local-dir:FOLDER of one."""
    pretrained: bool = True
    """Start from the hub's ImageNet weights (needs the network once); ignored when weights is set."""
    weights: str | None = None
    """Start from this local file (.safetensors, or .pth read with weights_only)."""
    parent: str | None = None
    """Run folder whose weights these are (--from sets it); same photos are split as they were there."""


class TrainConfig(Section):
    """Optimisation; the defaults are the reference recipe's."""

    epochs: int = Field(default=15, ge=1)
    """Passes over the training set."""
    batch_size: int = Field(default=32, ge=1)
    """Samples per step."""
    lr: float = Field(default=0.001, gt=0, le=1e38)
    """Learning rate of SGD (the peak for onecycle)."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=0.0, ge=0, le=1e38)
    """L2 penalty of SGD."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the cross-entropy in training."""
    schedule: Literal["step", "cosine", "onecycle", "constant"] = "step"
    """step: times gamma every step_size epochs; cosine: to 0 over the run; onecycle: per batch."""
    step_size: int = Field(default=7, ge=1)
    """Epochs between two drops of the step schedule."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of each drop of the step schedule."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better validation accuracy; null: never."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random: split, order, augmentation, new head."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: the CUDA GPU where there is one, else Apple's (mps) where torch has it."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: on for CUDA (bf16 where supported, else fp16), off on a CPU and on mps."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Memory format of the model; auto: on for CUDA."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the network: slower start, faster steps; auto: in long runs on a CUDA GPU."""

    @field_validator("amp", "channels_last", "compile", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """YAML 1.1 reads a bare on or off as a bool; users mean the word."""
        return ("off", "on")[value] if isinstance(value, bool) else value


class EvalConfig(Section):
    """How accuracy is measured."""

    augmented: bool = False
    """Validate on augmented images, as the paper did; false: resize and centre crop."""
    crop_pct: float | None = Field(default=0.875, gt=0, le=1)
    """image_size / short side of the resized photo; null: the model's own."""
    batch_size: int | None = Field(default=None, ge=1)
    """Samples per evaluation batch; null: train.batch_size."""


class CheckpointConfig(Section):
    """What is kept on disk."""

    keep: int | None = Field(default=3, ge=1)
    """Epoch weights kept, newest first; all or null: all. The best ones are in best/ in any case."""
    every_seconds: float = Field(default=300.0, ge=0)
    """Seconds between saves of last.pt within an epoch (0: every batch)."""
    on_full: Literal["stop", "continue"] = "stop"
    """A save that the disk has no room for: stop, or continue and try again at the next save."""

    @field_validator("keep", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return None if value == "all" else value


class LogConfig(Section):
    """Extra logs."""

    tensorboard: bool = False
    """Also write TensorBoard events to RUN/tensorboard."""
    nvtx: bool = False
    """Name the stages of each step for Nsight Systems (NVTX) and torch's profiler."""


class Config(Section):
    """The whole configuration of a run."""

    data: DataConfig = DataConfig()
    augment: Augment = Augment()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    def to_yaml(self) -> str:
        """YAML text that `load_config` reads back to an equal Config."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, e.g. `train.lr`."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from known_keys(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def validate(tree: Mapping[str, Any], origin: str) -> Config:
    """Config from a nested mapping; `origin` names it in errors."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error, origin)) from None


def _explain(error: ValidationError, origin: str, model: type[BaseModel] = Config) -> str:
    """One line for the first problem of a `model`: file, key, rule, value."""
    key, value, rule = first_problem(error)
    cause = error.errors()[0].get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return f"{origin}: {cause}"
    if error.errors()[0]["type"] == "extra_forbidden":
        if model is not Config:
            return f"{origin}: unknown argument {shown(key)}{hint(key, [*model.model_fields])}"
        sections = () if "." in key else Config.model_fields
        return f"{origin}: unknown key {shown(key)}{hint(key, [*known_keys(), *sections])}"
    field = ".".join(key.split(".")[: 2 if model is Config else 1])
    info = find_field(field) if model is Config else model.model_fields.get(field)
    about = _description(info)
    return f"{origin}: {field}={value}: {rule}{f' ({about})' if about else ''}"


@contextmanager
def speaking_of(arguments: Mapping[str, str]) -> Iterator[None]:
    """Within, errors speak of a function's arguments, given by key, and not of settings."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for key, argument in arguments.items():
            text = re.sub(rf"\b{re.escape(key)}\b", argument, text)
        raise UserError(text) from error


def find_field(key: str) -> FieldInfo | None:
    """The field of a dotted key; None when there is none."""
    section, _, name = key.partition(".")
    info = Config.model_fields.get(section)
    model = info.annotation if info else None
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_fields.get(name)
    return None


def _description(info: FieldInfo | None) -> str:
    return (info.description or "").rstrip(".") if info else ""


def describe_settings() -> Iterator[tuple[str, Any, str]]:
    """(key, default in types that JSON knows, meaning) of every setting."""
    defaults = Config().model_dump(mode="json")
    for key in known_keys():
        section, _, name = key.partition(".")
        yield key, defaults[section][name], _description(find_field(key))


def describe_sections() -> dict[str, str]:
    """What each section of settings is about, in their order."""
    return {name: info.annotation.__doc__ or "" for name, info in Config.model_fields.items()}
