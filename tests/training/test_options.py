"""Runs with the options of training: resumed exactly, what they leave, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.layers import DropPath

from flowerfast.errors import RunFailed, Stopped, UserError
from flowerfast.loaders.batch import Batch
from flowerfast.photos.photos import Photos
from flowerfast.training import fit as module
from flowerfast.training import run as run_module
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.state import TrainState
from tests.training.outcomes import STEPS, assert_same, same

Train = Callable[..., TrainResult]
Outcome = Callable[[Path], dict[str, Any]]


def named(**settings: Any) -> dict[str, Any]:
    """Settings by dotted key, of section `train` where they name no other."""
    return {name.replace("__", ".") if "__" in name else f"train.{name}": v for name, v in settings.items()}


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        # In the midst of the batches that make one step; before the last of them, which is a shorter group.
        (named(accumulate=3, clip_grad=0.5, ema=0.9, optimizer="adamw", warmup_epochs=0.5), 2),
        (named(accumulate=3, schedule="onecycle", class_weights="balanced", optimizer="muon"), STEPS + 2 + 3),
        # After the backbone has been let go; before it is.
        (named(freeze=1, sampling="balanced", ema=0.5, model__drop_path=0.3), STEPS + 4),
        (named(freeze="backbone", head_lr=5, schedule="cosine-batch", model__drop_rate=0.5), STEPS + 1),
        (named(layer_decay=0.7, decay_norms=False, weight_decay=0.1, optimizer="lamb", frozen_stages=2), 3),
    ],
)
def test_a_run_with_options_is_resumed_exactly(
    train_tiny: Train,
    begin: Callable[..., None],
    run: Path,
    outcome: Outcome,
    settings: dict[str, Any],
    steps: int,
) -> None:
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings, steps)
    train_tiny(resume=True, settings={"data.workers": 1})
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_options_reach_the_training(train_tiny: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[TrainingRun] = []

    def look(run: TrainingRun, _: object) -> None:
        begun.append(run)
        raise Stopped(15)

    monkeypatch.setattr(run_module, "fit", look)
    for settings in (named(class_weights="balanced", model__drop_path=0.3), named(sampling="balanced")):
        with pytest.raises(Stopped):
            train_tiny(settings=settings)
    weighted, balanced = begun
    drops = [m.drop_prob for m in weighted.state.model.modules() if isinstance(m, DropPath)]
    assert max(drops) == pytest.approx(0.3)
    counts = np.bincount(weighted.train_loader.photos.table.label[weighted.train_loader.photos.indices])
    assert weighted.state.class_weights is not None
    assert weighted.state.class_weights.tolist() == pytest.approx(counts.sum() / 3 / counts)
    assert balanced.state.class_weights is None
    samplers = [run.train_loader.plan_sampler.sampling for run in begun]
    assert samplers == ["natural", "balanced"]
    assert balanced.val_loader.plan_sampler.sampling == "natural"


def test_the_average_is_what_is_validated_and_kept(train_tiny: Train, run_folder: RunFolder) -> None:
    result = train_tiny(settings=named(ema=0.99, epochs=1))
    saved = run_folder.load_last()["trainer"]
    kept = load_file(run_folder.best / "model.safetensors")
    assert same(kept, saved["ema"]["network"])
    assert not same(kept, saved["network"])
    assert saved["ema"]["steps"] == STEPS
    assert (result.summary["optimizer"], result.summary["ema"]) == ("sgd", 0.99)
    assert train_tiny("other", named(epochs=1)).summary["ema"] is None


def test_a_run_that_begins_from_the_last_save_takes_the_average(
    train_tiny: Train, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(settings=named(ema=0.9, epochs=1))
    average = run_folder.load_last()["trainer"]["ema"]["network"]
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(
        module, "train_epoch", lambda run: begun.append(run.state.state_dict()["network"]) or stop()
    )

    def stop() -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train_tiny("child", start_from=run_folder.last)
    assert same(begun[0], average)


def test_a_balanced_run_sees_all_classes_equally_often(
    train_tiny: Train, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in sorted((photos / "red").glob("*.jpg"))[3:]:
        file.unlink()
    seen: list[int] = []
    step = module.train_step

    def noted(state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend(batch.labels.tolist())
        return step(state, batch)

    monkeypatch.setattr(module, "train_step", noted)
    result = train_tiny(settings=named(sampling="balanced", epochs=3))
    counts = [seen.count(label) for label in range(3)]
    assert sum(counts) == 3 * result.summary["train_samples"]
    assert max(counts) - min(counts) <= 1


# --------------------------------------------------------------------------------- numbers that are too large


@pytest.mark.parametrize(
    ("spoilt", "settings"),
    [(0, {}), (2, {"clip_grad": 1.0}), (STEPS - 1, {"ema": 0.9}), (1, {"amp": "fp16", "clip_grad": 1.0})],
)
def test_a_batch_whose_loss_is_no_number_is_named_though_steps_are_of_several(
    train_tiny: Train,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoilt: int,
    settings: dict[str, Any],
) -> None:
    seen: list[list[int]] = []
    gradients = TrainState.gradients

    def changed(state: TrainState, batch: Batch, due: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(batch.indices.tolist())
        loss, correct = gradients(state, batch, due)
        return loss * (float("nan") if len(seen) == spoilt + 1 else 1), correct

    monkeypatch.setattr(TrainState, "gradients", changed)
    with pytest.raises(RunFailed) as caught:
        train_tiny(settings=named(accumulate=3, **settings))
    names = ", ".join(Photos(photos).where(index) for index in seen[spoilt][:3])
    what = "training loss or gradient" if "clip_grad" in settings else "training loss"
    pattern = rf"^epoch 1, batch {spoilt + 1} \({names}.*\): the {what} is nan; start a new run with a lower"
    assert re.search(pattern, str(caught.value))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_gradient_of_infinite_norm_is_not_hidden_by_clipping(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    update = TrainState.update

    def enlarged(state: TrainState) -> torch.Tensor | None:
        for weight in state.model.parameters():
            assert weight.grad is not None
            weight.grad.fill_(1e30)
        return update(state)

    monkeypatch.setattr(TrainState, "update", enlarged)
    with pytest.raises(
        RunFailed, match=rf"^epoch 1, batch {accumulate} \(.*\): the training loss or gradient is nan"
    ):
        train_tiny(settings=named(accumulate=accumulate, clip_grad=1.0))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_photo_left_alone_at_the_end_of_a_group_does_not_keep_the_others_from_their_step(
    train_tiny: Train, photos: Path, run_folder: RunFolder, accumulate: int
) -> None:
    for file in sorted(photos.rglob("*.jpg"))[::2]:
        file.write_bytes(file.read_bytes()[:-60])  # the scan does not see it
    settings = named(accumulate=accumulate, batch_size=2, epochs=1, model__name="resnet10t", ema=0.5)
    train_tiny(settings={**settings, "data.max_bad": 0.9, "train.clip_grad": 1.0})
    saved = run_folder.load_last()
    assert saved["progress"]["alone"] > 0
    assert saved["trainer"]["ema"]["steps"] > 0
    assert saved["trainer"].get("accumulated", {"gradients": {}})["gradients"] == {}


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            named(sampling="balanced", class_weights="balanced"),
            r"train\.sampling='balanced': with class_weights=",
        ),
        (named(schedule="onecycle", warmup_epochs=1), r"train\.warmup_epochs=1: onecycle rises by itself"),
        (named(freeze=True), r"train\.freeze=True: give a number, not true or false"),
        (named(freeze="head"), r"train\.freeze='head': "),
        (named(frozen_stages=9), r"train\.frozen_stages=9: this network has "),
        (named(ema=1), r"train\.ema=1: "),
        (named(accumulate=0), r"train\.accumulate=0: "),
        (
            {"model.name": "vgg11", "model.drop_path": 0.1, "data.image_size": 224},
            r"^model\.drop_path=0\.1: model\.name=vgg11 has nothing of the kind; set it to null$",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    train_tiny: Train, run: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train_tiny(settings=settings)
    assert "\n" not in str(caught.value)
    assert not run.exists()


@pytest.mark.parametrize("change", [{"ema": 0.9}, {"accumulate": 2}, {"optimizer": "adamw"}, {"freeze": 1}])
def test_a_resumed_run_keeps_its_options(
    train_tiny: Train, begin: Callable[..., None], change: dict[str, Any]
) -> None:
    begin()
    ((name, value),) = change.items()
    with pytest.raises(
        UserError, match=rf"^train\.{name}={value!r}: the run began with .* and must keep that"
    ):
        train_tiny(resume=True, settings=named(**change))
