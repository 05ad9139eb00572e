"""Files are written beside training: what they hold, in which order, and what an error or a signal does."""

import errno
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from flowerfast import runs, train
from flowerfast.checkpoint import RunFolder
from flowerfast.trainer import Trainer
from flowerfast.writer import Writer, snapshot

SETTINGS = [
    argument
    for setting in (
        "model.name=test_resnet", "model.pretrained=false", "data.image_size=32", "data.workers=2",
        "train.epochs=3", "train.batch_size=4", "train.lr=0.05", "train.schedule=constant",
    )
    for argument in ("--set", setting)
]  # fmt: skip
BATCHES = 4  # per epoch
PATIENCE = 60  # seconds until a test that hangs fails


@pytest.fixture
def photos(photo_folder) -> Path:
    return photo_folder({"daisy": 10, "rose": 10})


@pytest.fixture
def cli_train(cli: Callable, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`flowerfast train` into run/, without the plots at its end: (exit code, stdout, stderr)."""
    monkeypatch.setattr(runs, "draw", lambda *_: None)
    return partial(cli, "train", photos, *SETTINGS, "--out", "run")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Any:
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
        self._step, self._close = train.train_step, train.close_epoch
        self._accuracies = accuracies
        monkeypatch.setattr(train, "train_step", self.step)
        monkeypatch.setattr(train, "close_epoch", self.close)

    def step(self, trainer: Trainer, batch: Any) -> Any:
        result = self._step(trainer, batch)
        with self.more_steps:
            self.steps += 1
            self.more_steps.notify_all()
        return result

    def close(self, run: train.Run, result: train.Evaluation, seconds: float) -> None:
        state = {key: run.trainer.state()[key] for key in ("network", "optimizer")}
        self.ends.append(snapshot(state, torch.device("cpu")))
        result = train.Evaluation(result.loss, self._accuracies[len(self.ends) - 1], result.confusion)
        self._close(run, result, seconds)

    def wait_for(self, steps: int) -> None:
        with self.more_steps:
            assert self.more_steps.wait_for(lambda: self.steps >= steps, PATIENCE)


def test_training_goes_on_and_changes_nothing_of_what_is_being_written(cli_train, monkeypatch):
    watched = Watched(monkeypatch, (0.1, 0.2, 0.15))
    written: list[dict[str, Any]] = []
    save_epoch, save_last = RunFolder.save_epoch, RunFolder.save_last

    def slow(folder: RunFolder, epoch: int, *rest: Any) -> None:
        watched.wait_for(
            min((epoch + 2) * BATCHES - 1, 3 * BATCHES)
        )  # deep in the next epoch, if there is one
        save_epoch(folder, epoch, *rest)

    def noted(folder: RunFolder, state: dict[str, Any]) -> None:
        save_last(folder, state)
        written.append(folder.load_last())

    monkeypatch.setattr(RunFolder, "save_epoch", slow)
    monkeypatch.setattr(RunFolder, "save_last", noted)
    assert cli_train()[0] == 0
    files = [load_file(f"run/checkpoints/epoch_{epoch:03d}.safetensors") for epoch in range(3)]
    assert all(same(file, end["network"]) for file, end in zip(files, watched.ends, strict=True))
    assert not same(files[0], files[1])
    assert same(load_file("run/best/model.safetensors"), files[1])
    assert [last["progress"]["epoch"] for last in written] == [0, 1, 2, 3]
    for last, end in zip(written[1:], watched.ends, strict=True):
        assert same({key: last["trainer"][key] for key in end}, end)
        assert len(last["progress"]["history"]) == last["progress"]["epoch"]


def test_last_never_names_a_best_epoch_that_is_not_there(cli_train, monkeypatch):
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
    assert cli_train()[0] == 0
    assert found == [(-1, False), (0, True), (1, True), (1, True)]


@pytest.mark.parametrize(("file", "epoch"), [("save_epoch", 1), ("save_best", 0), ("write_metrics", 2)])
def test_an_error_of_a_write_ends_the_run(cli_train, monkeypatch, file, epoch):
    Watched(monkeypatch, (0.1, 0.1, 0.1))
    calls, write = [], getattr(RunFolder, file)

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == epoch + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(RunFolder, file, full)
    with pytest.raises(OSError, match="No space left on device"):
        cli_train()
    assert RunFolder(Path("run")).load_last()["progress"]["epoch"] == epoch + (file == "write_metrics")
    assert not Path("run/summary.json").exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_waits_until_all_is_written(cli_train, monkeypatch, signum, code):
    watched = Watched(monkeypatch, (0.1, 0.2, 0.3))
    written: list[tuple[int, int]] = []
    save_last = RunFolder.save_last

    def stopping(trainer: Trainer, batch: Any) -> Any:
        if watched.steps == BATCHES + 1:
            signal.raise_signal(signum)
        return watched.step(trainer, batch)

    def slow(folder: RunFolder, state: dict[str, Any]) -> None:
        time.sleep(0.3)  # time enough for a run that does not wait to end without this file
        save_last(folder, state)
        written.append((state["progress"]["epoch"], state["progress"]["batch"]))

    monkeypatch.setattr(train, "train_step", stopping)
    monkeypatch.setattr(RunFolder, "save_last", slow)
    assert cli_train()[0] == code
    assert written == [(0, 0), (1, 0), (1, 2)]
    assert not list(Path("run").rglob("*.tmp"))


def test_an_error_of_a_write_comes_before_a_stop(cli_train, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stopping(trainer: Trainer, batch: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return step(trainer, batch)

    step = train.train_step
    monkeypatch.setattr(train, "train_step", stopping)
    monkeypatch.setattr(RunFolder, "save_last", full)
    with pytest.raises(OSError, match="No space left on device"):
        cli_train()


def test_whoever_interrupts_twice_waits_for_one_file_alone():
    begun, written = threading.Event(), []
    writer = Writer()

    def first() -> None:
        begun.set()
        deadline = time.monotonic() + PATIENCE
        while not writer._abandoned and time.monotonic() < deadline:
            time.sleep(0.001)
        written.append("first")

    def interrupted() -> None:
        with writer:
            writer.submit([first, lambda: written.append("second")])
            assert begun.wait(PATIENCE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written == ["first"]


def test_one_save_at_a_time_in_order():
    written: list[int] = []
    with Writer() as writer:
        for number in range(5):
            writer.submit([partial(written.append, 2 * number), partial(written.append, 2 * number + 1)])
            assert len(written) >= 2 * number
    assert written == [*range(10)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_snapshot_is_a_copy_in_host_memory(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    place = torch.device(device)
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {
        "a": {0: {"b": image.clone().to(place)}},
        "c": [torch.tensor(3, device=place)],
        "d": 0.5,
        "e": None,
    }
    taken = snapshot(state, place)
    state["a"][0]["b"].zero_()
    state["c"][0].zero_()
    state["a"][0]["b"] = state["d"] = 1
    assert same(taken["a"][0]["b"], image)
    assert taken["a"][0]["b"].stride() == image.stride()
    assert (taken["c"][0].item(), taken["d"], taken["e"]) == (3, 0.5, None)
    assert {taken["a"][0]["b"].device.type, taken["c"][0].device.type} == {"cpu"}


@pytest.mark.parametrize("links", [True, False])
def test_best_and_epoch_file_live_and_die_alone(tmp_path, monkeypatch, links):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    network = timm.create_model("test_resnet", num_classes=2)
    states = []
    for epoch in range(2):
        states.append({name: torch.full_like(t, epoch + 1) for name, t in network.state_dict().items()})
        folder.save_epoch(epoch, states[-1], keep=1)  # deletes the file that best/ shares its bytes with
        if epoch == 0:
            folder.save_best(network, ["daisy", "rose"], 0)
            assert folder.epoch_file(0).samefile(folder.best / "model.safetensors") == links
    assert [file.name for file in folder.checkpoints.iterdir()] == ["epoch_001.safetensors"]
    loaded = timm.create_model(f"local-dir:{folder.best}", pretrained=True)
    assert same(dict(loaded.state_dict()), states[0])
    folder.save_best(network, ["daisy", "rose"], 1)
    folder.save_epoch(1, states[0], keep=None)
    assert same(load_file(folder.best / "model.safetensors"), states[1])
    folder.save_best(network, ["daisy", "rose"], 1)
    assert same(load_file(folder.best / "model.safetensors"), states[0])
    assert {(folder.best / name).stat().st_mode for name in ("config.json", "model.safetensors")} == {
        folder.epoch_file(1).stat().st_mode
    }
