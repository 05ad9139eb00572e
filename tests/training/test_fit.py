"""`fit`: what is saved when, and that training changes none of it; errors, stops, steps that go wrong."""

import errno
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from flowerfast.errors import RunFailed, Stopped, UserError
from flowerfast.loaders.batch import Batch
from flowerfast.photos.photos import Photos
from flowerfast.training import finite
from flowerfast.training import fit as module
from flowerfast.training.finite import all_finite
from flowerfast.training.fit import Evaluation, Stop, TrainingRun, evaluate
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.state import Precision, TrainState
from flowerfast.training.writer import snapshot

Train = Callable[..., TrainResult]
STEPS = 4  # per epoch
PATIENCE = 60  # seconds until a test that hangs fails
THREE_EPOCHS = {"train.epochs": 3, "train.schedule": "constant"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The folder of the run."""
    return RunFolder(tmp_path / "run")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """No writer is at work after a run, however it ended."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("writer")]


def same(found: Any, expected: Any) -> bool:
    """Whether two nested states hold the same tensors bit by bit."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in expected)
    return torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


class Watched:
    """A run whose training thread notes what each epoch ends with and counts its steps.

    Args:
        accuracies: what validation finds, epoch by epoch.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, accuracies: tuple[float, ...]) -> None:
        self.ends: list[dict[str, Any]] = []
        self.steps = 0
        self.more_steps = threading.Condition()
        self._step, self._close = module.train_step, module.close_epoch
        self._accuracies = accuracies
        monkeypatch.setattr(module, "train_step", self.step)
        monkeypatch.setattr(module, "close_epoch", self.close)

    def step(self, state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        result = self._step(state, batch)
        with self.more_steps:
            self.steps += 1
            self.more_steps.notify_all()
        return result

    def close(self, run: TrainingRun, result: Evaluation, seconds: float) -> None:
        state = {key: run.state.state_dict()[key] for key in ("network", "optimizer")}
        self.ends.append(snapshot(state, torch.device("cpu")))
        result = Evaluation(result.loss, self._accuracies[len(self.ends) - 1], result.confusion)
        self._close(run, result, seconds)

    def wait_for(self, steps: int) -> None:
        with self.more_steps:
            assert self.more_steps.wait_for(lambda: self.steps >= steps, PATIENCE)


# ---------------------------------------------------------------------------------------------------- saving


def test_training_goes_on_and_changes_nothing_of_what_is_being_written(
    train_tiny: Train, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, (0.1, 0.2, 0.15))
    written: list[dict[str, Any]] = []
    save_epoch, save_last = RunFolder.save_epoch, RunFolder.save_last

    def slow(folder: RunFolder, epoch: int, *rest: Any) -> None:
        watched.wait_for(min((epoch + 2) * STEPS - 1, 3 * STEPS))  # deep in the next epoch, if there is one
        save_epoch(folder, epoch, *rest)

    def noted(folder: RunFolder, state: dict[str, Any]) -> None:
        save_last(folder, state)
        written.append(folder.load_last())

    monkeypatch.setattr(RunFolder, "save_epoch", slow)
    monkeypatch.setattr(RunFolder, "save_last", noted)
    train_tiny(settings=THREE_EPOCHS)
    files = [load_file(run.epoch_file(epoch)) for epoch in range(3)]
    assert all(same(file, end["network"]) for file, end in zip(files, watched.ends, strict=True))
    assert not same(files[0], files[1])
    assert same(load_file(run.best / "model.safetensors"), files[1])
    assert [last["progress"]["epoch"] for last in written] == [0, 1, 2, 3]
    for last, end in zip(written[1:], watched.ends, strict=True):
        assert same({key: last["trainer"][key] for key in end}, end)
        assert len(last["progress"]["history"]) == last["progress"]["epoch"]


def test_last_never_names_a_best_epoch_that_is_not_there(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, (0.1, 0.3, 0.2))
    found: list[tuple[int, bool]] = []
    save_last = RunFolder.save_last

    def checked(folder: RunFolder, state: dict[str, Any]) -> None:
        epoch = state["progress"]["best_epoch"]
        there = epoch >= 0 and same(
            load_file(folder.best / "model.safetensors"), watched.ends[epoch]["network"]
        )
        found.append((epoch, there))
        save_last(folder, state)

    monkeypatch.setattr(RunFolder, "save_last", checked)
    train_tiny(settings=THREE_EPOCHS)
    assert found == [(-1, False), (0, True), (1, True), (1, True)]


@pytest.mark.parametrize(("seconds", "saves"), [(0, 1 + 2 * (STEPS + 1)), (1e6, 1 + 2)])
def test_saves_come_as_often_as_the_settings_say(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, seconds: float, saves: int
) -> None:
    standings: list[tuple[int, int]] = []
    save_last = RunFolder.save_last

    def noted(folder: RunFolder, state: dict[str, Any]) -> None:
        standings.append((state["progress"]["epoch"], state["progress"]["batch"]))
        save_last(folder, state)

    monkeypatch.setattr(RunFolder, "save_last", noted)
    train_tiny(settings={"checkpoints.every_seconds": seconds})
    assert len(standings) == saves
    assert standings == sorted(standings)
    assert {(0, 0), (1, 0), (2, 0)} <= set(standings)


# ------------------------------------------------------------------------------------------ errors and stops


@pytest.mark.parametrize(("file", "epoch"), [("save_epoch", 1), ("save_best", 0), ("write_metrics", 2)])
def test_an_error_of_a_write_ends_the_run(
    train_tiny: Train, run: RunFolder, monkeypatch: pytest.MonkeyPatch, file: str, epoch: int
) -> None:
    Watched(monkeypatch, (0.1, 0.1, 0.1))
    calls, write = [], getattr(RunFolder, file)

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == epoch + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(RunFolder, file, full)
    with pytest.raises(OSError, match="No space left on device"):
        train_tiny(settings=THREE_EPOCHS)
    assert run.load_last()["progress"]["epoch"] == epoch + (file == "write_metrics")
    assert not run.summary.exists()


def test_a_stop_waits_until_all_is_written(
    train_tiny: Train,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: Callable[[int], AbstractContextManager[Stop]],
) -> None:
    written: list[tuple[int, int]] = []
    save_last = RunFolder.save_last

    def slow(folder: RunFolder, state: dict[str, Any]) -> None:
        time.sleep(0.3)  # time enough for a run that does not wait to end without this file
        save_last(folder, state)
        written.append((state["progress"]["epoch"], state["progress"]["batch"]))

    monkeypatch.setattr(RunFolder, "save_last", slow)
    with pytest.raises(Stopped) as caught:
        train_tiny(settings=THREE_EPOCHS, stop=stop_after(STEPS + 2 + 2))
    assert caught.value.signum == 15
    assert written == [(0, 0), (1, 0), (1, 2)]
    assert not list(run.path.rglob("*.partial"))


def test_an_error_of_a_write_comes_before_a_stop(train_tiny: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "save_last", full)
    with pytest.raises(OSError, match="No space left on device"):
        train_tiny(stop=nullcontext(lambda: 15))


# -------------------------------------------------------------------------------------------- single steps


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(train_tiny: Train, run: RunFolder) -> None:
    settings = {"train.lr": 1e30, "checkpoints.every_seconds": 0}
    with pytest.raises(RunFailed) as caught:
        train_tiny(settings=settings)
    assert re.fullmatch(
        r"epoch 1, batch \d \((\w+/\d\d\.jpg, ){2}\w+/\d\d\.jpg and 5 more\): (the training loss is "
        r"(nan|inf)|weights are no numbers after it); start a new run with a lower train\.lr",
        str(caught.value),
    )
    network = run.load_last()["trainer"]["network"]
    assert all_finite(tensor for tensor in network.values() if tensor.is_floating_point())
    assert not run.metrics.exists()


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
    train_tiny: Train, run: RunFolder, photos: Path, monkeypatch: pytest.MonkeyPatch, step: int, what: str
) -> None:
    monkeypatch.setattr(finite, "EVERY", 3)
    seen = spoil_step(monkeypatch, step, what)
    with pytest.raises(RunFailed) as caught:
        train_tiny(settings={"train.batch_size": 2})
    epoch, batch = divmod(step + (what == "weights"), 15)  # of such weights the next loss tells
    names = ", ".join(Photos(photos).where(index) for index in seen[step + (what == "weights")])
    bad = "nan" if what == "weights" else what
    kept = f"; --from {run.path} begins with the best weights" if epoch else ""
    said = (
        f"epoch {epoch + 1}, batch {batch + 1} ({names}): the training loss is {bad}; start a new run with "
    )
    assert str(caught.value) == f"{said}a lower train.lr{kept}"
    assert step < len(seen) <= step + 7  # read with the two others that were noted together, three later
    assert run.path.exists() == bool(epoch)
    if epoch:
        last = run.load_last()
        assert (last["progress"]["epoch"], last["progress"]["batch"]) == (1, 0)
        assert all_finite(t for t in last["trainer"]["network"].values() if t.is_floating_point())


