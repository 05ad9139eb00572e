"""A training run from settings to a complete run folder."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flowerfast.arguments import of_kind, path, place, progress_bars, signal_asked
from flowerfast.config import Config
from flowerfast.errors import Fact
from flowerfast.loaders.device import device_name
from flowerfast.loaders.loader import Loader
from flowerfast.machine import ProgressBars, lend_home, no_bars
from flowerfast.photos.layout import TEST
from flowerfast.photos.photos import Photos
from flowerfast.places import in_full
from flowerfast.ranks.meeting import joined
from flowerfast.ranks.telling import all_raise, first_on_node, from_first, gather
from flowerfast.ranks.who import current, is_restarted
from flowerfast.settings import change_config, start_config
from flowerfast.training.architecture import configured
from flowerfast.training.beginning import (
    class_weights,
    open_photos,
    prepare,
    run_name,
    split_halves,
    start_model,
    with_best,
    with_photos,
)
from flowerfast.training.callbacks import Callback, Callbacks
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.compiling import CompileFailed, choose_compile, compile_network
from flowerfast.training.fit import fit
from flowerfast.training.half_loaders import training_loader, validation_loader
from flowerfast.training.image_size import least_batch
from flowerfast.training.model import build_network, own_crop_pct, with_normalisation
from flowerfast.training.parent import parent_settings
from flowerfast.training.progress import Reporter, Silent, Stop
from flowerfast.training.rank_checks import (
    check_parts,
    check_same_arguments,
    check_same_photos,
    check_samples,
    same_pixels,
)
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
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a classifier and leave weights, metrics, curves and a report in the run folder.

    Works in any thread: it installs no signal handlers. Where torchrun has started several processes, or
    torch.distributed runs, all of them call it and train one model: the first alone reads and writes the run
    folder and reports, and all get the result.

    Args:
        data: folder of class folders, one with train/, val/ or test/, or one of shards, or the URL of shards.
            None: what the config or the settings name, else rendered flowers with the recipe for them.
        out: run folder; None: the next free one of runs/NAME-001, runs/NAME-002, ...
        config: YAML file, or the name of a config that ships with flowerfast: paper, cpu, fast, demo.
        settings: values by dotted key, as `{"train.lr": 0.01}`; `flowerfast settings` lists them all.
        resume: go on with the run in `out` at its next batch; it keeps its own config. A run that has ended
            goes on when `settings` give it more epochs.
        start_from: a run whose weights, the best ones or those of one of its files, a new run begins with,
            and whose settings unless `config` is given.
        reporter: is told how it goes.
        stop: for as long as training goes on, says whether to stop after saving.
        bars: makes progress bars for what comes before.
        callbacks: objects whose functions are called when the run starts, after each epoch and at the end.

    Raises UserError before anything is written, as when another process writes to the run folder; Stopped
    after saving; RunFailed when a loss is no number, a disk is full, the run folder is moved or deleted, a
    callback raises, or `stop` gives something else.
    """
    of_kind("settings", settings, Mapping | None, "a mapping from dotted keys to values")
    of_kind("resume", resume, bool, "True or False")
    bars = progress_bars(bars)
    of_kind("reporter", reporter, Reporter | None, "an object with the methods of Reporter")
    of_kind("stop", stop, AbstractContextManager | None, "a context manager")
    called = Callbacks(callbacks)
    given = {"out": out, "start_from": start_from}
    out, start_from = (each if each is None else path(name, each) for name, each in given.items())
    photos = {"data.path": in_full(place("data", data))} if data is not None else {}
    changes = {**photos, **(settings or {})}
    folder = RunFolder(Path(out)) if out is not None else None

    def begin() -> tuple[Config, dict[str, Any] | None]:
        """Hold the run folder: settings, and the save to go on from."""
        again = folder is not None and is_restarted() and folder.has_save  # by the very same command
        fresh, new = None, changes
        if again:
            new = {}
        elif resume:
            check_resume(out, config, start_from)
        else:
            parent = parent_settings(start_from, config) if start_from is not None else (config, {})
            fresh = start_config(parent[0], {**parent[1], **changes})
        if folder is None:
            assert fresh is not None
            return fresh, None
        held.enter_context(folder.only_writer())
        resolved, saved = reopen(folder, new) if fresh is None else (fresh, None)
        if saved is None:
            folder.check_free()
        return resolved, saved

    with joined() as ranks, ExitStack() as held:
        check_same_arguments({**changes, "--config": config, "--from": start_from, "--resume": resume})
        resolved, saved = from_first(begin)
        if not ranks.is_first:  # which prints and writes
            reporter, bars = None, no_bars
        return _train(resolved, folder, saved, reporter or Silent(), stop, bars, called)


