"""A training run from settings to a complete run folder."""

import time
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.config import DEMO, Config, change_config, known_keys, start_config
from flowerfast.demo.synthetic import demo_folder, demo_photos
from flowerfast.errors import UserError
from flowerfast.loaders.cache.choice import cache_places
from flowerfast.loaders.device import device_name, pick_device
from flowerfast.loaders.engine import choose_backend
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.ranges import name_stages
from flowerfast.machine import ProgressBars, lend_home, no_bars, versions
from flowerfast.photos.layout import TEST
from flowerfast.photos.photos import Photos
from flowerfast.training.compiling import CompileFailed, choose_compile, compile_network
from flowerfast.training.fit import Stop, TrainingRun, fit
from flowerfast.training.model import build_network, own_crop_pct, with_normalisation
from flowerfast.training.progress import Reporter, Silent, Standing
from flowerfast.training.run_folder import RunFolder, free_run_path
from flowerfast.training.scores import classification_report
from flowerfast.training.split_file import read_split, write_split
from flowerfast.training.state import TrainState, place_model
from flowerfast.training.trained import answers, evaluation_loader, load_run

MAY_CHANGE = (
    "data.path",
    "data.layout",
    "data.backend",
    "data.workers",
    "data.kernels",
    "data.gpu_kernels",
    "data.prefetch",
    "data.cache",
    "data.cache_gb",
    "data.cache_dir",
    "data.dali_prefetch",
    "data.on_bad",
    "data.max_bad",
    "train.compile",
    "train.patience",
    "checkpoints.keep",
    "checkpoints.every_seconds",
    "log.tensorboard",
    "log.nvtx",
)
"""Settings that a resumed run may change: they do not alter what has been computed so far. Another backend is
within the bounds of `flowerfast parity`, a compiled network within rounding; another cache must give the
same pixels (`_same_pixels`), and however the folder is read, it must hold the photos and classes of
split.json."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its folder, and the content of its summary.json."""

    folder: Path
    summary: dict[str, Any]


def train(
    data: Path | str | None = None,
    *,
    out: Path | str | None = None,
    config: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    stop: AbstractContextManager[Stop] | None = None,
    bars: ProgressBars = no_bars,
) -> TrainResult:
    """Train a classifier and leave weights, metrics, curves and a report in the run folder.

    Works in any thread: it installs no signal handlers.

    Args:
        data: folder of class folders, one with train/, val/ or test/, or one of shards. None: what the config
            or the settings name, else rendered flowers with the recipe for them.
        out: run folder; None: the next free one of runs/NAME-001, runs/NAME-002, ...
        config: YAML file, or the name of a config that ships with flowerfast: paper, demo.
        settings: values by dotted key, as `{"train.lr": 0.01}`; `flowerfast settings` lists them all.
        resume: go on with the run in `out` at its next batch; it keeps its own config.
        reporter: is told how it goes.
        stop: for as long as training goes on, says whether to stop after saving.
        bars: makes progress bars for what comes before.

    Raises UserError before anything is written, Stopped after saving, RunFailed when the loss is no number.
    """
    changes = {**({"data.path": str(Path(data).resolve())} if data is not None else {}), **(settings or {})}
    stored, saved = None, None
    if resume:
        folder, stored, saved = _reopen(out, config)
        resolved = resume_config(stored, changes) if saved is not None else change_config(stored, (), changes)
    else:
        resolved = start_config(config, changes)
        name = Path(resolved.data.path).name if resolved.data.path else DEMO
        folder = RunFolder(Path(out) if out is not None else free_run_path(Path("runs"), name or "run"))
    reporter = reporter or Silent()
    reporter.start_run(resolved, folder.path)
    if saved is None:
        folder.check_free()
    if saved is not None and stored is not None:
        resolved = _as_recorded(resolved, stored, saved)
    return _train(resolved, folder, saved, reporter, stop, bars)


