"""How photos are augmented: the distributions of a plan's random numbers, and presets of them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flowerfast.documents import shown
from flowerfast.errors import UserError
from flowerfast.section import Section, Share


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
