"""Every setting, its unit and its bounds.

The default of every setting lives here. Models are frozen; an unknown key is refused with the nearest known
one.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from flowerfast.augment import Augment
from flowerfast.documents import first_problem, shown
from flowerfast.errors import UserError
from flowerfast.nearest import hint
from flowerfast.places import url_of
from flowerfast.section import Section, Share, broken_rule, description, is_unknown

Backend = Literal["auto", "cpu", "dali-cpu", "dali"]
Exif = Literal["apply", "ignore"]


def _no_url(value: str | None) -> str | None:
    if value is not None and url_of(value) is not None:
        raise ValueError("is a URL; name a path on this machine")
    return value


_LocalPath = Annotated[str | None, AfterValidator(_no_url)]


class DataConfig(Section):
    """Where pixels come from and who decodes them."""

    path: str | None = None
    """Folder of class folders, of train/, val/, test/, or of tars; a table; a URL; null: rendered flowers."""
    layout: Literal["auto", "split", "classes"] = "auto"
    """Folders named train, val, test: halves (split), or classes; auto: halves that hold class folders."""
    classes: tuple[str, ...] | str | None = None
    """Classes to take, in this order: a list, names with commas, file with a name per line; null: all."""
    path_column: str | None = None
    """Column of a table with the photo's place; null: path, file, filename or image. Of tars its suffix."""
    label_column: str | None = None
    """Column of a table with what is on the photo; null: label, class, ... Of tars a suffix or JSON field."""
    label_separator: str | None = None
    """Text between the labels of a photo with several, in its cell; space, tab; null: one label a photo."""
    label_columns: tuple[str, ...] | str | None = None
    """Columns of 0 and 1, one per class, of photos with several labels: names, or *: all but the others."""
    split_column: str | None = None
    """Column of a table with train, val or test; null: split, fold or set; layout=classes: none."""
    image_size: int = Field(default=224, ge=32, le=2048)
    """Side of the square training image, in pixels."""
    order: Literal["random", "blocks-first", "blocks"] = "random"
    """random: an epoch shuffles all photos; blocks: shards, then within each; blocks-first: the first so."""
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
    """Most GB (1e9 bytes) of the cache, on disk of all files; of remote shards too; null: a third of free."""
    cache_dir: _LocalPath = None
    """Folder for flowerfast-photos (disk cache) and flowerfast-shards (of URLs); null: the user's cache."""
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

    @field_validator("classes", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML reads the names 0, 1, 2 as numbers."""
        if not isinstance(value, list | tuple):
            return value
        return [str(name) if type(name) is int else name for name in value]

    @field_validator("label_separator")
    @classmethod
    def _in_words(cls, value: str | None) -> str | None:
        """A space is hard to type as a value."""
        return {"space": " ", "tab": "\t"}.get(value or "", value)

    @field_validator("label_columns")
    @classmethod
    def _one_form(cls, value: Any, info: ValidationInfo) -> Any:
        named = [name for name in ("label_column", "label_separator") if info.data.get(name) is not None]
        names = value.split(",") if isinstance(value, str) else value
        if names is not None and not (names and all(name.strip() for name in names)):
            raise ValueError("names no column; leave it out, or name some")
        if value is not None and named:
            raise ValueError(f"a table has its labels in one column or in many; drop this or {named[0]}")
        return value

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


class ModelConfig(Section):
    """The network: any timm model."""

    name: str = "resnet18"
    """timm model name, e.g. resnet18 or convnext_tiny; hf-hub:OWNER/NAME or local-dir:FOLDER of one."""
    pretrained: bool = True
    """Start from the hub's ImageNet weights (needs the network once); ignored when weights is set."""
    weights: _LocalPath = None
    """Start from this local file (.safetensors, or .pth read with weights_only)."""
    parent: str | None = None
    """Run folder whose weights these are (--from sets it); same photos are split as they were there."""
    drop_rate: float | None = Field(default=None, ge=0, lt=1)
    """Dropout before the head, where the network has one; null: the network's own."""
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    """Stochastic depth: most that a block is left out, where the network has it; null: the network's own."""


class TrainConfig(Section):
    """Optimisation; the defaults are the reference recipe's. What each option is for: docs/training.md."""

    epochs: int = Field(default=15, ge=1)
    """Passes over the training set."""
    batch_size: int = Field(default=32, ge=1)
    """Samples per batch, of all ranks together (torchrun)."""
    accumulate: int = Field(default=1, ge=1, le=100_000)
    """Batches whose gradients make one step, as of one batch of all their samples."""
    optimizer: str = "sgd"
    """sgd: plain SGD with momentum; else one of timm's by name: nesterov, adamw, muon, lamb and others."""
    lr: float = Field(default=0.001, gt=0, le=1e38)
    """Learning rate (the peak of a warm-up and of onecycle)."""
    scale_lr: int | None = Field(default=None, ge=1)
    """lr is meant for so many samples a step, and scales with how many they are; null: lr as it is."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD, and of those other optimisers that take one."""
    weight_decay: float = Field(default=0.0, ge=0, le=1e38)
    """L2 penalty of SGD; of adamw and its like the decoupled weight decay."""
    decay_norms: bool = True
    """Weight decay on norms and biases too; false: on matrices and kernels alone, as timm has it."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Factor of the learning rate from a layer to the one before it; null: one rate for all."""
    head_lr: float = Field(default=1.0, gt=0, le=1e6)
    """Factor of the learning rate of the head, the last layer."""
    freeze: Annotated[int, Field(ge=0)] | Literal["backbone"] = 0
    """Epochs in which the head alone learns; backbone: in all. Frozen batch norms keep their statistics."""
    frozen_stages: int = Field(default=0, ge=0)
    """First stages of the network that never learn, the stem among them: steps are faster; 0: all learn."""
    clip_grad: float | None = Field(default=None, gt=0, le=1e38)
    """Most that the norm of a step's gradient, of all weights together, may be; null: no limit."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a running average of the weights, which then is validated and kept; null: none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the cross-entropy in training; of several labels a photo towards 0.5."""
    class_weights: Literal["none", "balanced"] = "none"
    """Loss of a sample: alike, or balanced: times samples / (classes x samples of its class)."""
    sampling: Literal["natural", "balanced"] = "natural"
    """An epoch has each sample once, or balanced: as many samples, of all classes equally many."""
    schedule: Literal["step", "cosine", "cosine-batch", "onecycle", "constant"] = "step"
    """step: times gamma every step_size epochs; cosine: to 0 over the run; -batch, onecycle: per step."""
    step_size: int = Field(default=7, ge=1)
    """Epochs between two drops of the step schedule."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of each drop of the step schedule."""
    warmup_epochs: float = Field(default=0.0, ge=0, le=1e6)
    """Epochs, or part of one, in which the learning rate rises from 0, by each step the same."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better validation (eval.best says by what); null: never."""
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

    @property
    def step_lr(self) -> float:
        """The learning rate of these steps, by the linear rule where `scale_lr` is set.

        Goyal et al., "Accurate, large minibatch SGD", 2017.
        """
        return self.lr * (self.batch_size * self.accumulate / self.scale_lr if self.scale_lr else 1)

    @field_validator("amp", "channels_last", "compile", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """YAML 1.1 reads a bare on or off as a bool; users mean the word."""
        return ("off", "on")[value] if isinstance(value, bool) else value

    @field_validator("sampling")
    @classmethod
    def _once(cls, value: str, info: ValidationInfo) -> str:
        if value == "balanced" == info.data.get("class_weights"):
            raise ValueError("with class_weights=balanced rare classes would count twice; choose one")
        return value

    @field_validator("warmup_epochs")
    @classmethod
    def _one_rise(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("schedule") == "onecycle":
            raise ValueError("onecycle rises by itself; leave it at 0")
        return value


class EvalConfig(Section):
    """How accuracy is measured."""

    augmented: Literal[False, True, "both"] = False
    """Validate on augmented images, as the paper did; false: on clean ones; both: best is by clean ones."""
    crop_pct: float | None = Field(default=0.875, gt=0, le=1)
    """image_size / short side of the resized photo; null: the model's own."""
    batch_size: int | None = Field(default=None, ge=1)
    """Samples per evaluation batch; null: train.batch_size."""
    image_size: int | None = Field(default=None, ge=32, le=2048)
    """Side of the square image in evaluation, in pixels; null: data.image_size."""
    flip: bool = False
    """Answer by the mean of the probabilities of an image and its mirror image: twice the forward passes."""
    best: Literal["accuracy", "macro_f1", "loss", "map"] = "accuracy"
    """What makes an epoch the best one, in validation; of several labels a photo accuracy becomes map."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Of several labels a photo, probability from which a label counts as given."""


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


def _explain(error: ValidationError, origin: str) -> str:
    """One line for the first problem of a configuration: file, key, value, rule."""
    key = first_problem(error)[0]
    if is_unknown(error):
        sections = () if "." in key else Config.model_fields
        return f"{origin}: unknown key {shown(key)}{hint(key, [*known_keys(), *sections])}"
    field = ".".join(key.split(".")[:2])
    return broken_rule(error, origin, field, find_field(field))


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


def describe_settings() -> Iterator[tuple[str, Any, str]]:
    """(key, default in types that JSON knows, meaning) of every setting."""
    defaults = Config().model_dump(mode="json")
    for key in known_keys():
        section, _, name = key.partition(".")
        yield key, defaults[section][name], description(find_field(key))


def describe_sections() -> dict[str, str]:
    """What each section of settings is about, in their order."""
    return {name: info.annotation.__doc__ or "" for name, info in Config.model_fields.items()}
