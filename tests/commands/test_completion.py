"""What shells are told when a key is pressed, by the variables with which they ask."""

import json
import os
import subprocess
import sys

import pytest

from flowerfast.config import known_keys

ASK = """
import json, sys
sys.argv = ["flowerfast"]
from flowerfast.commands import cli
try:
    cli.run()
finally:
    heavy = [name for name in ("torch", "timm", "numba", "numpy") if name in sys.modules]
    print(json.dumps(heavy), file=sys.stderr)
"""


def complete(words: str, shell: str = "bash") -> list[str]:
    """What is offered for the last of the words; nothing heavy has been imported for it."""
    asked = {"_FLOWERFAST_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert json.loads(done.stderr) == []
    return done.stdout.split() if shell == "bash" else done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("flowerfast tr", ["train"]),
        ("flowerfast train --set train.lr", ["train.lr="]),
        ("flowerfast train --config c", ["cpu"]),
        ("flowerfast tune --config ", ["cpu", "demo", "fast", "paper"]),
        ("flowerfast train --out runs/", []),  # the shell offers files
        ("flowerfast scan ~/ph", []),
        ("flowerfast pack a b --format ", ["keep", "jpg"]),
        ("flowerfast train --qui", ["--quiet"]),
        ("flowerfast fetch f", ["flowers"]),
    ],
)
def test_bash(words: str, offered: list[str]) -> None:
    assert complete(words) == offered


def test_all_settings_with_their_meaning_for_shells_that_show_it() -> None:
    offered = [line.partition("\t") for line in complete("flowerfast evaluate --set ", "fish")]
    assert [key for key, _, _ in offered] == [f"{key}=" for key in known_keys()]
    assert {key: about for key, _, about in offered}["train.lr="].startswith("Learning rate")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_names_the_command(shell: str) -> None:
    asked = {"_FLOWERFAST_COMPLETE": f"source_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert "_FLOWERFAST_COMPLETE=complete_" in done.stdout