def resume_config(stored: Config, changes: Mapping[str, Any]) -> Config:
    """Configuration of a resumed run. Raises UserError when it would alter what has been computed."""
    config = change_config(stored, (), changes)
    before, after = stored.model_dump(), config.model_dump()
    by_epoch = stored.train.schedule in ("step", "constant")
    for key in known_keys():
        section, _, name = key.partition(".")
        free = key in MAY_CHANGE or (key == "train.epochs" and by_epoch)
        if not free and before[section][name] != after[section][name]:
            raise UserError(
                f"{key}={after[section][name]!r}: the run began with {before[section][name]!r} and must keep "
                f"that; a resumed run may change {', '.join(MAY_CHANGE)}"
            )
    return config


def _reopen(
    out: Path | str | None, config: Path | str | None
) -> tuple[RunFolder, Config, dict[str, Any] | None]:
    """The run to go on with: its folder, its configuration and its last save, None before the first."""
    if out is None:
        raise UserError("--resume: name the run to go on with, --out RUN")
    if config is not None:
        raise UserError(
            f"--config {config}: a resumed run keeps its own config.yaml; drop --config or --resume"
        )
    folder = RunFolder(Path(out))
    return folder, folder.open(), folder.load_last() if folder.has_save else None


def _as_recorded(config: Config, stored: Config, saved: Mapping[str, Any]) -> Config:
    """The settings with what the run chose when it began, backend, cache, share of the hardware decoder and
    compiling, where that still can be had.

    What `auto` would choose today may be something else, with other pixels.
    """
    record: dict[str, Any] = dict(saved.get("loader", {}))
    changes: dict[str, Any] = {}
    if "backend" in record and config.data.backend == stored.data.backend:
        changes["data.backend"] = record["backend"]
        try:
            choose_backend(change_config(config, (), changes).data, pick_device(config.train.device))
        except UserError:  # not on this machine
            changes = {}
    if "cache" in record and config.data.cache == stored.data.cache:
        backend = changes.get("data.backend", config.data.backend)
        cache, places = record["cache"], cache_places(backend, pick_device(config.train.device))
        if cache != "none" and cache not in places:
            cache = "auto" if backend == "auto" else places[0]
        changes["data.cache"] = cache
    if "hw_decoder_load" in record and stored.data.hw_decoder_load == "auto":
        changes["data.hw_decoder_load"] = record["hw_decoder_load"]
    if "compile" in record and config.train.compile == stored.train.compile:
        chose = "off" if record["compile"] == "off" else "on"
        if chose == "off" or pick_device(config.train.device).type == "cuda":
            changes["train.compile"] = chose
    if changes.get("data.backend") == "dali" and config.data.gpu_kernels == stored.data.gpu_kernels == "auto":
        # A run from before there were kernels of our own, or where they failed, keeps DALI's pixels.
        changes["data.gpu_kernels"] = "auto" if record.get("gpu_kernels") == "triton" else "dali"
    return change_config(config, (), changes)


