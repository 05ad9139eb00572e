"""A run is made longer, finds its photos at another place, keeps what its settings name."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flowerfast.errors import UserError
from flowerfast.settings import load_config
from flowerfast.training.fit import Stop
from flowerfast.training.run import TrainResult
from tests.training.outcomes import STEPS, assert_same

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]
StopAfter = Callable[[int], AbstractContextManager[Stop]]
Outcome = Callable[[Path], dict[str, Any]]
Settings = dict[str, Any]


@pytest.mark.parametrize("steps", [2, None])
def test_a_run_that_was_stopped_or_has_ended_is_made_longer(
    train_tiny: Train, begin: Callable[..., None], run: Path, outcome: Outcome, steps: int | None
) -> None:
    undisturbed = train_tiny("undisturbed", {"train.epochs": 4})
    train_tiny() if steps is None else begin(None, steps)
    if steps is None:
        with pytest.raises(UserError, match=r"^train\.epochs=1: the run has 2 epochs already"):
            train_tiny(resume=True, settings={"train.epochs": 1})
    assert train_tiny(resume=True, settings={"train.epochs": 4}).summary["epochs_run"] == 4
    assert_same(outcome(run), outcome(undisturbed.folder))
    assert load_config(run / "config.yaml").train.epochs == 4  # so that it goes on to there after a kill
    assert train_tiny(resume=True).summary["epochs_run"] == 4


def test_a_run_that_patience_ended_says_how_it_goes_on(train_tiny: Train) -> None:
    train_tiny(settings={"train.epochs": 30, "train.patience": 1, "train.lr": 1e-9})
    with pytest.raises(
        UserError, match=r"^train\.epochs=40: train\.patience=1 ended the run after \d epochs"
    ):
        train_tiny(resume=True, settings={"train.epochs": 40})
    longer = {"train.epochs": 5, "train.patience": None}
    assert train_tiny(resume=True, settings=longer).summary["epochs_run"] == 5


def test_photos_that_moved_are_given_anew_once(
    train_tiny: Train, begin: Callable[..., None], photos: Path, tmp_path: Path, run: Path, outcome: Outcome
) -> None:
    undisturbed = train_tiny("undisturbed", {"checkpoints.every_seconds": 0})
    begin()
    photos.rename(tmp_path / "moved")
    with pytest.raises(UserError) as caught:
        train_tiny(resume=True)
    assert str(caught.value) == (
        f"{photos}: the photos of this run are not there; give their new place, flowerfast train PHOTOS "
        f"--resume --out {run}"
    )
    train_tiny(resume=True, settings={"data.path": str(tmp_path / "moved")})
    assert_same(outcome(run), outcome(undisturbed.folder))
    assert load_config(run / "config.yaml").data.path == str(tmp_path / "moved")


def test_settings_that_name_files_are_kept_in_full(
    train_tiny: Train, photos: Path, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(timm.create_model("test_resnet").state_dict(), "w.pth")
    given = {"data.path": "photos", "data.cache_dir": "kept", "model.weights": "w.pth", "train.epochs": 1}
    train_tiny(data=None, settings=given)
    config = load_config(run / "config.yaml")
    found = config.data.path, config.data.cache_dir, config.model.weights
    assert found == (str(photos), str(tmp_path / "kept"), str(tmp_path / "w.pth"))


def test_a_run_from_a_folder_is_resumed_without_it(
    train_tiny: Train, begin: Callable[..., None], tmp_path: Path, run: Path, outcome: Outcome
) -> None:
    parent = train_tiny("parent", {"train.epochs": 1}).folder
    named = {"model.name": f"local-dir:{parent / 'best'}", "model.pretrained": True}
    undisturbed = train_tiny("undisturbed", named)
    begin(named, STEPS + 4)
    (parent / "best").rename(tmp_path / "gone")
    train_tiny(resume=True)
    assert_same(outcome(run), outcome(undisturbed.folder))
