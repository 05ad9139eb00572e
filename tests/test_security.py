"""SECURITY.md: the floors that it speaks of stand, and the tests that it names are there."""

import re
import tomllib
from pathlib import Path

import pytest

from benchmarks.torture.parts import all_trials

ROOT = Path(__file__).resolve().parents[1]
LOWEST = {
    "torch": (2, 6),
    "timm": (1, 0, 26),
    "pillow": (11, 3),
    "pyyaml": (6, 0, 1),
    "safetensors": (0, 4, 5),
    "jinja2": (3, 1, 6),
}
"""A floor may rise, here too; to lower one is to bring back what it mends."""


def test_no_floor_is_lowered() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    given = dict(entry.split(">=") for entry in tomllib.loads(text)["project"]["dependencies"])
    floors = {name: tuple(map(int, version.split("."))) for name, version in given.items()}
    assert {name: floors[name] for name in LOWEST if floors[name] < LOWEST[name]} == {}
    assert set(re.findall(r'^    "(\w+)>=[\d.]+", # security: \w', text, re.MULTILINE)) == {*LOWEST}


PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted({*re.findall(r"`(tests/\S+\.py)`", PAGE)}))
def test_the_tests_that_are_named_are_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_trials_that_are_named_are_there() -> None:
    assert {*re.findall(r"trial `(\w+)`", PAGE)} <= {trial.name for trial in all_trials()}
