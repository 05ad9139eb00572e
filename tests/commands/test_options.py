"""One setting has one value, however it is given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.commands.options import chosen_settings
from flowerfast.errors import UserError

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lr", 0.1, "--set", "train.lr=0.2"], "--lr 0.1 and --set train.lr=0.2: which of the two?"),
        (["--backend", "cpu", "--set", "data.backend=dali"], "--backend cpu and --set data.backend=dali: "),
        (["--set", "data.path=elsewhere"], "photos and --set data.path=elsewhere: which of the two?"),
        (["--epochs", 0], "settings: train.epochs=0: input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_two_values_of_one_setting_are_refused(
    cli: Cli, photos: Path, arguments: list[Any], said: str
) -> None:
    code, _, err = cli("train", "photos", *arguments, "--out", "run")
    assert (code, err.startswith(f"flowerfast: error: {said}")) == (2, True), err


def test_the_one_value_of_a_key_given_twice_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = chosen_settings(["data.path=photos", "train.lr=1e-1"], Path("photos"), lr=0.1)
    assert chosen == {"data.path": str(tmp_path / "photos"), "train.lr": 0.1}
    with pytest.raises(UserError, match="--lr"):
        chosen_settings(["train.lr=1e-2"], lr=0.1)
