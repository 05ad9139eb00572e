"""Settings: read, changed, refused with one line that says key, rule and value, and written back."""

import itertools
import re
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
    refuse_unused,
)


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def refusal(**arguments: Any) -> str:
    """The one line with which load_config refuses."""
    with pytest.raises(UserError) as caught:
        load_config(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


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
    with pytest.raises(UserError, match=r"^config\.yaml: train\.lr=-1: input should be greater than 0"):
        change_config(stored, ["train.lr=-1"], {})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.learnrate", "train.gamma|train.lr"),
        ("train.lrr", "train.lr"),
        ("train.epoch", "train.epochs"),
        ("train.batchsize", "train.batch_size"),
        ("trian.lr", "train.lr"),
        ("model.lr", "train.lr"),
        ("data.imagesize", "data.image_size"),
        ("data.img_size", "data.image_size"),
        ("augment.crop_scales", "augment.crop_scale"),
        ("eval.augment", "eval.augmented"),
        ("checkpoint.keep", "checkpoints.keep"),
        ("train.learning_rate", "train.lr"),
        ("bs", "train.batch_size"),
        ("data.num_workers", "data.workers"),
        ("augment.hflip", "augment.flip"),
        ("augment.gray", "augment.grey"),
        ("wd", "train.weight_decay"),
        ("train.image_size", "data.image_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path, typed: str, meant: str) -> None:
    section, _, name = typed.partition(".")
    lines = [refusal(overrides=[f"{typed}=1"]), refusal(settings={typed: 1})]
    if section in Config.model_fields:
        lines.append(refusal(base=write(tmp_path, f"{section}:\n  {name}: 1\n")))
        assert lines[-1].startswith(str(tmp_path / "mine.yaml"))
    assert lines[0].startswith("--set: ")
    for line in lines:
        assert re.search(rf"unknown key '{re.escape(typed)}'; did you mean '({meant})'\?", line), line


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "train.lr"),
        ("batch_size", "train.batch_size"),
        ("epochs", "train.epochs"),
        ("rotate", "augment.rotate"),
    ],
)
def test_a_key_without_its_section_is_completed(tmp_path: Path, typed: str, meant: str) -> None:
    said = f"unknown key '{typed}'; did you mean '{meant}'?"
    assert said in refusal(overrides=[f"{typed}=1"])
    assert said in refusal(base=write(tmp_path, f"{typed}: 1\n"))


def test_a_misspelt_section_in_a_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert "unknown key 'trian'; did you mean 'train'?" in refusal(base=write(tmp_path, "trian:\n  lr: 1\n"))


@pytest.mark.parametrize(
    "key", ["zzzzqqq", "mosaic", "train.zzzzqqq", "data.mosaic", "augment.mosaic", "no.lrr.x"]
)
def test_a_key_like_no_other_is_refused_with_those_of_its_section(key: str) -> None:
    """Nothing misleads: what is not there is not something else."""
    line = refusal(overrides=[f"{key}=1"])
    assert line.startswith(f"--set: unknown key '{key}': not supported; ")
    assert line.endswith("`flowerfast settings` lists all")
    section = key.partition(".")[0]
    mates = ", ".join(known.partition(".")[2] for known in known_keys() if known.startswith(f"{section}."))
    assert (f"; {section} has {mates}; " in line) == bool(mates)


