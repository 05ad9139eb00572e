"""A run that is stopped, killed or prolonged ends as if nothing had happened, or says why it cannot."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flowerfast.errors import Stopped, UserError
from flowerfast.training.progress import Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from tests.training.outcomes import STEPS, assert_same, change_last

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]
StopAfter = Callable[[int], AbstractContextManager[Stop]]
Outcome = Callable[[Path], dict[str, Any]]


# --------------------------------------------------------------------------------------- it goes on exactly


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_or_stopped_in_mid_epoch_is_resumed_bit_by_bit(
    train_tiny: Train, run: Path, outcome: Outcome, signum: signal.Signals
) -> None:
    settings = {"train.batch_size": 2, "train.epochs": 3, "checkpoints.every_seconds": 0, "train.seed": 5}
    undisturbed = train_tiny("undisturbed", settings)
    config = undisturbed.folder / "config.yaml"
    child = subprocess.Popen(
        [sys.executable, "-m", "flowerfast", "train", "--config", config, "--out", run],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_second_epoch(run, child)
    child.send_signal(signum)
    _, err = child.communicate(timeout=120)
    stopped = "flowerfast: stopped by SIGINT after saving; go on with --resume\n"
    assert (child.returncode, err) == ((-signum, "") if signum == signal.SIGKILL else (128 + signum, stopped))
    standing = RunFolder(run).load_last()["progress"]
    assert (1 <= standing["epoch"] <= 2, 1 <= standing["batch"] <= 15) == (True, True)
    train_tiny(resume=True, settings={"data.workers": 1})
    assert_same(outcome(run), outcome(undisturbed.folder))


def wait_for_second_epoch(run: Path, child: "subprocess.Popen[str]") -> None:
    """Until a batch of the second epoch has been saved."""
    deadline, saves = time.monotonic() + 300, set()
    while len(saves) < 2:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        if (run / "metrics.jsonl").is_file():  # written at the end of an epoch, after last.pt
            saves.add((run / "checkpoints/last.pt").stat().st_mtime_ns)
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [("step", 2), ("onecycle", 3), ("cosine", STEPS), ("constant", STEPS + 1), ("onecycle", STEPS + 4)],
)
def test_a_stop_anywhere_leaves_no_trace(
    train_tiny: Train, begin: Callable[..., None], run: Path, outcome: Outcome, schedule: str, steps: int
) -> None:
    settings = {"train.schedule": schedule, "train.step_size": 1, "train.label_smoothing": 0.1}
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings, steps)
    standing = RunFolder(run).load_last()["progress"]
    expected = (0, min(steps, STEPS)) if steps < STEPS + 2 else (1, steps - STEPS - 2)
    assert (standing["epoch"], standing["batch"]) == expected
    train_tiny(resume=True, settings={"data.workers": 1})
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_a_finished_run_is_left_as_it_is(train_tiny: Train, run: Path, outcome: Outcome) -> None:
    summary = train_tiny().summary
    before, metrics = outcome(run), run / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))  # killed just before it
    again = train_tiny(resume=True).summary
    assert_same(outcome(run), before)
    assert again["confusion"] == summary["confusion"]
    assert (again["train_seconds"], again["eval_seconds"]) == (0, 0)


def test_a_prolonged_run_needs_neither_hub_nor_weights_file(
    train_tiny: Train, tmp_path: Path, rows: Rows
) -> None:
    weights = tmp_path / "start.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    whole = train_tiny("whole", {"model.weights": str(weights), "train.epochs": 3})
    train_tiny(settings={"model.weights": str(weights)})
    weights.unlink()
    longer = train_tiny(resume=True, settings={"train.epochs": 3})
    assert rows(longer.folder) == rows(whole.folder)
    assert len(rows(longer.folder)) == 3


# ------------------------------------------------------------------------ of earlier versions and other runs


def test_a_save_of_an_earlier_version_has_no_record_and_is_resumed(
    train_tiny: Train, begin: Callable[..., None], run: Path, outcome: Outcome
) -> None:
    undisturbed = train_tiny("undisturbed")
    begin()
    change_last(run, lambda state: state.pop("loader"))
    train_tiny(resume=True)
    assert_same(outcome(run), outcome(undisturbed.folder))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_of_an_earlier_version_goes_on_with_photos_as_they_are_stored(
    train_tiny: Train, turned: tuple[Path, Path], stop_after: StopAfter, rows: Rows, earlier: bool
) -> None:
    settings = {"train.epochs": 1, "data.exif": "ignore" if earlier else "apply"}
    whole = train_tiny("whole", settings, turned[0])
    with pytest.raises(Stopped):
        train_tiny("run", settings, turned[0], stop=stop_after(3))
    config = whole.folder.parent / "run/config.yaml"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    if earlier:
        config.write_text(
            "".join(line for line in lines if "exif" not in line and "sha256" not in line), encoding="utf-8"
        )
    with pytest.raises(UserError, match=r"data\.exif='.*': the run began with '.*' and must keep that"):
        train_tiny("run", {"data.exif": "apply" if earlier else "ignore"}, resume=True)
    resumed = train_tiny("run", resume=True)
    assert rows(resumed.folder) == rows(whole.folder)
    assert resumed.summary["notes"] == whole.summary["notes"]
    assert RunFolder(resumed.folder).open().data.exif == settings["data.exif"]


@pytest.mark.parametrize(
    "other",
    [{"train.seed": 9}, {"train.lr": 0.01}, {"train.epochs": 3}, {"train.optimizer": "nesterov"}],
    ids=str,
)
def test_the_save_of_another_run_is_refused(
    train_tiny: Train, begin: Callable[..., None], run: Path, other: dict[str, Any]
) -> None:
    begin()
    theirs = train_tiny("other", other).folder / "checkpoints/last.pt"
    (run / "checkpoints/last.pt").write_bytes(theirs.read_bytes())
    with pytest.raises(UserError, match=r"last\.pt: of another run, or .* is not as the run wrote it; bring"):
        train_tiny(resume=True)
    (run / "split.json").unlink()
    with pytest.raises(UserError, match=r"split\.json: missing; bring it back, or start a new run"):
        train_tiny(resume=True)


# ------------------------------------------------------------------------------------ before the first save


@pytest.mark.parametrize("how", ["resumed", "begun again"])
def test_a_run_that_died_before_its_first_save_starts_from_the_beginning(
    train_tiny: Train, run: Path, outcome: Outcome, how: str
) -> None:
    undisturbed = train_tiny("undisturbed", {"train.seed": 3})

    def die(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_last", die)
        patch.setattr(RunFolder, "discarded_on_failure", lambda _: nullcontext())  # of a kill nobody knows
        with pytest.raises(OSError, match="Input/output error"):
            train_tiny(settings={"train.seed": 3})
    (run / "checkpoints/last.pt.partial").write_bytes(b"half")
    assert {entry.name for entry in run.iterdir()} == {"config.yaml", "split.json", "checkpoints"}
    if how == "resumed":
        train_tiny(resume=True, settings={"data.workers": 1})
        assert "seed: 3" in (run / "config.yaml").read_text()
    else:
        train_tiny(settings={"train.seed": 3})
    assert_same(outcome(run), outcome(undisturbed.folder))
    with pytest.raises(UserError, match="run: exists already; continue it with --resume"):
        train_tiny()


def test_a_command_that_torchrun_starts_again_goes_on(
    train_tiny: Train,
    begin: Callable[..., None],
    run: Path,
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"train.epochs": 2}
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings, 6)
    with pytest.raises(UserError, match="exists already; continue it with --resume"):
        train_tiny(settings=settings)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train_tiny(settings=settings)
    assert_same(outcome(run), outcome(undisturbed.folder))
    train_tiny("new", settings)
    assert_same(outcome(run.parent / "new"), outcome(undisturbed.folder))
