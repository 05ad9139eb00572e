"""A run whose files are damaged goes on as if nothing had happened, or says what is damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowerfast.errors import UserError
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from tests.training.outcomes import STEPS, assert_same

Train = Callable[..., TrainResult]
Outcome = Callable[[Path], dict[str, Any]]


def flip(file: Path) -> None:
    """Change one bit in the middle; other names of the file keep their bytes."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)


def test_a_damaged_save_costs_the_steps_since_the_one_before_and_nothing_else(
    train_tiny: Train, begin: Callable[..., None], run: Path, outcome: Outcome
) -> None:
    undisturbed = train_tiny("undisturbed")
    begin(steps=STEPS + 3)
    before = RunFolder(run).load_last()["progress"]
    flip(run / "checkpoints/last.pt")
    summary = train_tiny(resume=True).summary
    assert before["epoch"] == 1
    assert (
        "last.pt: damaged, its checksum does not fit; goes on from the save before it" in summary["notes"][0]
    )
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_a_damaged_best_is_made_anew_where_its_epoch_is_kept(
    train_tiny: Train, run: Path, outcome: Outcome
) -> None:
    summary = train_tiny().summary
    before = outcome(run)
    for name in ("model.safetensors", "config.json"):
        flip(run / "best" / name)
        train_tiny(resume=True)
        assert_same(outcome(run), before)
    flip(run / "best/model.safetensors")
    RunFolder(run).epoch_file(summary["best_epoch"]).unlink()
    with pytest.raises(
        UserError, match=r"best/model\.safetensors: damaged; bring a good copy back, or train on"
    ):
        train_tiny(resume=True)


@pytest.mark.parametrize("name", ["config.yaml", "split.json", "checkpoints/epoch_000.safetensors"])
def test_a_resumed_run_believes_no_damaged_file(train_tiny: Train, run: Path, name: str) -> None:
    train_tiny()
    good = (run / name).read_bytes()
    flip(run / name)
    with pytest.raises(
        UserError, match=rf"{name}: damaged, its checksum does not fit; bring a good copy back"
    ):
        train_tiny(resume=True)
    (run / name).write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        train_tiny(resume=True)
    (run / name).write_bytes(good)
    train_tiny(resume=True)


def test_a_file_that_was_edited_is_taken_without_its_checksum(train_tiny: Train, run: Path) -> None:
    train_tiny()
    config = run / "config.yaml"
    config.write_text(config.read_text() + "# mine\n")
    with pytest.raises(UserError, match="if you have edited it, delete its line with sha256"):
        train_tiny(resume=True)
    config.write_text(config.read_text().partition("\n")[2])
    train_tiny(resume=True)
    config.write_text("")
    with pytest.raises(UserError, match=r"config\.yaml: damaged, it is empty; bring a good copy back"):
        train_tiny(resume=True)