def test_weights_that_the_last_step_of_an_epoch_spoils_are_not_saved(
    train_tiny: Train, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_step(monkeypatch, 2 * STEPS - 1, "weights")
    with pytest.raises(
        RunFailed, match=r"^epoch 2, batch 4 \(.*\): weights are no numbers after it; start a"
    ):
        train_tiny()
    assert run.load_last()["progress"]["epoch"] == 1
    assert not run.epoch_file(1).exists()


@pytest.mark.parametrize("spoilt", [1, 2])
def test_a_validation_loss_that_is_no_number_is_never_best_nor_written(
    train_tiny: Train, run: RunFolder, monkeypatch: pytest.MonkeyPatch, spoilt: int
) -> None:
    evaluate, calls = module.evaluate, []

    def changed(*given: Any) -> Evaluation:
        calls.append(given)
        result = evaluate(*given)
        return replace(result, loss=float("nan"), accuracy=1.0) if len(calls) == spoilt else result

    monkeypatch.setattr(module, "evaluate", changed)
    with pytest.raises(
        RunFailed, match=rf"^epoch {spoilt}: the validation loss is nan, and the training loss"
    ):
        train_tiny()
    assert run.path.exists() == (spoilt > 1)
    if spoilt > 1:
        assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [0]
        assert "NaN" not in run.metrics.read_text()
        assert same(load_file(run.best / "model.safetensors"), load_file(run.epoch_file(0)))
        assert not run.epoch_file(1).exists()
        assert not run.summary.exists()


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
    train_tiny: Train, photos: Path, run: RunFolder, stop_after: Callable[[int], AbstractContextManager[Stop]]
) -> None:
    settings = {"model.name": "resnet10t", "train.batch_size": 2, "train.epochs": 1, "data.max_bad": 0.9}
    for file in sorted(photos.rglob("*.jpg"))[::2]:
        file.write_bytes(file.read_bytes()[:-60])  # the scan does not see it
    with pytest.raises(Stopped):
        train_tiny(settings=settings, stop=stop_after(9))
    summary = train_tiny(resume=True).summary
    left_out = run.load_last()["progress"]["alone"]
    assert left_out > 0
    told = f"left out: {left_out} times a photo that damaged files had left alone in its batch"
    assert told in summary["notes"]


