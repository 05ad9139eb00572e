"""`train`: from settings to a complete run folder; what it refuses, and what it leaves alone."""

import html
import json
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from flowerfast.config import Config, DataConfig
from flowerfast.demo.synthetic import demo_folder
from flowerfast.errors import UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config, start_config
from flowerfast.training.progress import Silent
from flowerfast.training.resuming import MAY_CHANGE, resume_config
from flowerfast.training.run import TrainResult, train
from flowerfast.training.trained import evaluate, load_run

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
        "config.yaml", "split.json", "metrics.jsonl", "summary.json", "report.html",
        "accuracy_loss_curve.png", "confusion_matrix.png", "best/config.json", "best/model.safetensors",
        "checkpoints/epoch_000.safetensors", "checkpoints/epoch_001.safetensors", "checkpoints/last.pt",
        "checkpoints/last.previous.pt",
    }  # fmt: skip
    assert all((run / name).stat().st_size > 0 for name in left)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert set(rows[0]) == {
        "epoch", "train_loss", "train_acc", "val_loss", "val_acc", "lr",
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


def test_the_config_it_leaves_gives_the_same_run(train_tiny: Train, rows: Rows, tmp_path: Path) -> None:
    first = train_tiny("a")
    second = train_tiny("b", data=None, config=tmp_path / "a/config.yaml")
    assert rows(first.folder) == rows(second.folder)
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()


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


# -------------------------------------------------------------------------------------------- which config


@pytest.mark.parametrize("halves", [("train", "test"), ("Training", "valid", "Testing")])
def test_what_lies_in_test_is_asked_once_at_the_end(
    train_tiny: Train, photos: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch, halves: tuple[str, ...]
) -> None:
    root = photos.parent / "halves"
    for half in halves:
        shutil.copytree(photos, root / half)
    for path in (root / halves[-1]).rglob("*.jpg"):
        if path.stem > "04":
            path.unlink()  # so that each set has a number of its own
    seen: list[set[str]] = []
    engine = Loader.epoch

    def watched(loader: Loader, *args: Any) -> Iterator[Batch]:
        seen.append({loader.photos.path(i).split("/")[0] for i in loader.photos.indices.tolist()})
        return engine(loader, *args)

    monkeypatch.setattr(Loader, "epoch", watched)
    result = train_tiny(data=root, plots=True)
    held = halves[1] if len(halves) == 3 else halves[0]
    assert seen == [{halves[0]}, {held}] * 2 + [{halves[-1]}]
    assert result.summary["test_samples"] == 15
    counts = result.summary["train_samples"], result.summary["val_samples"]
    assert counts == ((36, 36) if len(halves) == 3 else (30, 6))
    report = evaluate(result.folder, root, half="test", device="cpu")
    assert (report["samples"], report["accuracy"]) == (15, result.summary["test_acc"])
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "<dt>Test accuracy</dt>" in page
    assert f"{result.summary['test_acc']:.1%}" in page
    monkeypatch.setattr(Loader, "epoch", engine)
    without = train_tiny("without", data=_without(root, halves[-1]))
    assert rows(without.folder) == rows(result.folder)  # nothing else hung on it
    assert (without.summary["test_acc"], without.summary["test_samples"]) == (None, 0)


def _without(root: Path, half: str) -> Path:
    shutil.rmtree(root / half)
    return root


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


def test_notes_on_the_folder_are_in_summary_and_report(train_tiny: Train, photos: Path) -> None:
    (photos / "red/x.heic").write_bytes(b"no photo")
    result = train_tiny(plots=True)
    (note,) = (note for note in result.summary["notes"] if "heic" in note)
    assert "1 .heic (convert to JPEG); first: red/x.heic" in note
    assert note in html.unescape((result.folder / "report.html").read_text(encoding="utf-8"))


def test_photos_named_by_a_setting_do_not_get_the_recipe_of_rendered_flowers(
    train_tiny: Train, photos: Path
) -> None:
    assert start_config(None, {"data.path": "p"}) == load_config(None, ["data.path=p"])
    folder = train_tiny(data=None, settings={"data.path": str(photos), "train.epochs": 1}).folder
    config, defaults = load_config(folder / "config.yaml"), Config()
    assert config.data.path == str(photos)
    for name in ("schedule", "weight_decay", "momentum"):
        assert getattr(config.train, name) == getattr(defaults.train, name)
    assert config.augment == defaults.augment


@pytest.mark.parametrize("base", [None, "demo"])
def test_without_photos_it_is_the_demo(base: str | None) -> None:
    assert start_config(base, {}) == load_config("demo")
    assert start_config(base, {"train.epochs": 3}).train.epochs == 3
    assert start_config(None, {"data.path": None}) == load_config("demo")


@pytest.mark.parametrize("base", ["paper", "mine.yaml"])
def test_another_recipe_needs_photos(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("train: {epochs: 3}\n")
    with pytest.raises(
        UserError, match=rf"^--config {base}: no photos are named; give their folder"
    ) as caught:
        start_config(base, {})
    assert "\n" not in str(caught.value)
    assert start_config(base, {"data.path": "photos"}) == load_config(base, ["data.path=photos"])
    Path("mine.yaml").write_text("data: {path: photos}\n")
    assert start_config("mine.yaml", {}).data.path == "photos"


def test_the_config_of_a_demo_run_is_a_config(
    train_tiny: Train, rows: Rows, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rendered(_: object = None) -> Path:
        if not demo_folder().exists():
            demo_folder().parent.mkdir(parents=True, exist_ok=True)
            photos.rename(demo_folder())
        return demo_folder()

    monkeypatch.setattr("flowerfast.training.run.demo_photos", rendered)
    quick = {"train.epochs": 1, "model.name": "test_resnet", "data.image_size": 32}
    first = train_tiny("first", quick, data=None)
    config = load_config(first.folder / "config.yaml")
    assert (config.train.schedule, config.train.lr) == ("onecycle", 0.05)  # the recipe, and a setting
    again = train_tiny("again", data=None, config=first.folder / "config.yaml")
    assert rows(again.folder) == rows(first.folder)


def test_a_resumed_run_may_change_what_leaves_the_past_alone_and_no_more() -> None:
    stored = load_config("paper")
    others = {
        "data.path": "p", "data.backend": "cpu", "data.workers": 7, "data.kernels": "numba",
        "data.prefetch": 9, "data.cache": "ram", "data.cache_gb": 1.0, "data.cache_dir": "d",
        "data.dali_prefetch": 3, "data.layout": "split", "data.gpu_kernels": "dali",
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


# -------------------------------------------------------------------------------- with another's weights


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
    assert (child.folder / "split.json").read_text() == (parent / "split.json").read_text()
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


def test_what_has_no_weights_is_no_parent(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--from .*photos: no run with weights there; give a run folder"):
        train(start_from=tmp_path / "photos", out=tmp_path / "child")
    with pytest.raises(UserError, match=r"drop --from or --resume$"):
        train(start_from=tmp_path, out=tmp_path / "child", resume=True)
