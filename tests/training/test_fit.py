"""`fit`: steps and epochs that go wrong end the run, and nothing of them is saved; batches of one."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flowerfast.errors import RunFailed, Stopped, UserError
from flowerfast.loaders.batch import Batch
from flowerfast.photos.photos import Photos
from flowerfast.training import finite
from flowerfast.training import fit as module
from flowerfast.training.evaluation import Evaluation, evaluate
from flowerfast.training.finite import all_finite
from flowerfast.training.progress import Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.state import TrainState
from tests.training.outcomes import STEPS, same

Train = Callable[..., TrainResult]


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(
    train_tiny: Train, run_folder: RunFolder
) -> None:
    settings = {"train.lr": 1e30, "checkpoints.every_seconds": 0}
    with pytest.raises(RunFailed) as caught:
        train_tiny(settings=settings)
    assert re.fullmatch(
        r"epoch 1, batch \d \((\w+/\d\d\.jpg, ){2}\w+/\d\d\.jpg and 5 more\): (the training loss is "
        r"(nan|inf)|weights are no numbers after it); start a new run with a lower train\.lr",
        str(caught.value),
    )
    network = run_folder.load_last()["trainer"]["network"]
    assert all_finite(tensor for tensor in network.values() if tensor.is_floating_point())
    assert not run_folder.metrics.exists()


def spoil_step(monkeypatch: pytest.MonkeyPatch, spoilt: int, what: str) -> list[list[int]]:
    """Have a step, counted from 0, give such a loss or leave such weights: the samples of all steps."""
    seen: list[list[int]] = []
    step = module.train_step

    def changed(state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(batch.indices.tolist())
        loss, correct = step(state, batch)
        if len(seen) == spoilt + 1:
            if what == "weights":
                next(state.model.network.parameters()).data.view(-1)[3] = float("nan")
            else:
                loss = loss * float(what)
        return loss, correct

    monkeypatch.setattr(module, "train_step", changed)
    return seen


@pytest.mark.parametrize(("step", "what"), [(4, "nan"), (24, "inf"), (17, "nan"), (17, "weights")])
def test_a_run_stops_soon_after_a_loss_or_weights_go_wrong_and_names_the_photos(
    train_tiny: Train,
    run_folder: RunFolder,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    what: str,
) -> None:
    monkeypatch.setattr(finite, "EVERY", 3)
    seen = spoil_step(monkeypatch, step, what)
    with pytest.raises(RunFailed) as caught:
        train_tiny(settings={"train.batch_size": 2})
    epoch, batch = divmod(step + (what == "weights"), 15)  # of such weights the next loss tells
    names = ", ".join(Photos(photos).where(index) for index in seen[step + (what == "weights")])
    bad = "nan" if what == "weights" else what
    kept = f"; --from {run_folder.path} begins with the best weights" if epoch else ""
    said = (
        f"epoch {epoch + 1}, batch {batch + 1} ({names}): the training loss is {bad}; start a new run with "
    )
    assert str(caught.value) == f"{said}a lower train.lr{kept}"
    assert step < len(seen) <= step + 7  # read with the two others that were noted together, three later
    assert run_folder.path.exists() == bool(epoch)
    if epoch:
        last = run_folder.load_last()
        assert (last["progress"]["epoch"], last["progress"]["batch"]) == (1, 0)
        assert all_finite(t for t in last["trainer"]["network"].values() if t.is_floating_point())


def test_weights_that_the_last_step_of_an_epoch_spoils_are_not_saved(
    train_tiny: Train, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_step(monkeypatch, 2 * STEPS - 1, "weights")
    with pytest.raises(
        RunFailed, match=r"^epoch 2, batch 4 \(.*\): weights are no numbers after it; start a"
    ):
        train_tiny()
    assert run_folder.load_last()["progress"]["epoch"] == 1
    assert not run_folder.epoch_file(1).exists()


@pytest.mark.parametrize("spoilt", [1, 2])
def test_a_validation_loss_that_is_no_number_is_never_best_nor_written(
    train_tiny: Train, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch, spoilt: int
) -> None:
    calls = []

    def changed(*given: Any) -> Evaluation:
        calls.append(given)
        result = evaluate(*given)
        return replace(result, loss=float("nan"), accuracy=1.0) if len(calls) == spoilt else result

    monkeypatch.setattr(module, "evaluate", changed)
    with pytest.raises(
        RunFailed, match=rf"^epoch {spoilt}: the validation loss is nan, and the training loss"
    ):
        train_tiny()
    assert run_folder.path.exists() == (spoilt > 1)
    if spoilt > 1:
        assert [json.loads(line)["epoch"] for line in run_folder.metrics.read_text().splitlines()] == [0]
        assert "NaN" not in run_folder.metrics.read_text()
        assert same(load_file(run_folder.best / "model.safetensors"), load_file(run_folder.epoch_file(0)))
        assert not run_folder.epoch_file(1).exists()
        assert not run_folder.summary.exists()


def test_a_last_batch_of_one_that_cannot_be_normalised_joins_the_one_before(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    step = module.train_step

    def noted(state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(batch.indices.tolist())
        return step(state, batch)

    monkeypatch.setattr(module, "train_step", noted)
    train_tiny(settings={"model.name": "resnet10t", "train.batch_size": 29, "train.epochs": 1})
    assert [len(set(batch)) for batch in seen] == [30]
    train_tiny("other", {"train.batch_size": 29, "train.epochs": 1, "data.image_size": 64})
    assert [len(batch) for batch in seen[1:]] == [29, 1]  # where one is enough, batches are as they were


def test_a_photo_that_damage_leaves_alone_in_its_batch_is_left_out_and_counted(
    train_tiny: Train,
    photos: Path,
    run_folder: RunFolder,
    stop_after: Callable[[int], AbstractContextManager[Stop]],
) -> None:
    settings = {"model.name": "resnet10t", "train.batch_size": 2, "train.epochs": 1, "data.max_bad": 0.9}
    for file in sorted(photos.rglob("*.jpg"))[::2]:
        file.write_bytes(file.read_bytes()[:-60])  # the scan does not see it
    with pytest.raises(Stopped):
        train_tiny(settings=settings, stop=stop_after(9))
    summary = train_tiny(resume=True).summary
    left_out = run_folder.load_last()["progress"]["alone"]
    assert left_out > 0
    told = f"left out: {left_out} times a photo that was alone in its batch: damaged files or"
    assert any(note.startswith(told) for note in summary["notes"])


def test_batches_of_one_are_refused_where_they_cannot_be_normalised(
    train_tiny: Train, run_folder: RunFolder
) -> None:
    with pytest.raises(UserError, match=r"^train\.batch_size=1: the batch normalisation .* needs 2 samples"):
        train_tiny(settings={"model.name": "resnet10t", "train.batch_size": 1})
    assert not run_folder.path.exists()