def _train(
    config: Config,
    folder: RunFolder,
    saved: dict[str, Any] | None,
    reporter: Reporter,
    stop: AbstractContextManager[Stop] | None,
    bars: ProgressBars,
) -> TrainResult:
    started = time.perf_counter()
    config = _with_photos(config, bars)
    name_stages(config.log.nvtx)
    device = pick_device(config.train.device)
    choose_backend(config.data, device)  # says what is missing before the photos are looked at
    with bars("reading headers") as bar:
        photos = Photos.open(str(config.data.path), config.data, bar)
    if saved is None:
        train_photos, val_photos = photos.split(config.data.val_fraction, config.train.seed)
    else:
        train_photos, val_photos = read_split(folder.split, photos)
    crop_pct = own_crop_pct(config.model.name) if config.eval.crop_pct is None else config.eval.crop_pct
    with ExitStack() as stack:
        train_loader = stack.enter_context(training_loader(config, train_photos, device))
        # One backend for both halves, as after a resume: what was measured may differ with the cache.
        same = change_config(config, (), {"data.backend": train_loader.backend})
        val_loader = stack.enter_context(validation_loader(same, val_photos, crop_pct, device))
        loaders = train_loader, val_loader
        if saved is not None:
            _same_pixels(loaders[0], saved, config)
        torch.manual_seed(config.train.seed)  # the new head, random weights, dropout
        # A resumed run brings its weights: neither the hub nor the weights file need be at hand.
        start = config.model
        if saved is not None:
            start = start.model_copy(update={"pretrained": False, "weights": None})
        network = build_network(start, photos.classes, config.data.image_size, crop_pct)
        model = place_model(with_normalisation(network), config.train, device)
        _announce(loaders, folder, reporter)
        notes = _tell(loaders, [], reporter)
        warm_up = loaders[0].warm_up()  # before the clock starts: compiling is no waiting for data
        if saved is None:
            folder.create(config)
            write_split(train_photos, val_photos, folder.split)
        state = TrainState(model, config.train, device, len(loaders[0]))
        compiled = _compile(state, config, len(train_photos), reporter, notes)
        record = {
            **loaders[0].choice(),
            "photo_sizes": photo_sizes(photos),
            "compile": compiled["compile"],
        }
        with stop or nullcontext(lambda: None) as asked:
            run = TrainingRun(config, folder, list(photos.classes), state, *loaders, reporter, record, asked)
            standing = fit(run, saved)
            with run.spent.on("evaluate"):
                tested = _test(run, photos.test)
    notes = _tell(loaders, notes, reporter)  # a disk may have filled up since
    seconds = time.perf_counter() - started
    spent = run.spent.summary(started, seconds)
    tested |= {**compiled, **spent, "warmup_seconds": warm_up, "notes": notes}
    summary = {**_summarise(run, standing, seconds), **tested}
    folder.write_summary(summary)
    draw(folder, standing.history, summary)
    return TrainResult(folder.path, summary)


def _compile(
    state: TrainState, config: Config, samples: int, reporter: Reporter, notes: list[str]
) -> dict[str, Any]:
    """Compile the network where that is chosen and can be had: what summary.json says of it.

    Where it cannot, the run goes on without, and a note is added to `notes`.
    """
    mode, why = choose_compile(config, state.device, samples)
    reporter.note(f"torch.compile: {mode} ({why})")
    seconds = 0.0
    try:
        seconds = compile_network(state, config.data.image_size, mode)
    except CompileFailed as error:
        mode, why = "off", str(error)
        notes.append(f"{error}; this run goes on without")
        reporter.note(notes[-1])
    return {"compile": mode, "compile_reason": why, "compile_seconds": seconds}


def _with_photos(config: Config, bars: ProgressBars) -> Config:
    """The settings with the folder of the photos in full; rendered flowers are made if need be."""
    path = Path(config.data.path or demo_folder()).resolve()
    if path == demo_folder().resolve():
        with bars("rendering flowers") as bar:
            demo_photos(bar)
    return change_config(config, (), {"data.path": str(path)})


def training_loader(config: Config, photos: Photos, device: str | torch.device) -> Loader:
    """Loader of the training half, as the settings have it."""
    return Loader(
        photos,
        size=config.data.image_size,
        batch_size=config.train.batch_size,
        augment=config.augment,
        seed=config.train.seed,
        device=device,
        options=config.data,
    )


def validation_loader(config: Config, photos: Photos, crop_pct: float, device: torch.device) -> Loader:
    """Loader of the other half: clean or augmented, never cached, decoded once where memory allows."""
    return Loader(
        photos,
        size=config.data.image_size,
        batch_size=config.eval.batch_size or config.train.batch_size,
        augment=config.augment if config.eval.augmented else None,
        shuffle=False,
        seed=config.train.seed,
        crop_pct=crop_pct,
        device=device,
        cache="none",
        options=config.data,
        keep=True,
    )


def _test(run: TrainingRun, photos: Photos) -> dict[str, Any]:
    """What summary.json says of the photos in test/: accuracy of the best weights, asked once, at the end."""
    if not len(photos):
        return {"test_acc": None, "test_loss": None, "test_samples": 0}
    config, trained = run.config, load_run(run.folder.path, run.state.device)
    size = config.eval.batch_size or config.train.batch_size
    with evaluation_loader(trained, photos.with_classes(trained.classes), size, config.data) as loader:
        result = answers(trained, loader, config.train.amp)
    samples = int(result.confusion.sum())
    return {"test_acc": result.accuracy, "test_loss": result.loss, "test_samples": samples}


