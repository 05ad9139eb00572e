"""docs/training.md: its commands are what the program takes, and the settings that it names are there."""

import re
import shlex
from pathlib import Path

import pytest

from flowerfast.config import known_keys
from flowerfast.settings import load_config

PAGE = (Path(__file__).parents[1] / "docs/training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^flowerfast train .*", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_set_what_there_is(command: str) -> None:
    words = shlex.split(command)
    load_config(None, [words[place + 1] for place, word in enumerate(words) if word == "--set"])


def test_settings_are_there() -> None:
    named = set(re.findall(r"`((?:train|model)\.\w+)", PAGE))
    assert named <= {*known_keys()}
    assert len(named) > 12
