"""What people type first: short options, misspelt ones; refusals that come at once."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast import training
from flowerfast.commands import cli as module
from flowerfast.commands.usage import SHORT
from flowerfast.config import known_keys
from flowerfast.settings import load_config

Cli = Callable[..., tuple[int, str, str]]
TINY = ["--model", "test_resnet", "--image-size", 32, "--epochs", 1, "--batch-size", 8, "--seed", 3,
        "--device", "cpu", "--lr", 0.05, "--set", "model.pretrained=false"]  # fmt: skip


def test_short_options_are_settings(cli: Cli, photos: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", photos, *TINY, "--set", "train.lr=0.05", "--out", "run")
    assert (code, err) == (0, "")
    stored = load_config(tmp_path / "run/config.yaml")
    assert (stored.model.name, stored.data.image_size, stored.train.epochs) == ("test_resnet", 32, 1)
    assert (stored.train.batch_size, stored.train.seed, stored.train.device) == (8, 3, "cpu")
    assert stored.train.lr == 0.05
    # A resumed run may change what --set may: more epochs, and no other seed.
    code, _, err = cli("train", "--resume", "--out", "run", "--seed", 4)
    assert (code, err.startswith("flowerfast: error: train.seed=4: the run began with 3")) == (2, True)
    assert cli("train", "--resume", "--out", "run", "--epochs", 2)[0] == 0
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2


def test_every_short_option_is_one_of_train_and_names_a_setting(cli: Cli) -> None:
    assert set(SHORT.values()) <= set(known_keys())
    code, out, _ = cli("train", "--help")
    assert code == 0
    assert [option for option in SHORT if option not in out] == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train --batchsize 8", "use --batch-size"),
        ("train --learning-rate 0.1", "use --lr"),
        ("train --learning_rate 0.1", "use --lr"),
        ("train --bs 8", "use --batch-size"),
        ("train --epoch 8", "use --epochs"),
        ("train --imgsz 8", "use --image-size"),
        ("train --arch resnet18", "use --model"),
        ("train --workers 8", "use --set data.workers=..."),
        ("train --num-workers 8", "use --set data.workers=..."),
        ("train --momentum 0.8", "use --set train.momentum=..."),
        ("train --optimizer adam", "see flowerfast train --help"),
        ("train --mosaic 1", "see flowerfast train --help"),
        ("evaluate --batchsize 8", "use --batch-size"),
        ("evaluate --workers 8", "use --set data.workers=..."),
        ("synth --workers 8", "see flowerfast synth --help"),
        ("--verison", "use --version"),
        ("trian", "see flowerfast --help"),
        ("predict run", "see flowerfast predict --help"),
    ],
)
def test_a_wrong_option_gets_one_line_with_the_right_one(cli: Cli, typed: str, said: str) -> None:
    code, out, err = cli(*typed.split())
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"flowerfast: error: [^\n]+; {re.escape(said)}\n", err), err


def test_without_arguments_there_is_help(cli: Cli) -> None:
    code, out, err = cli()
    assert code == 2
    assert "Commands" in out + err


# ------------------------------------------------------------------------------------------------ refusals


def test_what_is_wrong_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    refused = [
        ["train", "nowhere"], ["train", "--set", "train.lrr=1"], ["train", "--epochs", "0"],
        ["train", "--config", "nowhere"], ["evaluate", "nowhere", "."], ["evaluate", ".", "nowhere"],
        ["predict", "nowhere", "."], ["predict", ".", "nowhere.jpg"], ["parity", "nowhere"],
        ["bench", "nowhere"], ["pack", "nowhere", "out"], ["settings", "mosaic"], ["train", "--bs", "3"],
    ]  # fmt: skip
    code = """
import json, sys
from flowerfast.commands.cli import run
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["flowerfast", *arguments]
    codes.append(run())
print(json.dumps([codes, [name for name in ("torch", "timm", "numba") if name in sys.modules]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(refused)], cwd=tmp_path, capture_output=True, text=True,
        check=True, env={**os.environ, "PYTHONPATH": str(Path(training.__file__).parents[2])},
    )  # fmt: skip
    assert json.loads(done.stdout) == [[2] * len(refused), []]
    assert len(done.stderr.splitlines()) == len(refused)


class Ended(BaseException):
    """In the place of the process's end."""


@pytest.mark.parametrize(("code", "ended"), [(0, "exit"), (2, "at once"), (1, "at once"), (130, "at once")])
def test_a_process_that_fails_does_not_take_itself_apart(
    monkeypatch: pytest.MonkeyPatch, code: int, ended: str
) -> None:
    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(module, "run", lambda: code)
    monkeypatch.setattr(module.os, "_exit", leave)
    with pytest.raises(SystemExit if ended == "exit" else Ended) as stopped:
        module.main()
    assert stopped.value.args == (code,)


def test_a_fault_of_ours_is_told_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise KeyError("a\x1b[2J")

    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(module, "run", fail)
    monkeypatch.setattr(module.os, "_exit", leave)
    with pytest.raises(Ended):
        module.main()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("KeyError: 'a\\x1b[2J")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP])
def test_a_path_that_cannot_be_used_is_one_line_wherever_it_is_met(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: Path) -> bool:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "is_dir", fail)
    code, _, said = cli("train", "photos")
    assert (code, len(said.splitlines())) == (2, 1)
    assert said.endswith(f"photos: {os.strerror(number)}; check that path and who may use it\n")


def test_a_rename_that_fails_names_the_place_and_not_the_temporary_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> bool:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), "out.json.partial", None, "out.json")

    monkeypatch.setattr(Path, "is_dir", fail)
    code, _, said = cli("train", "photos")
    assert (code, said.startswith("flowerfast: error: out.json: Is a directory; check that path")) == (
        2,
        True,
    )


def test_yaml_that_is_too_deep_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 3000)
    code, _, said = cli("train", "--config", "deep.yaml")
    assert (code, said.startswith("flowerfast: error: deep.yaml: not valid YAML")) == (2, True)
    assert cli("train", "--set", f"train.lr={'[' * 3000}")[0] == 2


def test_ctrl_c_while_the_command_is_being_imported_is_one_line() -> None:
    program = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
runpy.run_module("flowerfast", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "flowerfast: stopped by SIGINT\n")


def test_a_first_seekable_packing_says_that_it_compiles(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.kernels.place.is_compiled", lambda: False)
    assert "compiling the CPU loops" not in cli("pack", photos, "plain")[2]
    assert (
        "compiling the CPU loops for this machine, this once" in cli("pack", photos, "fast", "--seekable")[2]
    )
