"""A run that is killed and resumed ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

SETTINGS = {
    "model.name": "test_resnet", "model.pretrained": "false", "data.image_size": 32, "train.epochs": 3,
    "train.batch_size": 4, "train.lr": 0.02, "checkpoints.every_seconds": 0, "train.seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of thirty photos."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(30):
            pixels = rng.integers(60 * label, 160 + 60 * label, (40, 44, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.jpg")
    return root


def start(photos: Path, run: Path, *more: str) -> "subprocess.Popen[str]":
    """A training run in a process of its own."""
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    arguments = ["--resume", *more] if "--resume" in more else [str(photos), *sets, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "flowerfast", "train", *arguments, "--out", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def wait_for_mid_epoch(run: Path, process: "subprocess.Popen[str]") -> None:
    """Until last.pt stands inside the second epoch or later."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            state = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]
            if state["epoch"] >= 1 and state["batch"] >= 2:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    raise AssertionError("never reached the second epoch")


def outcome(run: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Metrics without timings, last epoch's weights, best weights."""
    timed = ("seconds", "images_per_sec", "data_wait")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k not in timed} for row in rows]
    return (
        rows,
        load_file(run / "checkpoints/epoch_002.safetensors"),
        load_file(run / "best/model.safetensors"),
    )


def assert_same(run: Path, undisturbed: Path) -> None:
    (rows, last, best), (rows0, last0, best0) = outcome(run), outcome(undisturbed)
    assert rows == rows0
    for weights, weights0 in ((last, last0), (best, best0)):
        assert weights.keys() == weights0.keys()
        assert all(torch.equal(weights[k], weights0[k]) for k in weights)


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    code, err = finish(start(photos, run))
    assert code == 0, err
    return run


def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(
    photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    code, err = finish(start(photos, tmp_path / "run", "--set", "data.workers=3", "--set", "data.prefetch=1"))
    assert code == 0, err
    assert_same(tmp_path / "run", undisturbed)


def test_kill_in_mid_epoch_then_resume_is_bit_identical(
    photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(photos, run)
    wait_for_mid_epoch(run, process)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    code, err = finish(start(photos, run, "--resume"))
    assert code == 0, err
    assert_same(run, undisturbed)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_exit_and_resume_goes_on(
    photos: Path, undisturbed: Path, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    process = start(photos, run)
    wait_for_mid_epoch(run, process)
    os.kill(process.pid, signum)
    returned, err = finish(process)
    assert (returned, len(err.strip().splitlines())) == (code, 1)
    assert "go on with --resume" in err
    returned, err = finish(start(photos, run, "--resume", "--set", "data.workers=2"))
    assert returned == 0, err
    assert_same(run, undisturbed)


def test_resume_of_a_finished_run_changes_nothing(photos: Path, undisturbed: Path) -> None:
    before = outcome(undisturbed)
    metrics = undisturbed / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))  # killed just before it
    assert finish(start(photos, undisturbed, "--resume"))[0] == 0
    after = outcome(undisturbed)
    assert after[0] == before[0]
    assert all(torch.equal(after[1][k], before[1][k]) for k in after[1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [("train.lr=0.5", "train.lr=0.5: the run began with 0.02"), ("train.batch_size=2", "train.batch_size=2")],
)
def test_resume_refuses_what_would_alter_the_past(
    photos: Path, undisturbed: Path, setting: str, message: str
) -> None:
    code, err = finish(start(photos, undisturbed, "--resume", "--set", setting))
    assert code == 2
    assert message in err


def test_resume_refuses_a_folder_that_changed(photos: Path, undisturbed: Path) -> None:
    extra = photos / "dark" / "new.jpg"
    extra.write_bytes((photos / "dark/00.jpg").read_bytes())
    try:
        code, err = finish(start(photos, undisturbed, "--resume"))
    finally:
        extra.unlink()
    assert code == 2
    assert "dark/new.jpg is new since the run began" in err