BAD = [
    ("train.lr=-1", "train.lr=-1: input should be greater than 0"),
    ("train.lr=0", "train.lr=0: input should be greater than 0"),
    ("train.lr=abc", "train.lr='abc': input should be a valid number"),
    ("train.lr=", "train.lr=None: input should be a valid number"),
    ("train.lr=[1]", "train.lr=[1]: input should be a valid number"),
    ("train.lr=nan", "train.lr=nan: input should be a finite number"),
    ("train.lr=.nan", "train.lr=nan: input should be a finite number"),
    ("train.lr=.inf", "train.lr=inf: input should be a finite number"),
    ("train.lr=1e999", "train.lr=inf: input should be a finite number"),
    ("train.epochs=0", "train.epochs=0: input should be greater than or equal to 1"),
    ("train.epochs=1.5", "train.epochs=1.5: input should be a valid integer"),
    ("data.hw_decoder_load=1.5", "data.hw_decoder_load=1.5: input should be less than or equal to 1"),
    ("train.epochs=null", "train.epochs=None: input should be a valid integer"),
    ("train.momentum=1", "train.momentum=1: input should be less than 1"),
    ("train.seed=-1", "train.seed=-1: input should be greater than or equal to 0"),
    (f"train.seed={2**63}", f"train.seed={2**63}: input should be less than {2**63}"),
    ("train.freeze=true", "train.freeze=True: give a number, not true or false"),
    ("train.ema=1", "train.ema=1: input should be less than 1"),
    ("data.hw_decoder_load=true", "data.hw_decoder_load=True: give a number, not true or false"),
    ("train.patience=0", "train.patience=0: input should be greater than or equal to 1"),
    ("train.amp=yes", "train.amp='on': input should be 'auto', 'off', 'bf16' or 'fp16'"),
    (
        "train.schedule=cos",
        "train.schedule='cos': input should be 'step', 'cosine', 'cosine-batch', 'onecycle' or 'constant'",
    ),
    ("data.image_size=31", "data.image_size=31: input should be greater than or equal to 32"),
    ("data.val_fraction=1", "data.val_fraction=1: input should be less than 1"),
    ("data.val_fraction=0", "data.val_fraction=0: input should be greater than 0"),
    ("data.backend=cuda", "data.backend='cuda': input should be 'auto', 'cpu', 'dali-cpu' or 'dali'"),
    (
        "augment.crop_scale=[1, 0.5]",
        "augment.crop_scale=[1, 0.5]: must be [low, high] with 0 < low <= high <= 1",
    ),
    ("augment.crop_scale=[0, 1]", "augment.crop_scale=[0, 1]: must be [low, high] with 0 < low <= high <= 1"),
    (
        "augment.crop_scale=[0.1, 2]",
        "augment.crop_scale=[0.1, 2]: must be [low, high] with 0 < low <= high <= 1",
    ),
    ("augment.crop_scale=[.nan, 1]", "augment.crop_scale=nan: input should be a finite number"),
    ("augment.crop_scale=0.5", "augment.crop_scale=0.5: input should be a valid tuple"),
    (
        "augment.crop_ratio=[4, 3]",
        "augment.crop_ratio=[4, 3]: must be [low, high] with 0 < low <= high <= 100",
    ),
    ("augment.flip=1.1", "augment.flip=1.1: input should be less than or equal to 1"),
    ("augment.rotate=181", "augment.rotate=181: input should be less than or equal to 180"),
    ("eval.crop_pct=0", "eval.crop_pct=0: input should be greater than 0"),
    ("checkpoints.keep=0", "checkpoints.keep=0: input should be greater than or equal to 1"),
    ("log.tensorboard=7", "log.tensorboard=7: input should be a valid boolean"),
]


@pytest.mark.parametrize(("override", "said"), BAD, ids=[override for override, _ in BAD])
def test_a_bad_value_is_refused_by_key_rule_and_value(tmp_path: Path, override: str, said: str) -> None:
    line = refusal(base="paper", overrides=[override]).replace(".0:", ":")
    assert line.startswith(f"paper: {said}")
    assert re.search(r" \([^()].*\)$", line)  # what the setting means
    if override.partition("=")[2] not in ("nan", "1e999"):
        section, name, value = re.split("[.=]", override, maxsplit=2)
        file = write(tmp_path, f"{section}:\n  {name}: {value}\n")
        assert refusal(base=file).startswith(f"{file}: {said}")


