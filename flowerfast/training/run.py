"""A training run from settings to a complete run folder."""

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flowerfast.arguments import of_kind, path, progress_bars, signal_asked
from flowerfast.config import Config, ModelConfig
from flowerfast.demo.synthetic import demo_folder, demo_photos
from flowerfast.errors import UserError
from flowerfast.loaders.device import device_name, pick_device
from flowerfast.loaders.engine import choose_backend
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.ranges import name_stages
from flowerfast.machine import ProgressBars, lend_home, no_bars
from flowerfast.photos.layout import TEST
from flowerfast.photos.photos import Photos
from flowerfast.settings import DEMO, change_config, start_config
from flowerfast.training.architecture import FOLDER, configured
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.compiling import CompileFailed, choose_compile, compile_network
from flowerfast.training.fit import fit
from flowerfast.training.half_loaders import training_loader, validation_loader
from flowerfast.training.image_size import least_batch
from flowerfast.training.loss import balanced_weights
from flowerfast.training.model import build_network, own_crop_pct, with_normalisation
from flowerfast.training.optimizer import check_optimizer
from flowerfast.training.parent import parent_settings, split_photos
from flowerfast.training.progress import Reporter, Silent, Stop
from flowerfast.training.resuming import (
    began_with,
    check_pixels,
    check_resume,
    keep_changes,
    photo_sizes,
    reopen,
)
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.run_place import claim_run_path
from flowerfast.training.split_file import write_split
from flowerfast.training.state import TrainState, place_model
from flowerfast.training.summary import scores_on_test, summarise


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
    start_from: Path | str | None = None,
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
        resume: go on with the run in `out` at its next batch; it keeps its own config. A run that has ended
            goes on when `settings` give it more epochs.
        start_from: a run whose weights, the best ones or those of one of its files, a new run begins with,
            and whose settings unless `config` is given.
        reporter: is told how it goes.
        stop: for as long as training goes on, says whether to stop after saving.
        bars: makes progress bars for what comes before.

    Raises UserError before anything is written, as when another process writes to the run folder; Stopped
    after saving; RunFailed when a loss is no number, a disk is full, the run folder is moved or deleted, or
    `stop` gives something else.
    """
    of_kind("settings", settings, Mapping | None, "a mapping from dotted keys to values")
    of_kind("resume", resume, bool, "True or False")
    bars = progress_bars(bars)
    of_kind("reporter", reporter, Reporter | None, "an object with the methods of Reporter")
    of_kind("stop", stop, AbstractContextManager | None, "a context manager")
    given = {"data": data, "out": out, "start_from": start_from}
    data, out, start_from = (each if each is None else path(name, each) for name, each in given.items())
    changes = {**({"data.path": str(Path(data).resolve())} if data is not None else {}), **(settings or {})}
    folder = RunFolder(Path(out)) if out is not None else None
    if resume:
        folder = check_resume(out, config, start_from)
    else:
        if start_from is not None:
            config, inherited = parent_settings(start_from, config)
            changes = {**inherited, **changes}
        resolved = start_config(config, changes)
    with folder.only_writer() if folder is not None else nullcontext():
        saved = None
        if resume and folder is not None:
            resolved, saved = reopen(folder, changes)
        if saved is None and folder is not None:
            folder.check_free()
        return _train(resolved, folder, saved, reporter or Silent(), stop, bars)


def _train(
    config: Config,
    folder: RunFolder | None,
    saved: dict[str, Any] | None,
    reporter: Reporter,
    stop: AbstractContextManager[Stop] | None,
    bars: ProgressBars,
) -> TrainResult:
    started = time.perf_counter()
    resumed = folder if saved is not None else None
    config = _with_photos(config, resumed, bars)
    name_stages(config.log.nvtx)
    device = pick_device(config.train.device)
    choose_backend(config.data, device)  # says what is missing before the photos are looked at
    check_optimizer(config.train)
    start, size = _start(config, resumed), config.data.image_size
    least = least_batch(configured(start, size), size, config.train.batch_size)
    with bars("reading headers") as bar:
        photos = Photos.open(str(config.data.path), config.data, bar)
    train_photos, val_photos, note = split_photos(config, resumed, photos)
    crop_pct = own_crop_pct(start.name) if config.eval.crop_pct is None else config.eval.crop_pct
    with ExitStack() as held, ExitStack() as stack:
        train_loader = stack.enter_context(training_loader(config, train_photos, device, fold_last=least > 1))
        # One backend for both halves, as after a resume: what was measured may differ with the cache.
        same = change_config(config, (), {"data.backend": train_loader.backend})
        validation = partial(validation_loader, same, val_photos, crop_pct, device)
        val_loader = stack.enter_context(validation(config.eval.augmented is True))
        both = config.eval.augmented == "both"
        augmented_loader = stack.enter_context(validation(True)) if both else None
        loaders = train_loader, val_loader
        if saved is not None:
            check_pixels(train_loader, val_photos, saved, config)
        torch.manual_seed(config.train.seed)  # the new head, random weights, dropout
        said, told = [note] if note else [], list[str]()

        def say(text: str) -> None:
            """Tell at once: what is fetched may take long."""
            told.append(text)
            reporter.note(text)

        network = build_network(start, photos.classes, size, crop_pct, say, config.eval.image_size)
        model = place_model(with_normalisation(network), config.train, device)
        state = TrainState(
            model, config.train, device, len(train_loader), least, _class_weights(config, train_photos)
        )
        if folder is None:
            folder = RunFolder(claim_run_path(Path("runs"), _name(config)), claimed=True)
            held.enter_context(folder.only_writer())
        said += folder.notes
        fresh = folder.discarded_on_failure() if saved is None else nullcontext()
        with folder.explaining(), fresh:
            reporter.start_run(config, folder.path)
            _announce(loaders, folder, reporter)
            announced = len(photos.bad)
            notes = _tell(loaders, said, told, reporter)
            warm_up = train_loader.warm_up(compiler=False)  # before the clock starts
            if saved is None:
                folder.create(config)
                write_split(train_photos, val_photos, folder.split, began_with(config))
            else:
                keep_changes(config, folder)
            compiled = _compile(state, config, len(train_photos), reporter, said)
            record = {**train_loader.choice(), "photo_sizes": photo_sizes(train_photos, val_photos)}
            record |= {"compile": compiled["compile"], "run": folder.identity()}
            with stop or nullcontext(lambda: None) as asked:
                run = TrainingRun(
                    config,
                    folder,
                    list(photos.classes),
                    state,
                    *loaders,
                    reporter,
                    record,
                    signal_asked(asked),
                    augmented_loader=augmented_loader,
                )
                run.named = announced
                try:
                    standing = fit(run, saved)
                finally:
                    run.name_bad()
            with run.spent.on("evaluate"):
                tested = scores_on_test(run, photos.test)
        stack.close()  # the loaders: what follows needs none, and the folder is held until it is done
        run.name_bad()
        if standing.alone:
            said.append(
                f"left out: {standing.alone} times a photo that damaged files had left alone in its batch"
            )
        if run.refused:
            said.append(f"saves that the disk had no room for: {run.refused}; the last one is whole")
        notes = _tell(loaders, said, notes, reporter)  # a disk may have filled up since
        if photos.bad:
            reporter.note(f"{len(photos.bad)} of {len(photos.table) + len(photos.table.bad)} files skipped")
        seconds = time.perf_counter() - started
        spent = {**run.spent.summary(started, seconds), "warmup_seconds": warm_up}
        summary = {**summarise(run, standing, seconds), **tested, **compiled, **spent, "notes": notes}
        with folder.explaining():
            folder.write_summary(summary)
            draw(folder, standing.history, summary)
    return TrainResult(folder.path, summary)


def _class_weights(config: Config, photos: Photos) -> torch.Tensor | None:
    if config.train.class_weights == "none":
        return None
    return balanced_weights(photos.table.label[photos.indices], len(photos.classes))


def _compile(
    state: TrainState, config: Config, samples: int, reporter: Reporter, said: list[str]
) -> dict[str, Any]:
    """Compile the network where that is chosen and can be had: what summary.json says of it.

    Where it cannot, the run goes on without, and `said` gets a line.
    """
    mode, why = choose_compile(config, state.device, samples)
    reporter.note(f"torch.compile: {mode} ({why})")
    seconds = 0.0
    try:
        seconds = compile_network(state, config.data.image_size, mode)
    except CompileFailed as error:
        mode, why = "off", str(error)
        said.append(f"{error}; this run goes on without")
    return {"compile": mode, "compile_reason": why, "compile_seconds": seconds}


def _with_photos(config: Config, resumed: RunFolder | None, bars: ProgressBars) -> Config:
    """The settings with all paths in full, to be resumed anywhere; rendered flowers are made if need be."""
    path = Path(config.data.path or demo_folder()).expanduser().resolve()
    if path == demo_folder().resolve():
        with bars("rendering flowers") as bar:
            demo_photos(bar)
    elif resumed is not None and not path.exists():
        raise UserError(
            f"{path}: the photos of this run are not there; give their new place, flowerfast train PHOTOS "
            f"--resume --out {resumed.path}"
        )
    given = {"data.cache_dir": config.data.cache_dir, "model.weights": config.model.weights}
    others = {key: str(Path(file).expanduser().resolve()) for key, file in given.items() if file is not None}
    if config.model.name.startswith(FOLDER):
        others["model.name"] = (
            f"{FOLDER}{Path(config.model.name.removeprefix(FOLDER)).expanduser().resolve()}"
        )
    return change_config(config, (), {"data.path": str(path), **others})


def _name(config: Config) -> str:
    """What a run without a name is called: as its photos."""
    path = Path(str(config.data.path))
    name = os.fsencode(path.name).decode(errors="replace")  # no run folder without a name in UTF-8
    return DEMO if path == demo_folder().resolve() else name or "run"


def _start(config: Config, resumed: RunFolder | None) -> ModelConfig:
    """The model as a run begins with it.

    A resumed run brings its weights: neither the hub nor the weights file need be at hand, nor, once there is
    a best/, a description of the network that lies elsewhere.
    """
    if resumed is None:
        return config.model
    elsewhere = ":" in config.model.name and resumed.best.is_dir()
    name = f"{FOLDER}{resumed.best}" if elsewhere else config.model.name
    return config.model.model_copy(update={"pretrained": False, "weights": None, "name": name})


def draw(folder: RunFolder, history: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Curves, confusion matrix and report of a finished run."""
    lend_home()
    # Only now: matplotlib takes long to import, and the best weights need not wait for it.
    from flowerfast.training.report import plot_confusion, plot_curves, write_report

    folder.check_there()
    plot_curves(history, folder.curves, summary["best_epoch"])
    folder.check_there()
    plot_confusion(summary["confusion"], summary["classes"], folder.confusion)
    folder.check_there()
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


def _tell(loaders: tuple[Loader, Loader], said: list[str], told: list[str], reporter: Reporter) -> list[str]:
    """Report what there is to say, by the loaders too, and has not been told yet; all that was told."""
    notes = [*dict.fromkeys([*told, *said, *(note for loader in loaders for note in loader.notes)])]
    for note in notes[len(told) :]:
        reporter.note(note)
    return notes