def photo_sizes(photos: Photos) -> int:
    """A number that tells whether all photos of a folder have the sizes they had."""
    table = photos.table
    return zlib.crc32(np.ascontiguousarray(np.stack([table.width, table.height])).data)


def _same_pixels(loader: Loader, saved: Mapping[str, Any], config: Config) -> None:
    """Raise UserError when a resumed run would see other pixels than the run that was saved."""
    record = saved.get("loader", {})  # absent from what earlier versions saved
    if record.get("photo_sizes", photo_sizes(loader.photos)) != photo_sizes(loader.photos):
        raise UserError(
            f"{loader.photos.root}: photos have other sizes in pixels than when the run began; bring "
            "those back or start a new run"
        )
    short = int(np.minimum(*loader.photos.sizes(loader.photos.indices)).max())
    before = record.get("cache", loader.cache)
    if (before == "none") != (loader.cache == "none") and short > config.data.cache_side:
        raise UserError(
            f"data.cache={loader.cache}: the run began with {before}, and a cache shrinks these photos to "
            f"data.cache_side={config.data.cache_side}; set data.cache={before}"
        )


def draw(folder: RunFolder, history: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Curves, confusion matrix and report of a finished run."""
    lend_home()
    # Only now: matplotlib takes long to import, and the best weights need not wait for it.
    from flowerfast.training.report import plot_confusion, plot_curves, write_report

    plot_curves(history, folder.curves)
    plot_confusion(np.array(summary["confusion"], np.int64), summary["classes"], folder.confusion)
    write_report(folder.path)


def _announce(loaders: tuple[Loader, Loader], folder: RunFolder, reporter: Reporter) -> None:
    train, val = loaders
    photos = train.photos
    counts = f"{len(photos)} photos to train on, {len(val.photos)} to validate on"
    held = int((photos.table.fold == TEST).sum())
    counts += f", {held} to test at the end" if held else ""
    reporter.note(f"data: {counts}, {len(photos.classes)} classes: {photos.root}")
    for bad in photos.bad:
        reporter.note(f"skipped: {bad.path}: {bad.error}")
    reporter.note(f"backend: {train.backend} ({train.backend_reason}), device {device_name(train.device)}")
    reporter.note(f"decoded cache: {train.cache} ({train.cache_reason})")
    reporter.note(f"run folder: {folder.path}")


def _tell(loaders: tuple[Loader, Loader], told: list[str], reporter: Reporter) -> list[str]:
    """Report what the loaders have to say and have not said yet; all that they said."""
    notes = [*dict.fromkeys([*told, *(note for loader in loaders for note in loader.notes)])]
    for note in notes[len(told) :]:
        reporter.note(note)
    return notes


def _summarise(run: TrainingRun, standing: Standing, seconds: float) -> dict[str, Any]:
    history, c, loader = standing.history, run.config, run.train_loader
    report = classification_report(np.array(standing.confusion, np.int64), run.classes)
    steady = history[1:] or history  # the first epoch pays for warm-up
    return {
        "best_epoch": standing.best_epoch,
        "best_val_acc": standing.best_val_acc,
        "epochs_run": len(history),
        "stopped_early": len(history) < c.train.epochs,
        "val_protocol": "augmented" if c.eval.augmented else "clean",
        "model": c.model.name,
        "parameters": sum(p.numel() for p in run.state.model.parameters()),
        "backend": loader.backend,
        "backend_reason": loader.backend_reason,
        "cache": loader.cache,
        "cache_reason": loader.cache_reason,
        "device": device_name(loader.device),
        "amp": run.state.precision.name,
        "images_per_sec": float(np.median([row["images_per_sec"] for row in steady])),
        "data_wait": float(np.median([row["data_wait"] for row in steady])),
        "seconds": seconds,
        "classes": run.classes,
        "train_samples": len(loader.photos),
        "val_samples": len(run.val_loader.photos),
        "macro_f1": report["macro_f1"],
        "per_class": report["per_class"],
        "confusion": standing.confusion,
        "bad_files": [{"path": b.path, "error": b.error} for b in loader.photos.bad],
        "versions": versions(),
    }
