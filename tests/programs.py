"""Whether the programs that pages call take what they are called with, without calling them."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from torch.distributed.run import get_args_parser

from flowerfast.commands.cli import app
from flowerfast.commands.options import chosen_settings
from flowerfast.settings import load_config
from tests.pages import ROOT

OTHERS = ("cd", "pre-commit", "ruff", "mypy", "lint-imports", "mkdocs", "tensorboard")
MODULES = ("pytest", "venv", "mkdocs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def check(words: Sequence[str]) -> None:
    """Fail where a program has no such option, setting, target, script or extra."""
    words = [*words]
    while re.fullmatch(r"\w+=.*", words[0]):  # variables of the environment
        del words[0]
    program, rest = Path(words[0]).name, words[1:]
    match program:
        case "flowerfast":
            check_flowerfast(rest)
        case "torchrun":
            parsed = get_args_parser().parse_args(rest)
            assert (parsed.module, parsed.training_script) == (True, "flowerfast")
            check_flowerfast(parsed.training_script_args)
        case "srun":
            check_flowerfast(rest[rest.index("flowerfast") + 1 :])
        case "make":
            targets = re.findall(
                r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
            )
            assert rest
            assert set(rest) <= set(targets)
        case "pip":
            named = " ".join(rest)
            extras = [name.strip() for group in re.findall(r"\[(.*?)\]", named) for name in group.split(",")]
            assert rest[0] == "install"
            assert set(extras) <= set(PROJECT["optional-dependencies"])
        case "python" | "python3":
            check_python(rest)
        case _:
            assert program in OTHERS, program


def check_flowerfast(words: Sequence[str]) -> None:
    """Parse a command line by the program's own parser, and its settings by their own rules."""
    if words[0] in ("--help", "--version", "--install-completion", "--show-completion"):
        return
    group: Any = typer.main.get_command(app)
    parsed = group.commands[words[0]].make_context(words[0], [*words[1:]]).params
    given = {name: parsed.get(name) for name in ("epochs", "model", "lr", "batch_size", "image_size", "seed")}
    config = parsed.get("config")
    known = config is not None and (ROOT / "configs" / f"{config}.yaml").is_file()
    load_config(config if known else None, (), chosen_settings(parsed.get("set_"), **given))


def check_python(words: Sequence[str]) -> None:
    """A script is there, and every option that is given stands in it."""
    if words[0] == "-m":
        script = ROOT / words[1].replace(".", "/")
        assert (
            words[1] in ("pytest", "venv", "pip", "mkdocs")
            or script.is_dir()
            or script.with_suffix(".py").is_file()
        )
        return
    script = ROOT / words[0]
    if not script.is_file():
        assert words[0] == "answer.py"  # of docs/export.md, which says how it comes to be
        return
    options = {word for word in words if word.startswith("--")}
    assert [option for option in options if f'"{option}"' not in script.read_text(encoding="utf-8")] == []