ALIASES = "train:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"  {n}: &{n} [{', '.join([f'*{b}'] * 10)}]\n" for b, n in itertools.pairwise("abcdefgh")
)
"""Ten times as many values in each line: 10 million in the last."""


@pytest.mark.parametrize("text", ["train.lr", "=3", ""])
def test_set_without_key_or_value_is_explained(text: str) -> None:
    assert refusal(overrides=[text]) == f"--set {text}: expected key=value, e.g. --set train.lr=0.01"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("train: 3\n", "train=3: input should be a valid dictionary"),
        ("train:\n", "train=None: input should be a valid dictionary"),
        ("- 1\n- 2\n", "expected sections such as `train:`, got list"),
        ("hello\n", "expected sections such as `train:`, got str"),
        ("3\n", "expected sections such as `train:`, got int"),
        ("1: 2\n", "keys should be strings"),
        ("train:\n  lr: [1\n", "not valid YAML"),
        ("train:\n\tlr: 1\n", "not valid YAML (line 2: "),
        ("a: b: c\n", "not valid YAML (line 1: "),
        ("train: !!python/object:os.system {}\n", "not valid YAML (line 1: "),
        ("train: {lr: !!int ''}\n", "not valid YAML (a value is not what its tag says)"),
        ("train: {lr: 1, lr: 2}\n", "not valid YAML (line 1: key 'lr' twice)"),
        ('data: {path: "a\\0"}\n', "not valid YAML (holds the character U+0000)"),
        (f"train: {{lr: 0x{'f' * 5000}}}\n", "not valid YAML (a number is too large)"),
        (f"train: {'[' * 3000}\n", "not valid YAML (line 1: nested deeper than 32 levels)"),
        (f"train: {'x' * 70_000}\n", "not valid YAML (larger than 65,536 bytes)"),
        (f"train: {{lr: {'x' * 60_000}}}\n", "xxx…: input should be a valid number"),
        (ALIASES, "not valid YAML (line 5: more than 10,000 values, aliases written out)"),
        ("train: &a {lr: *a}\n", "not valid YAML (line 1: an alias within what it stands for)"),
        ("data: {path: 2024-13-45}\n", "not valid YAML (month must be in 1..12)"),
        (b"train: \x00\n", "not valid YAML"),
        (b"train: \xff\n", "not valid YAML ('utf-8' codec"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: str | bytes, said: str) -> None:
    file = write(tmp_path, content)
    line = refusal(base=file)
    assert line.startswith(str(file))
    assert said in line


def test_a_section_that_is_none_cannot_be_set_into(tmp_path: Path) -> None:
    line = refusal(base=write(tmp_path, "train: 3\n"), overrides=["train.lr=1"])
    assert line == "train: expected a section of settings, got 3"


@pytest.mark.parametrize("base", ["papre", "nowhere/paper.yaml", "paper.yaml", "."])
def test_a_missing_file_is_refused_with_the_shipped_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(base=base)
    assert line.startswith(f"{base}: no such config file; give a YAML file or one of: cpu, demo")
    assert "paper" in line.rpartition(":")[2]


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


def test_a_setting_that_would_be_ignored_is_refused_with_those_that_are_not() -> None:
    used = ("data.workers", "augment.")
    refuse_unused(["data.workers=1", "augment.flip=0", "augment.rotate=0"], "parity", used)
    for text, key in (
        ("data.worker=1", None),
        ("train.lr=1", "train.lr"),
        ("data.on_bad=fail", "data.on_bad"),
    ):
        with pytest.raises(UserError) as caught:
            refuse_unused([text], "parity", used)
        said = "--set: unknown key 'data.worker'; did you mean 'data.workers'?"
        if key is not None:
            said = f"--set {key}: parity does not use it; it takes data.workers, augment.*"
        assert str(caught.value) == said


def test_the_default_of_every_setting_is_valid() -> None:
    defaults = dict(leaves(Config().model_dump()))
    for key, value in defaults.items():
        assert load_config(settings={key: value}) == Config(), key
