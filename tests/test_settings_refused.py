"""What is no setting, no value, no config: refused with one line that says key, rule and value."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from flowerfast.config import Config, known_keys
from flowerfast.errors import UserError
from flowerfast.settings import (
    load_config,
    refuse_unused,
)
from tests.configs import write


def refusal(**arguments: Any) -> str:
    """The one line with which load_config refuses."""
    with pytest.raises(UserError) as caught:
        load_config(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


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
    assert line.startswith(f"settings: {said}")
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


def test_what_a_config_is_blamed_for_is_its_own(tmp_path: Path) -> None:
    both = {"train.class_weights": "balanced", "train.sampling": "balanced"}
    for base, settings, blamed in (("fast", both, "settings"), ("fast", {"train.lr": -1}, "settings")):
        with pytest.raises(UserError, match=rf"^{blamed}: train\."):
            load_config(base, (), settings)
    file = tmp_path / "both.yaml"
    file.write_text("train: {class_weights: balanced, sampling: balanced}")
    with pytest.raises(UserError, match=r"both.yaml: train\.sampling"):
        load_config(file, (), {"train.lr": 0.1})
    assert load_config(file, (), {"train.class_weights": "none"}).train.sampling == "balanced"


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