def _train(
    config: Config,
    folder: RunFolder | None,
    saved: dict[str, Any] | None,
    reporter: Reporter,
    stop: AbstractContextManager[Stop] | None,
    bars: ProgressBars,
    callbacks: Callbacks,
) -> TrainResult:
    started, ranks = time.perf_counter(), current()
    resumed = folder if saved is not None else None
    config = first_on_node(partial(with_photos, config, resumed, bars))
    device = first_on_node(partial(prepare, config))
    start, size = start_model(config, resumed), config.data.image_size
    least = from_first(lambda: least_batch(configured(start, size), size, config.train.batch_size))
    check_parts(config.train.batch_size, least, ranks)
    photos = first_on_node(partial(open_photos, config, bars))
    check_same_photos(photos)
    config = from_first(partial(with_best, config, photos))
    train_photos, val_photos, note = split_halves(config, resumed, photos)
    check_samples(train_photos, least, ranks)
    crop_pct = own_crop_pct(start.name) if config.eval.crop_pct is None else config.eval.crop_pct
    with ExitStack() as held, ExitStack() as stack:

        def opened(load: Callable[[], Loader]) -> Loader:
            return stack.enter_context(first_on_node(load))

        same = same_pixels(config, device, train_photos)
        train_loader = opened(partial(training_loader, same, train_photos, device, fold_last=least > 1))
        # One backend for both halves, as after a resume: what was measured may differ with the cache.
        same = change_config(same, (), {"data.backend": train_loader.backend})
        validation = partial(validation_loader, same, val_photos, crop_pct, device)
        val_loader = opened(partial(validation, config.eval.augmented is True))
        both = config.eval.augmented == "both"
        augmented_loader = opened(partial(validation, True)) if both else None
        loaders = train_loader, val_loader
        if saved is not None:
            from_first(partial(check_pixels, train_loader, val_photos, saved, config))
        said, told = [note] if note else [], list[str]()

        def say(text: str) -> None:
            """Tell at once: what is fetched may take long."""
            told.append(text)
            reporter.fact(text)

        def build() -> TrainState:
            torch.manual_seed(config.train.seed)  # the new head, random weights, dropout
            network = build_network(start, photos.classes, size, crop_pct, say, config.eval.image_size)
            model = place_model(with_normalisation(network), config.train, device)
            weights = class_weights(config, train_photos)
            about = least, weights, config.eval.threshold
            return TrainState(model, config.train, device, len(train_loader), *about)

        state = first_on_node(build)
        state.full_batch = train_loader.plan_sampler.full_batch
        if folder is None:
            there = from_first(lambda: claim_run_path(Path("runs"), run_name(config)))
            folder = RunFolder(there, claimed=True)
            if ranks.is_first:
                held.enter_context(folder.only_writer())
        said += folder.notes
        fresh = folder.discarded_on_failure() if saved is None and ranks.is_first else nullcontext()
        with all_raise(), folder.explaining(), fresh:
            from_first(partial(reporter.start_run, config, folder.path))
            _announce(loaders, folder, reporter)
            announced = len(photos.bad)
            notes = _tell(loaders, said, told, reporter)
            warm_up = train_loader.warm_up(compiler=False)  # before the clock starts
            from_first(partial(_note_beginning, config, folder, (train_photos, val_photos), saved is None))
            compiled = _compile(state, config, len(train_photos), reporter, said)
            record = {**train_loader.choice(), "photo_sizes": photo_sizes(train_photos, val_photos)}
            record |= {"compile": compiled["compile"], "run": from_first(folder.identity)}
            gather(None, patient=True)  # who has compiled waits here for those who have not
            state.share(ranks)
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
                    callbacks=callbacks,
                )
                run.named = announced
                try:
                    standing = fit(run, saved)
                finally:
                    run.name_bad()

            def conclude() -> dict[str, Any]:
                """What the first rank does once training is over: content of summary.json."""
                with run.spent.on("evaluate"):
                    tested = scores_on_test(run, photos.test)
                stack.close()  # the loaders: what follows needs none, and the folder is held until it is done
                run.name_bad()
                if standing.alone:
                    said.append(
                        f"left out: {standing.alone} times a photo that was alone in its batch: damaged "
                        "files or several ranks had left no second one, which batch normalisation needs"
                    )
                if run.refused:
                    said.append(f"saves that the disk had no room for: {run.refused}; the last one is whole")
                all_notes = _tell(loaders, said, notes, reporter)  # a disk may have filled up since
                if photos.bad:
                    files = len(photos.table) + len(photos.table.bad)
                    reporter.note(f"{len(photos.bad)} of {files} files skipped")
                seconds = time.perf_counter() - started
                spent = {**run.spent.summary(started, seconds), "warmup_seconds": warm_up}
                summary = {**summarise(run, standing, seconds), **tested, **compiled, **spent}
                summary |= {"ranks": ranks.world_size, "notes": all_notes}
                run.folder.write_summary(summary)
                draw(run.folder, standing.history, summary, train_photos)
                callbacks.end(summary, folder.path)
                return summary

            summary = from_first(conclude, in_step=True)
    return TrainResult(folder.path, summary)


