"""Presets of the augmentation: by name in a file, in --set and in Python, with single settings on top."""

from pathlib import Path

import pytest
import yaml

import flowerfast as ff
from flowerfast.augment import PRESETS, Augment
from flowerfast.config import Config
from flowerfast.settings import change_config, load_config, refuse_unused
from tests.configs import write

OLD = {
    "crop_scale": [0.08, 1.0],
    "crop_ratio": [0.75, 4 / 3],
    "flip": 0.5,
    "rotate": 15.0,
    "brightness": 0.2,
    "contrast": 0.2,
    "translate": 0.1,
}
"""What a run folder of an earlier version holds."""


def augment(*overrides: str, base: Path | None = None, **settings: object) -> Augment:
    return load_config(base, overrides, settings).augment


def test_presets_by_name() -> None:
    assert Augment.preset("paper") == Augment()
    for name in PRESETS:
        assert augment(f"augment={name}") == Augment.preset(name) == Augment(preset=name)
        assert Config(augment=name).augment == Augment.preset(name)
        assert Augment.preset(name).mixes == (name == "strong")
    still = Augment.preset("none")
    ranges = (still.crop_scale, still.crop_ratio)
    assert ranges == ((1, 1), (1, 1))
    assert not any(
        value for key, value in still.model_dump().items() if type(value) is float and key != "mix_prob"
    )


def test_the_preset_comes_first_then_single_settings() -> None:
    expected = Augment.preset("light").model_copy(update={"rotate": 10.0})
    assert augment("augment=light", "augment.rotate=10") == expected
    assert augment("augment.rotate=10", "augment=light") == expected
    assert augment("augment=light", **{"augment.rotate": 10}) == Augment.preset("light")
    assert augment("augment.rotate=10", augment="light") == expected
    assert Augment(preset="light", rotate=10) == expected


@pytest.mark.parametrize("text", ["augment: light\n", "augment: {preset: light}\n"])
def test_a_file_may_name_one(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    assert augment(base=file) == Augment.preset("light")
    assert augment("augment.rotate=10", base=file).rotate == 10
    assert augment("augment.rotate=10", base=file).brightness == 0.1
    assert augment("augment=paper", base=file) == Augment()
    both = write(tmp_path, "augment: {rotate: 10, preset: strong}\n")
    assert augment(base=both) == Augment.preset("strong").model_copy(update={"rotate": 10.0})


def test_a_configuration_holds_values_and_not_the_name() -> None:
    config = load_config(None, ["augment=strong"])
    stored = yaml.safe_load(config.to_yaml())["augment"]
    assert "preset" not in stored
    assert (stored["policy"], stored["mixup"]) == ("trivial", 0.2)
    assert change_config(config, ["augment=light"], {}).augment == Augment.preset("light")
    assert change_config(config, ["augment.erase=0"], {}).augment.policy == "trivial"


def test_configurations_of_earlier_versions_mean_what_they_meant(tmp_path: Path) -> None:
    file = write(tmp_path, yaml.safe_dump({"augment": OLD}))
    assert augment(base=file) == Augment()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["augment=fierce"], "augment='fierce': no such preset; give one of none, paper, light, strong"),
        (["augment=3"], "augment=3: no such preset"),
        (["augment=null"], "augment=None: no such preset"),
        (["augment.hue=0.6"], "augment.hue=0.6: input should be less than or equal to 0.5"),
        (["augment.vflip=2"], "augment.vflip=2: input should be less than or equal to 1"),
        (["augment.saturation=-0.1"], "augment.saturation=-0.1: input should be greater than or equal to 0"),
        (["augment.grey=true"], "augment.grey=True: give a number, not true or false"),
        (["augment.policy=auto"], "augment.policy='auto': input should be 'none', 'trivial' or 'rand'"),
        (["augment.policy_ops=0"], "augment.policy_ops=0: input should be greater than or equal to 1"),
        (["augment.policy_ops=9"], "augment.policy_ops=9: input should be less than or equal to 8"),
        (["augment.policy_magnitude=31"], "augment.policy_magnitude=31: input should be less than or equal"),
        (["augment.mixup=0.001"], "augment.mixup=0.001: must be 0, or 0.01 or more"),
        (["augment.cutmix=101"], "augment.cutmix=101: input should be less than or equal to 100"),
        (["augment.mix_prob=.nan"], "augment.mix_prob=nan: "),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(ff.UserError) as caught:
        load_config(None, overrides)
    assert str(caught.value).startswith(f"settings: {line}")
    assert "\n" not in str(caught.value)


def test_python_refuses_in_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(ff.UserError, match=r"^augment='x': no such preset; give one of none, "):
        ff.Augment.preset("x")
    with pytest.raises(ff.UserError, match=r"^Augment: augment='x': no such preset"):
        ff.Augment(preset="x")
    with pytest.raises(ff.UserError, match=r"mine\.yaml: augment='x': no such preset"):
        load_config(write(tmp_path, "augment: x\n"))
    with pytest.raises(ff.UserError, match=r"--set: train is a section; give its settings by dotted keys"):
        load_config(None, ["train=3"])


def test_a_command_that_takes_the_section_takes_a_preset() -> None:
    refuse_unused(["augment=light"], "parity", ["augment."])
    with pytest.raises(ff.UserError, match=r"--set augment: bench does not use it"):
        refuse_unused(["augment=light"], "bench", ["data."])


def test_unmixed_keeps_the_rest() -> None:
    strong = Augment.preset("strong")
    assert strong.unmixed() == strong.model_copy(update={"mixup": 0, "cutmix": 0})
    assert not strong.unmixed().mixes
    assert not Augment(mixup=1, mix_prob=0).mixes
