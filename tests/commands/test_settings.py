"""Settings as they are listed: by section, or those that speak of a word."""

import json
import re
from collections.abc import Callable

from flowerfast.config import describe_settings, known_keys

Cli = Callable[..., tuple[int, str, str]]


def test_settings_are_grouped(cli: Cli) -> None:
    code, out, err = cli("settings")
    assert (code, err) == (0, "")
    sections = [line.partition(":")[0] for line in out.splitlines() if re.match(r"\w+: ", line)]
    assert sections == ["data", "augment", "model", "train", "eval", "checkpoints", "log"]
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == [*known_keys()]
    assert re.search(r"train\.lr +0\.001 +Learning rate", out)


def test_settings_of_a_word(cli: Cli) -> None:
    code, out, _ = cli("settings", "lr")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == [
        "train.lr",
        "train.scale_lr",
        "train.head_lr",
    ]
    _, out, _ = cli("settings", "Crop", "epochs", "--json", "-")
    rows = json.loads(out)
    assert {"augment.crop_scale", "eval.crop_pct", "train.epochs"} <= {row["key"] for row in rows}
    known = {key: (default, meaning) for key, default, meaning in describe_settings()}
    assert all((row["default"], row["meaning"]) == known[row["key"]] for row in rows)
    code, out, err = cli("settings", "learning_rate")
    assert (code, out) == (2, "")
    assert (
        err
        == "flowerfast: error: settings learning_rate: no setting speaks of that; did you mean 'train.lr'?\n"
    )
    assert "`flowerfast settings` lists all" in cli("settings", "mosaic")[2]
