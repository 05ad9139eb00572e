"""What a resumed run may change, and what it keeps: length, place of its photos, settings."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flowerfast.errors import UserError
from flowerfast.settings import load_config
from flowerfast.training.progress import Stop
from flowerfast.training.resuming import MAY_CHANGE, resume_config
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


# ---------------------------------------------------------------------------------------- what may change


def test_a_resumed_run_may_change_what_leaves_the_past_alone_and_no_more() -> None:
    stored = load_config("paper")
    others = {
        "data.path": "p", "data.backend": "cpu", "data.workers": 7, "data.kernels": "numba",
        "data.prefetch": 9, "data.cache": "ram", "data.cache_gb": 1.0, "data.cache_dir": "d",
        "data.dali_prefetch": 3, "data.layout": "split", "data.gpu_kernels": "dali",
        "data.classes": ("a", "b"), "data.path_column": "p", "data.label_column": "l",
        "data.split_column": "s", "data.label_separator": ";", "data.label_columns": ("a", "b"),
        "data.on_bad": "fail", "data.max_bad": 0.5, "train.patience": 9, "checkpoints.keep": 3,
        "train.compile": "on",
        "checkpoints.every_seconds": 1.0, "checkpoints.on_full": "continue",
        "log.tensorboard": True, "log.nvtx": True,
    }  # fmt: skip
    assert set(others) == set(MAY_CHANGE)
    for key, value in {**others, "train.epochs": 99}.items():
        section, _, name = key.partition(".")
        assert getattr(getattr(resume_config(stored, {key: value}), section), name) == value
    for key, value in {
        "train.lr": 0.5, "train.batch_size": 2, "data.hw_decoder_load": 0.1, "data.decoder": "gpu",
        "data.decode_scale": "auto", "data.cache_side": 64, "model.name": "resnet34", "augment.flip": 0.1,
        "eval.crop_pct": 1.0,
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=rf"^{key}=\S+ the run began with .* and must keep that"):
            resume_config(stored, {key: value})
    by_batch = load_config("demo")
    with pytest.raises(UserError, match=r"^train\.epochs=99: the run began with 14"):
        resume_config(by_batch, {"train.epochs": 99})


def test_what_would_alter_the_past_is_refused(train_tiny: Train, begin: Callable[..., None]) -> None:
    begin()
    for key, value in (("train.lr", 0.5), ("train.batch_size", 2), ("data.hw_decoder_load", 0.5)):
        with pytest.raises(UserError, match=rf"^{key}={value}: the run began with") as caught:
            train_tiny(resume=True, settings={key: value})
        assert "\n" not in str(caught.value)


def test_a_folder_that_changed_is_refused(
    train_tiny: Train, begin: Callable[..., None], photos: Path
) -> None:
    begin()
    (photos / "red/new.jpg").write_bytes((photos / "red/00.jpg").read_bytes())
    with pytest.raises(UserError, match=r"red/new\.jpg is new since the run began"):
        train_tiny(resume=True)


def test_a_resumed_run_is_named_by_its_folder_alone(train_tiny: Train, run: Path) -> None:
    with pytest.raises(UserError, match=r"^--resume: name the run to go on with, --out RUN$"):
        train_tiny(None, resume=True)
    with pytest.raises(UserError, match=r"run: no run to resume there \(config\.yaml is missing\)"):
        train_tiny(resume=True)
    with pytest.raises(UserError, match=r"^--config paper: a resumed run keeps its own config\.yaml"):
        train_tiny(resume=True, config="paper")
    assert not run.exists()