def test_batches_of_one_are_refused_where_they_cannot_be_normalised(
    train_tiny: Train, run: RunFolder
) -> None:
    with pytest.raises(UserError, match=r"^train\.batch_size=1: the batch normalisation .* needs 2 samples"):
        train_tiny(settings={"model.name": "resnet10t", "train.batch_size": 1})
    assert not run.path.exists()


class Brightest(nn.Module):
    """Uint8 images to logits: the class is the brightest channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3)) * self.weight


def test_evaluation_counts_all_samples_of_all_batches_and_leaves_the_mode_alone() -> None:
    images = torch.zeros(7, 3, 4, 4, dtype=torch.uint8)
    answers, labels = torch.tensor([0, 1, 2, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 2, 2])
    images[torch.arange(7), answers] = 9
    indices = torch.arange(7)
    batches = [
        Batch(images[rows], labels[rows], indices[rows]) for rows in (slice(5), slice(0, 0), slice(5, 7))
    ]
    model = Brightest()
    result = evaluate(model, batches, 3, Precision(None))
    assert result.confusion.matrix().tolist() == [[2, 0, 0], [0, 1, 1], [0, 1, 2]]
    assert result.top5 is None
    assert result.accuracy == pytest.approx(5 / 7)
    expected = nn.functional.cross_entropy(model(images), labels).item()
    assert result.loss == pytest.approx(expected)
    assert model.training
    nothing = evaluate(model.eval(), [], 3, Precision(None))
    assert (nothing.loss, nothing.accuracy, nothing.confusion.count.sum()) == (0, 0, 0)
    assert not model.training


def test_top_5_counts_answers_among_the_first_five() -> None:
    torch.manual_seed(0)
    pixels, labels = torch.rand(50, 7), torch.randint(0, 7, (50,))
    batch = Batch(pixels, labels, torch.arange(50))
    network = nn.Linear(7, 7)
    with torch.inference_mode():
        ranks = network(pixels).argsort(1, descending=True)
    result = evaluate(network, [batch], 7, Precision(None))
    assert result.top5 == pytest.approx((ranks[:, :5] == labels[:, None]).any(1).float().mean().item())
    assert result.top5 > result.accuracy
    assert result.confusion.count.sum() == 50