def _note_beginning(config: Config, folder: RunFolder, halves: tuple[Photos, Photos], is_new: bool) -> None:
    """Write what a run folder says before the first epoch."""
    if is_new:
        folder.create(config)
        write_split(*halves, folder.split, began_with(config))
    else:
        keep_changes(config, folder)


def _compile(
    state: TrainState, config: Config, samples: int, reporter: Reporter, said: list[str]
) -> dict[str, Any]:
    """Compile the network where that is chosen and can be had: what summary.json says of it.

    Where it cannot, the run goes on without, and `said` gets a line.
    """
    mode, why = choose_compile(config, state.device, samples)
    reporter.fact(f"torch.compile: {mode} ({why})")
    seconds = 0.0
    try:
        seconds = compile_network(state, config.data.image_size, mode)
    except CompileFailed as error:
        mode, why = "off", str(error)
        said.append(f"{error}; this run goes on without")
    return {"compile": mode, "compile_reason": why, "compile_seconds": seconds}


def draw(folder: RunFolder, history: list[dict[str, Any]], summary: dict[str, Any], photos: Photos) -> None:
    """Curves, confusion matrix and report of a finished run; `photos` are those that it was trained on."""
    lend_home()
    # Only now: matplotlib takes long to import, and the best weights need not wait for it.
    from flowerfast.training.figures import plot_confusion, plot_curves
    from flowerfast.training.report import write_report

    folder.check_there()
    plot_curves(history, folder.curves, summary["best_epoch"])
    folder.check_there()
    if "confusion" in summary:
        plot_confusion(summary["confusion"], summary["classes"], folder.confusion)
    folder.check_there()
    write_report(folder.path, photos=photos)


def _announce(loaders: tuple[Loader, Loader], folder: RunFolder, reporter: Reporter) -> None:
    train, val = loaders
    photos = train.photos
    counts = f"{len(photos)} photos to train on, {len(val.photos)} to validate on"
    held = int((photos.table.fold == TEST).sum())
    counts += f", {held} to test at the end" if held else ""
    reporter.fact(f"data: {counts}, {len(photos.classes)} classes: {photos.source}")
    for bad in photos.bad:
        reporter.note(f"skipped: {bad.path}: {bad.error}")
    reporter.fact(f"backend: {train.backend} ({train.backend_reason}), device {device_name(train.device)}")
    reporter.fact(f"decoded cache: {train.cache} ({train.cache_reason})")
    reporter.fact(f"run folder: {folder.path}")


def _tell(loaders: tuple[Loader, Loader], said: list[str], told: list[str], reporter: Reporter) -> list[str]:
    """Report what there is to say, by the loaders too, and has not been told yet; all that was told."""
    notes = [*dict.fromkeys([*told, *said, *(note for loader in loaders for note in loader.notes)])]
    for note in notes[len(told) :]:
        (reporter.fact if isinstance(note, Fact) else reporter.note)(note)
    return notes
