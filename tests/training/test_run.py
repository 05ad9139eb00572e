"""`train`: from settings to a complete run folder; what it refuses, and what it leaves alone."""

import csv
import json
import re
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flowerfast.config import Config, DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.progress import Silent
from flowerfast.training.run import TrainResult, train
from flowerfast.training.trained import load_run

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]


@pytest.mark.parametrize("out", ["run", None])
def test_a_run_has_its_folder_for_itself_and_others_may_read_it(
    train_tiny: Train, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / (out or "runs/photos-001")
    refused: list[str] = []
    steps = count()

    def others() -> None:
        """In the second epoch: there are weights by then."""
        if next(steps) == 7:
            for resume in (True, False):
                with pytest.raises(UserError) as caught:
                    train(None if resume else photos, out=run, resume=resume)
                refused.append(str(caught.value))
            assert evaluate(run, photos, half="val")["samples"] == 6
            train_tiny("child", {"train.epochs": 1}, start_from=run)

    train_tiny(out, stop=nullcontext(others))
    assert len(refused) == 2
    for said in refused:
        assert said.startswith(f"{run}: another process")
        assert said.endswith(" is writing to it; wait for it to end, or choose another --out")
    train_tiny(out or "runs/photos-001", resume=True)  # it is free again


def test_a_start_that_is_refused_leaves_no_folder(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        train_tiny("new/run", data=tmp_path / "none")
    with pytest.raises(UserError, match="no run to resume there"):
        train_tiny("new/run", resume=True)
    assert not (tmp_path / "new").exists()


def test_a_run_leaves_a_complete_folder(train_tiny: Train, tmp_path: Path) -> None:
    result = train_tiny(plots=True)
    run = tmp_path / "run"
    assert result.folder == run
    left = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    assert left == {
        "config.yaml", "split.json", "metrics.jsonl", "metrics.csv", "summary.json", "report.html",
        "accuracy_loss_curve.png", "confusion_matrix.png", "best/config.json", "best/model.safetensors",
        "checkpoints/epoch_000.safetensors", "checkpoints/epoch_001.safetensors", "checkpoints/last.pt",
        "checkpoints/last.previous.pt",
    }  # fmt: skip
    assert all((run / name).stat().st_size > 0 for name in left)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    with (run / "metrics.csv").open(newline="") as file:
        table = [*csv.DictReader(file)]
    assert [{key: float(cell) for key, cell in row.items()} for row in table] == rows
    assert set(rows[0]) == {
        "epoch", "train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1", "lr",
        "images_per_sec", "data_wait", "seconds",
    }  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert len(summary.pop("sha256")) == 64
    assert summary == result.summary
    assert summary["best_val_acc"] == max(row["val_acc"] for row in rows)
    assert (summary["backend"], summary["cache"], summary["epochs_run"]) == ("cpu", "none", 2)
    assert summary["backend_reason"]
    split = [summary[f"{part}_seconds"] for part in ("startup", "train", "eval", "write")]
    assert 0 < summary["warmup_seconds"] < summary["startup_seconds"]
    assert min(split) > 0
    assert sum(split) == pytest.approx(summary["seconds"])
    assert sum(summary["confusion"]["count"]) == summary["val_samples"] == 6
    assert summary["train_samples"] == 30


def test_a_run_says_and_records_how_photos_are_turned(
    train_tiny: Train, turned: tuple[Path, Path], rows: Rows, tmp_path: Path
) -> None:
    settings = {"train.epochs": 1}
    result = train_tiny("turned", settings, turned[0])
    note = "49 of 64 photos are stored turned and are turned upright (data.exif=apply)"
    assert result.summary["notes"].count(note) == 1
    assert load_run(result.folder, "cpu").exif == "apply"
    assert rows(train_tiny("upright", settings, turned[1]).folder) == rows(result.folder)
    ignored = train_tiny("ignored", {**settings, "data.exif": "ignore"}, turned[0])
    assert note not in ignored.summary["notes"]
    assert load_run(ignored.folder, "cpu").exif == "ignore"
    assert rows(ignored.folder) != rows(result.folder)


def test_any_number_of_workers_gives_the_same_run(train_tiny: Train, rows: Rows) -> None:
    one = train_tiny("one", {"data.workers": 1})
    three = train_tiny("three", {"data.workers": 3, "data.prefetch": 1})
    assert rows(one.folder) == rows(three.folder)


def test_it_learns_and_the_best_model_loads_with_timm_alone(train_tiny: Train) -> None:
    result = train_tiny(settings={"train.epochs": 6})
    assert result.summary["best_val_acc"] >= 0.9
    trained = load_run(result.folder, "cpu")
    network = timm.create_model(f"local-dir:{result.folder / 'best'}", pretrained=True).eval()
    cfg = network.pretrained_cfg
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        torch.testing.assert_close(
            trained.model(images), network((images / 255 - mean) / std), atol=1e-4, rtol=1e-4
        )
    assert cfg["input_size"] == (3, 32, 32)
    assert tuple(cfg["label_names"]) == trained.classes == ("blue", "green", "red")


def test_it_runs_outside_the_main_thread_and_leaves_signals_alone(train_tiny: Train) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    seen: list[Any] = []

    class Watching(Silent):
        def step(self, samples: int, read: Any) -> None:
            seen.append([signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)])

    def work() -> None:
        seen.append(train_tiny(settings={"train.epochs": 1}, reporter=Watching()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    *handlers, result = seen
    assert result.summary["epochs_run"] == 1
    assert handlers == [before] * 4


def test_a_reporter_is_told_before_anything_is_written(train_tiny: Train, tmp_path: Path) -> None:
    told: list[str] = []

    class Telling(Silent):
        def start_run(self, config: Config, folder: Path) -> None:
            assert (folder, [*folder.iterdir()], config.train.epochs) == (tmp_path / "run", [], 1)
            told.append("run")

        def start_epoch(self, epoch: int, batches: int, done: int) -> None:
            told.append(f"epoch {epoch}: {done} of {batches}")

        def step(self, samples: int, read: Any) -> None:
            told.append(f"{samples} samples")

        def end_epoch(self, row: dict[str, Any], best: bool) -> None:
            told.append(f"end of {row['epoch']}, best: {best}")

        def note(self, text: str) -> None:
            told.append(text.split(": ")[0])

    train_tiny(settings={"train.epochs": 1}, reporter=Telling())
    assert told == [
        "run", "data", "backend", "decoded cache", "run folder", "torch.compile",
        "epoch 0: 0 of 4", "8 samples", "8 samples", "8 samples", "6 samples", "end of 0, best: True",
    ]  # fmt: skip


def test_a_run_without_a_name_gets_that_of_the_photos_and_the_next_number(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/photos-001").mkdir(parents=True)
    assert train_tiny(None, {"train.epochs": 1}).folder == Path("runs/photos-002")
    assert load_config("runs/photos-002/config.yaml").data.path == str(tmp_path / "photos")


# ------------------------------------------------------------------------------------------------- settings


def test_patience_stops_early(train_tiny: Train) -> None:
    summary = train_tiny(settings={"train.epochs": 30, "train.patience": 1, "train.lr": 1e-9}).summary
    assert summary["stopped_early"]
    assert summary["epochs_run"] == summary["best_epoch"] + 2


def test_keep_limits_the_weights_of_epochs(train_tiny: Train) -> None:
    folder = train_tiny(settings={"train.epochs": 4, "checkpoints.keep": 2}).folder
    names = sorted(p.name for p in (folder / "checkpoints").glob("epoch_*"))
    assert names == ["epoch_002.safetensors", "epoch_003.safetensors"]


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_other_schedules_and_augmented_validation(train_tiny: Train, rows: Rows, schedule: str) -> None:
    result = train_tiny(settings={"train.schedule": schedule, "eval.augmented": True})
    rates = [row["lr"] for row in rows(result.folder)]
    assert rates[0] > rates[1] if schedule != "constant" else rates == [0.05, 0.05]
    assert result.summary["val_protocol"] == "augmented"


def test_memory_format_and_cached_photos_leave_the_result_alone(train_tiny: Train, rows: Rows) -> None:
    plain = train_tiny("plain")
    other = train_tiny("other", {"train.channels_last": "on", "data.cache": "ram", "data.cache_side": 4000})
    for a, b in zip(rows(plain.folder), rows(other.folder), strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    assert other.summary["cache"] == "ram"
    assert load_run(other.folder, "cpu").classes == ("blue", "green", "red")


def test_a_bad_photo_is_named_skipped_and_counted(train_tiny: Train, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "red/00.jpg").read_bytes()
    (photos / "red/00.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    told: list[str] = []

    class Telling(Silent):
        def note(self, text: str) -> None:
            told.append(text)

        def end_epoch(self, row: dict[str, Any], best: bool) -> None:
            told.append(f"end of {row['epoch']}")

    summary = train_tiny(settings={"data.max_bad": 0.2}, reporter=Telling()).summary
    assert {row["path"] for row in summary["bad_files"]} == {"red/00.jpg", "blue/01.jpg"}
    named = [line for line in told if re.match("skipped|end of|2 of", line)]
    assert named[:2] == ["skipped: blue/01.jpg: not an image", "end of 0"]
    assert named[2].startswith("skipped: red/00.jpg: "), "once, after the epoch that found it"
    assert named[3:] == ["end of 1", "2 of 36 files skipped"]
    with pytest.raises(UserError, match=r"blue/01\.jpg: not an image.*data\.on_bad=skip"):
        train_tiny("strict", {"data.max_bad": 0.2, "data.on_bad": "fail"})
    assert not (tmp_path / "strict").exists()


def test_a_run_inside_the_photos_is_no_class_of_the_next(
    train_tiny: Train, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    first = train_tiny(None, data=Path("."), plots=True)
    assert first.folder.resolve().is_relative_to(photos)
    assert any(first.folder.rglob("*.png"))
    again = train_tiny(None, data=Path("."))
    assert again.summary["classes"] == first.summary["classes"] == ["blue", "green", "red"]
    assert "runs/photos-001/: a run folder of flowerfast, left out" in again.summary["notes"]
    assert again.summary["train_samples"] == first.summary["train_samples"]


def test_both_halves_come_from_one_backend(train_tiny: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was measured for the one with a cache and for the other without."""
    pytest.importorskip("nvidia.dali")
    opened, open_engine = [], loader_module.open_engine

    def choose(data: DataConfig, device: torch.device, photos: Photos | None = None) -> tuple[str, str]:
        by_cache = "cpu" if data.cache == "ram" else "dali-cpu"
        return (by_cache if data.backend == "auto" else data.backend), "measured"

    def watched(backend: str, *more: Any) -> Any:
        opened.append(backend)
        return open_engine(backend, *more)

    monkeypatch.setattr(loader_module, "choose_backend", choose)
    monkeypatch.setattr(loader_module, "open_engine", watched)
    train_tiny(settings={"data.cache": "ram", "data.backend": "auto", "train.epochs": 1})
    assert opened == ["cpu", "cpu"]


# ------------------------------------------------------------------------- what leaves no trace, and sizes


@pytest.mark.parametrize("out", ["run", None])
def test_a_run_that_fails_before_a_batch_is_saved_leaves_no_folder(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("flowerfast.training.fit.train_step", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            train_tiny(out)
    assert not (tmp_path / "run").exists()
    assert not [*tmp_path.glob("runs/*")]
    assert train_tiny(out, {"train.epochs": 1}).folder.name == (out or "photos-001")


def test_weights_that_were_written_are_never_taken_away(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk")

    monkeypatch.setattr("flowerfast.training.run_folder.RunFolder.save_best", fail)
    with pytest.raises(OSError, match="disk"):
        train_tiny()
    assert (tmp_path / "run/checkpoints/epoch_000.safetensors").is_file()


@pytest.mark.parametrize(("name", "size", "fits"), [("test_coatnet", 100, "96")])
def test_a_model_and_a_size_that_do_not_fit_are_refused_before_a_folder_is_made(
    train_tiny: Train, tmp_path: Path, name: str, size: int, fits: str
) -> None:
    with pytest.raises(UserError) as caught:
        train_tiny(settings={"model.name": name, "data.image_size": size})
    said = str(caught.value)
    assert said.startswith(f"data.image_size={size}: model.name={name} does not take such images (")
    assert fits in said.rpartition("sizes that fit: ")[2].split(", ")
    assert "\n" not in said
    assert not (tmp_path / "run").exists()
