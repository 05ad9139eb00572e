"""The command line as a user meets it: usage, settings that commands take, and the small commands."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast import __version__
from flowerfast.photos.photos import Photos
from tests.commands.runs import load, sets

Cli = Callable[..., tuple[int, str, str]]


def test_usage_errors_exit_with_2(cli: Cli) -> None:
    assert cli("train", "--no-such-option")[0] == 2
    assert cli("no-such-command")[0] == 2
    assert cli("predict", "nowhere", "photo.jpg")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "key", "takes"),
    [
        (["evaluate", "RUN", "PHOTOS", "--set", "train.lr=1"], "train.lr", "data.workers, .*train.device"),
        (["evaluate", "RUN", "PHOTOS", "--set", "data.image_size=64"], "data.image_size", "data.workers"),
        (["evaluate", "RUN", "PHOTOS", "--set", "data.cache=ram"], "data.cache", "data.backend"),
        (["evaluate", "RUN", "PHOTOS", "--set", "train.batch_size=8"], "train.batch_size", "data.workers"),
        (["predict", "RUN", "PHOTOS", "--set", "data.image_size=64"], "data.image_size",
         "data.max_pixels, .*eval.image_size, .*train.device"),
        (["predict", "RUN", "PHOTOS", "--set", "data.on_bad=fail"], "data.on_bad", "data.max_pixels"),
        (["pack", "PHOTOS", "OUT", "--set", "train.epochs=3"], "train.epochs",
         "data.workers, data.on_bad, data.max_bad, data.max_pixels"),
        (["pack", "PHOTOS", "OUT", "--set", "data.path=x"], "data.path", "data.workers"),
        (["evaluate", "RUN", "PHOTOS", "--set", "data.exif=ignore"], "data.exif", "data.workers"),
        (["pack", "--verify", "OUT", "--set", "data.on_bad=fail"], "data.on_bad", "data.workers"),
        (["parity", "PHOTOS", "--set", "data.cache=ram"], "data.cache", r"augment\.\*, model\.name"),
        (["parity", "PHOTOS", "--set", "model.pretrained=false"], "model.pretrained", "model.name"),
    ],
)  # fmt: skip
def test_a_setting_that_a_command_would_ignore_is_refused(
    cli: Cli, trained: Any, tmp_path: Path, arguments: list[str], key: str, takes: str
) -> None:
    names = {"RUN": trained.run, "PHOTOS": trained.photos}
    code, out, err = cli(*(names.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    command = "pack --verify" if "--verify" in arguments else arguments[0]
    said = rf"--set {re.escape(key)}: {command} does not use it; it takes .*{takes}"
    assert re.fullmatch(rf"flowerfast: error: {said}.*\n", err)
    assert not (tmp_path / "OUT").exists()


PACKING = ["data.workers=1", "data.on_bad=fail", "data.max_bad=0.1", "data.max_pixels=10000"]
PACK = [*PACKING, "data.exif=ignore"]
PROTOCOL = ["eval.image_size=48", "eval.crop_pct=0.9", "eval.flip=true"]
READING = [*PACKING, "data.backend=cpu", "data.kernels=torchvision", "data.decode_scale=auto",
           "data.prefetch=1", "data.dali_prefetch=1", "train.device=cpu"]  # fmt: skip
COMPARING = [*READING, "data.path=PHOTOS", "data.exif=ignore", "data.image_size=32", "data.decoder=cpu",
             "data.hw_decoder_load=0.5", "augment.rotate=3", "augment.crop_scale=[0.5, 1]",
             "model.name=test_resnet", "eval.crop_pct=0.9", "train.batch_size=4", "train.seed=1"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [(["evaluate", "RUN", "PHOTOS"], [*READING, *PROTOCOL]), (["predict", "RUN", "PHOTOS"],
     ["data.max_pixels=10000", "train.device=cpu", *PROTOCOL]), (["pack", "PHOTOS", "OUT"], PACK),
     (["parity"], COMPARING)],
    ids=["evaluate", "predict", "pack", "parity"],
)  # fmt: skip
def test_settings_that_a_command_uses_are_taken(
    cli: Cli, trained: Any, arguments: list[str], settings: list[str]
) -> None:
    names = {"RUN": trained.run, "PHOTOS": trained.photos}
    given = [setting.replace("PHOTOS", str(trained.photos)) for setting in settings]
    code, _, err = cli(*(names.get(argument, argument) for argument in arguments), *sets(*given))
    assert (code, err) == (0, "")


@pytest.mark.parametrize("command", ["evaluate RUN URL", "parity URL", "pack URL again", "scan URL"])
def test_what_is_kept_of_a_url_has_a_place_and_a_bound(
    cli: Cli, trained: Any, tmp_path: Path, command: str
) -> None:
    cli("pack", trained.photos, "shards")
    shards = tmp_path / "shards"
    given = sets(f"data.cache_dir={tmp_path / 'kept'}", "data.cache_gb=0.01")
    names = {"RUN": trained.run, "URL": f"file://{shards}"}
    arguments = [names.get(word, word) for word in command.split()]
    assert cli(*arguments, *given)[0] == 0
    assert list((tmp_path / "kept/flowerfast-shards").rglob("*.tar"))
    code, _, err = cli(*(shards if word == names["URL"] else word for word in arguments), *given)
    assert (code, f"{arguments[0]} does not use it" in err) == (2, True)


def test_the_older_name_of_the_cpu_backend_is_taken(cli: Cli, trained: Any, tmp_path: Path) -> None:
    for backend in ("torchvision", "cpu"):
        assert cli("evaluate", trained.run, trained.photos, "--backend", backend, "--json", "e.json")[0] == 0
        assert load(tmp_path / "e.json")["backend"] == "cpu"


def test_a_current_folder_that_is_gone_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, out, err = cli("scan", ".")
    assert (code, out) == (2, "")
    assert err == "flowerfast: error: the current folder has been deleted; change to another one\n"


def test_version_and_settings(cli: Cli) -> None:
    assert cli("--version") == (0, f"flowerfast {__version__}\n", "")
    code, out, _ = cli("settings")
    assert code == 0
    assert "train.lr" in out
    assert "checkpoints.keep" in out


def test_synth_makes_a_folder_that_can_be_scanned(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("synth", "flowers", "--per-class", 2, "--seed", 3)
    assert code == 0
    assert "10 photos" in out
    photos = Photos(tmp_path / "flowers")
    assert photos.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert np.bincount(photos.labels).tolist() == [2] * 5
    assert cli("synth", "flowers", "--per-class", 3)[0] == 2
