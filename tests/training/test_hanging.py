"""Photos that no longer come, and disks that break, while a run goes on."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flowerfast.errors import Stopped, UserError
from flowerfast.photos import reading, workers
from flowerfast.photos.photos import Photos
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from tests.training.outcomes import assert_same

Train = Callable[..., TrainResult]


def test_a_stop_is_heeded_and_saved_while_a_read_hangs(
    train_tiny: Train, run: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable[[Path], dict[str, Any]]
) -> None:
    for name in ("LEFT_AFTER", "_ASKED_AFTER", "LOOK"):
        monkeypatch.setattr(workers, name, 0.05)
    read, wait, calls = Photos.read, workers.wait, [0]
    over, hangs, waited = threading.Event(), threading.Event(), threading.Event()

    def hang(photos: Photos, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] > 3:  # one to warm up, two batches
            hangs.set()
            over.wait()
        return read(photos, *arguments)

    def noted(*arguments: Any) -> Any:
        found = wait(*arguments)
        if found.not_done and hangs.is_set():
            waited.set()
        return found

    monkeypatch.setattr(Photos, "read", hang)
    monkeypatch.setattr(workers, "wait", noted)
    asked = nullcontext(lambda: 15 if waited.is_set() else None)
    try:
        with pytest.raises(Stopped, match="after saving"):
            train_tiny(settings={"data.workers": 1}, stop=asked)
    finally:
        over.set()
    progress = RunFolder(run).load_last()["progress"]
    assert (progress["epoch"], progress["batch"]) == (0, 2)
    assert progress["seconds"] > 0
    calls[0] = -10_000
    train_tiny(resume=True)
    assert_same(outcome(run), outcome(train_tiny("whole").folder))


@pytest.mark.parametrize("share", ["one", "all"])
@pytest.mark.parametrize("kernels", ["auto", "torchvision"])
def test_photos_that_the_disk_cannot_read_are_skipped_until_they_are_too_many(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, share: str, kernels: str
) -> None:
    read, tried = Photos.read, reading.open_regular

    def refuse(path: str) -> int:
        if share == "all" or path.endswith("red/03.jpg"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return tried(path)

    monkeypatch.setattr(reading, "open_regular", refuse)
    monkeypatch.setattr(Photos, "read", lambda photos, indices, compiled=True: read(photos, indices, False))
    settings = {"data.kernels": kernels, "train.epochs": 1}
    if share == "all":
        with pytest.raises(UserError, match=r"\d+ of 36 files cannot be read, .+ last: .+Input/output error"):
            train_tiny(settings=settings)
        return
    bad = train_tiny(settings=settings).summary["bad_files"]
    assert [file["path"] for file in bad] == ["red/03.jpg"]
    assert "Input/output error" in bad[0]["error"]
