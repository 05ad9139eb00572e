"""A new run that begins with the weights of another."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flowerfast.errors import UserError
from flowerfast.settings import load_config
from flowerfast.training.run import TrainResult, train

Train = Callable[..., TrainResult]


def test_a_new_run_begins_with_the_weights_and_the_split_of_its_parent(
    train_tiny: Train, tmp_path: Path
) -> None:
    parent = train_tiny("parent", {"train.epochs": 2, "train.schedule": "cosine", "train.seed": 3}).folder
    given = {"train.seed": 4, "train.lr": 1e-12, "train.epochs": 1}
    child = train(out=tmp_path / "child", start_from=parent, settings=given)
    config = load_config(child.folder / "config.yaml")
    assert (config.model.parent, config.train.schedule) == (str(parent), "cosine")
    assert config.model.weights == str(parent / "best/model.safetensors")
    assert child.summary["parent"] == str(parent)
    mine, theirs = (json.loads((folder / "split.json").read_text()) for folder in (child.folder, parent))
    assert [mine[key] for key in ("train", "val", "classes")] == [
        theirs[key] for key in ("train", "val", "classes")
    ]
    before, after = (load_file(folder / "best/model.safetensors") for folder in (parent, child.folder))
    learnt = [key for key in before if "running" not in key and "num_batches" not in key]
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in learnt)
    last = train(out=tmp_path / "last", start_from=parent / "checkpoints/last.pt", settings=given)
    assert load_config(last.folder / "config.yaml").model.parent == str(parent)
    with pytest.raises(UserError, match="its schedule cosine depends"):
        train(out=parent, resume=True, settings={"train.epochs": 9})


def test_other_photos_are_split_anew_and_that_is_said(
    train_tiny: Train, photos: Path, tmp_path: Path
) -> None:
    parent = train_tiny("parent", {"train.epochs": 1}).folder
    (photos / "red/00.jpg").rename(photos / "red/another.jpg")
    child = train(out=tmp_path / "child", start_from=parent)
    assert any(note.startswith(f"split: not that of {parent}") for note in child.summary["notes"])


def test_lost_weights_are_not_replaced_by_others_unsaid(train_tiny: Train, tmp_path: Path) -> None:
    parent = train_tiny("parent", {"train.epochs": 1}).folder
    (parent / "best/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing; bring it back, or give .*last\.pt$"):
        train(out=tmp_path / "child", start_from=parent)
    train(out=tmp_path / "last", start_from=parent / "checkpoints/last.pt", settings={"train.epochs": 1})


def test_what_has_no_weights_is_no_parent(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--from .*photos: no run with weights there; give a run folder"):
        train(start_from=tmp_path / "photos", out=tmp_path / "child")
    with pytest.raises(UserError, match=r"drop --from or --resume$"):
        train(start_from=tmp_path, out=tmp_path / "child", resume=True)
