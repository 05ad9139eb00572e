"""Settings: read, changed, and written back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowerfast.config import Config, known_keys
from flowerfast.errors import UserError
from flowerfast.settings import (
    change_config,
    config_folder,
    load_config,
    parse_overrides,
)
from tests.configs import write


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


OTHERWISE = [
    "data.path=/photos/Gänse blümchen: 1",
    "data.val_fraction=0.25",
    "data.cache=ram",
    "augment.crop_scale=[1e-2, 0.5]",
    "model.weights=a.safetensors",
    "train.lr=1e-5",
    "train.weight_decay=1e-20",
    "train.patience=4",
    "train.seed=9223372036854775807",
    "train.amp=off",
    "train.channels_last=on",
    "train.compile=on",
    "eval.crop_pct=null",
    "eval.batch_size=7",
    "checkpoints.keep=2",
    "checkpoints.on_full=continue",
    "log.tensorboard=true",
]


@pytest.mark.parametrize("overrides", [[], OTHERWISE], ids=["defaults", "all sections changed"])
def test_what_is_written_is_read_back_equal(tmp_path: Path, overrides: list[str]) -> None:
    config = load_config(overrides=overrides)
    again = load_config(write(tmp_path, config.to_yaml()))
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert sorted(key for key, _ in leaves(yaml.safe_load(config.to_yaml()))) == sorted(known_keys())


@pytest.mark.parametrize(
    "text", ["null", "on", "1e3", "2024-01-01", "123", "~", "a: b", "# x", " x ", "ß\U0001f337"]
)
def test_text_survives_yaml(tmp_path: Path, text: str) -> None:
    config = load_config(settings={"data.path": text, "model.name": text})
    assert config.data.path == config.model.name == text
    assert load_config(write(tmp_path, config.to_yaml())) == config


@pytest.mark.parametrize("name", ["paper", "cpu", "fast", "demo"])
def test_shipped_configs_load_by_name_and_by_path(name: str) -> None:
    assert load_config(name) == load_config(config_folder() / f"{name}.yaml")


def test_the_paper_config_is_the_reference_recipe() -> None:
    config = load_config("paper")
    changes = ("train.patience=5", "data.exif=ignore", "model.name=resnet18.tv_in1k", "eval.augmented=both")
    assert config == load_config(overrides=changes)  # all else is default
    train, augment, data = config.train, config.augment, config.data
    assert (train.epochs, train.batch_size, train.lr, train.momentum) == (15, 32, 0.001, 0.9)
    assert (train.schedule, train.step_size, train.gamma) == ("step", 7, 0.1)
    assert (augment.crop_scale, augment.crop_ratio) == ((0.08, 1), (3 / 4, 4 / 3))
    assert (augment.flip, augment.rotate, augment.translate) == (0.5, 15, 0.1)
    assert (augment.brightness, augment.contrast) == (0.2, 0.2)
    assert (data.image_size, data.val_fraction) == (224, 0.2)
    assert (config.model.name, config.model.pretrained) == ("resnet18.tv_in1k", True)
    assert (config.eval.augmented, config.eval.crop_pct, config.eval.best) == ("both", 0.875, "accuracy")


def test_the_demo_config_needs_no_network() -> None:
    assert not load_config("demo").model.pretrained


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.lr=1e-3", 0.001),
        ("train.lr=5E-2", 0.05),
        ("train.lr=1", 1.0),
        ("train.lr= 0.5 ", 0.5),
        (" train.lr =0.5", 0.5),
        ("train.batch_size=1e2", 100),
        ("train.patience=null", None),
        ("train.patience=3", 3),
        ("train.compile=true", "on"),
        ("train.compile=false", "off"),  # it was a bool once
        ("train.compile=on", "on"),
        ("train.compile=auto", "auto"),
        ("train.amp=off", "off"),
        ("train.channels_last=on", "on"),
        ("train.channels_last=off", "off"),
        ("augment.crop_scale=[0.5, 1]", (0.5, 1.0)),
        ("augment.crop_scale=[1e-1, 1]", (0.1, 1.0)),
        ("model.weights=a=b.pth", "a=b.pth"),
        ("data.path=2024-13-45", "2024-13-45"),
        ("data.path=[unclosed", "[unclosed"),
        ("data.path=2024", "2024"),
        ("data.path=2024-01-01", "2024-01-01"),
        ("data.path='2024'", "2024"),
        ("data.path=/photos #2/a: b", "/photos #2/a: b"),
        ("data.path=null", None),
        ("data.path=", None),
        ("data.label_separator= ", " "),
        ("data.label_separator=#", "#"),
        ("data.label_separator=!", "!"),
        ("data.label_separator=null", None),
        ("data.label_separator='~'", "~"),
        ("model.name=1e3", "1e3"),
        ("data.max_pixels=1000", 1000),
        ("data.backend=torchvision", "cpu"),  # its older name
        ("data.decode_scale=off", "off"),
        ("data.hw_decoder_load=0.3", 0.3),
        ("data.hw_decoder_load=auto", "auto"),
    ],
)
def test_set_reads_a_value_as_it_is_meant(override: str, value: Any) -> None:
    key = override.partition("=")[0].strip()
    got = dict(leaves(load_config("paper", [override]).model_dump()))[key]
    assert got == value
    assert type(got) is type(value)


def test_numbers_in_a_file_may_have_an_exponent(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "train:\n  lr: 1e-3\n  amp: off\n  channels_last: on\n"))
    assert (config.train.lr, config.train.amp, config.train.channels_last) == (0.001, "off", "on")


def test_later_sources_win(tmp_path: Path) -> None:
    file = write(tmp_path, "train: {lr: 0.1, epochs: 3, seed: 1}\n")
    config = load_config(file, ["train.lr=0.4"], {"train.lr": 0.2, "train.epochs": 5})
    assert (config.train.lr, config.train.epochs, config.train.seed) == (0.4, 5, 1)


def test_a_file_may_name_few_keys_or_none(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == load_config(write(tmp_path, "# nothing\n")) == Config()
    assert load_config(write(tmp_path, "train: {epochs: 3}\n")) == load_config(overrides=["train.epochs=3"])


def test_change_config_leaves_the_stored_one_alone() -> None:
    stored = load_config("demo")
    changed = change_config(stored, ["train.lr=0.5"], {"train.epochs": 2, "train.lr": 0.1})
    assert (changed.train.lr, changed.train.epochs) == (0.5, 2)
    assert stored == load_config("demo")
    assert (
        change_config(changed, [], {"train.lr": stored.train.lr, "train.epochs": stored.train.epochs})
        == stored
    )
    with pytest.raises(UserError, match=r"^settings: train\.lr=-1: input should be greater than 0"):
        change_config(stored, ["train.lr=-1"], {})


def test_a_file_of_ones_own_comes_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").write_text("train: {epochs: 1}\n")
    assert load_config("paper").train.epochs == 1


def test_overrides_are_parsed_alone_too() -> None:
    parsed = parse_overrides(["train.lr=1e-3", "data.path=2024", "train.lr= 0.001 ", "eval.crop_pct=null"])
    assert parsed == {"train.lr": 0.001, "data.path": "2024", "eval.crop_pct": None}
    with pytest.raises(UserError, match=r"^--set: unknown key 'lr'; did you mean 'train\.lr'\?"):
        parse_overrides(["lr=1"])
    assert parse_overrides(["train.lr=1", "train.lr=2"]) == {"train.lr": 2}


def test_the_default_of_every_setting_is_valid() -> None:
    defaults = dict(leaves(Config().model_dump()))
    for key, value in defaults.items():
        assert load_config(settings={key: value}) == Config(), key
