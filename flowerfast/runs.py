"""A training run from settings to a complete run folder."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.checkpoint import RunFolder
from flowerfast.config import Config, change_config, known_keys, load_config
from flowerfast.data.manifest import Manifest, load_manifest, user_cache_dir
from flowerfast.data.split import Split, make_split, read_split, write_split
from flowerfast.data.synthetic import RENDER_VERSION, synthesize
from flowerfast.errors import UserError
from flowerfast.loaders import (
    BadFiles,
    Choice,
    Loader,
    Recipe,
    choose_backend,
    choose_cache,
    make_eval_loader,
    make_loader,
)
from flowerfast.model import build_network, pretrained_cfg, with_normalisation
from flowerfast.progress import Progress, Reporter
from flowerfast.ranges import name_stages
from flowerfast.scores import classification_report
from flowerfast.train import Run, fit
from flowerfast.trainer import Trainer, to_device

Bar = Callable[[int, int], None]
Bars = Callable[[str], AbstractContextManager[Bar | None]]
"""Makes a progress bar with a title; the bar is told (done, total)."""

DEMO_PER_CLASS = 120
"""Rendered flowers of each class in the embedded default."""

MAY_CHANGE = (
    "data.path",
    "data.backend",
    "data.workers",
    "data.kernels",
    "data.prefetch",
    "data.cache",
    "data.cache_gb",
    "data.cache_dir",
    "data.hw_decoder_load",
    "data.dali_prefetch",
    "data.on_bad",
    "data.max_bad",
    "train.patience",
    "checkpoints.keep",
    "checkpoints.every_seconds",
    "log.tensorboard",
    "log.nvtx",
)
"""Settings that a resumed run may change: they do not alter what has been computed so far."""


def start_config(base: str | None, overrides: Sequence[str], changes: Mapping[str, Any]) -> Config:
    """Configuration of a new run; without data and config, the embedded default's."""
    if base is None and "data.path" not in changes:
        base = "demo"
    return load_config(base, overrides, changes)


def resume_config(stored: Config, overrides: Sequence[str], changes: Mapping[str, Any]) -> Config:
    """Configuration of a resumed run. Raises UserError when it would alter what has been computed."""
    config = change_config(stored, overrides, changes)
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


def no_bars(_: str) -> AbstractContextManager[Bar | None]:
    """No progress bars."""
    return nullcontext()


@dataclass
class Prepared:
    """A run that has been checked and can start."""

    config: Config
    manifest: Manifest
    split: Split
    choice: Choice
    device: torch.device
    bad: BadFiles


def pick_device(name: str) -> torch.device:
    """Device for `train.device`. Raises UserError when CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "train.device=cuda: torch sees no CUDA GPU; use train.device=auto, or check nvidia-smi"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def demo_data(bar: Bar | None = None) -> Path:
    """Folder of rendered flowers in the user's cache, made on first use."""
    folder = user_cache_dir() / f"flowers-{RENDER_VERSION}-{DEMO_PER_CLASS}"
    total = DEMO_PER_CLASS * 5
    return synthesize(folder, DEMO_PER_CLASS, progress=(lambda done: bar(done, total)) if bar else None)


def prepare(config: Config, folder: RunFolder, resume: bool, bars: Bars = no_bars) -> Prepared:
    """Check everything that can be checked before anything is written. Raises UserError."""
    device = pick_device(config.train.device)
    choice = choose_backend(config.data, device)
    with bars("rendering flowers") as bar:
        data = Path(config.data.path) if config.data.path is not None else demo_data(bar)
    with bars("reading headers") as bar:
        manifest = load_manifest(data, config.data.max_pixels, bar)
    bad = BadFiles(manifest, config.data.on_bad, config.data.max_bad)
    if resume:
        split = read_split(folder.split, manifest)
    else:
        folder.check_free()
        split = make_split(manifest, config.data.val_fraction, config.train.seed)
    cache, why = choose_cache(config.data, choice.backend, device, manifest, split.train)
    choice = replace(choice, cache=cache, cache_reason=why)
    return Prepared(config, manifest, split, choice, device, bad)


def train_run(
    config: Config, folder: RunFolder, reporter: Reporter, resume: bool = False, bars: Bars = no_bars
) -> dict[str, Any]:
    """Train as `config` says, into `folder`; returns the content of summary.json.

    Raises UserError before anything is written, Stopped after saving, RunFailed when the loss is no number.
    """
    started = time.perf_counter()
    name_stages(config.log.nvtx)
    ready = prepare(config, folder, resume, bars)
    torch.manual_seed(config.train.seed)  # the new head, random weights, dropout
    # A resumed run brings its weights: neither the hub nor the weights file need be at hand.
    start = config.model.model_copy(update={"pretrained": False, "weights": None}) if resume else config.model
    network = build_network(start, ready.manifest.classes, config.data.image_size, config.eval.crop_pct)
    _announce(ready, folder, reporter)
    model = to_device(with_normalisation(network), config.train, ready.device)
    train_loader, val_loader = _loaders(ready, pretrained_cfg(network)["crop_pct"])
    notes = _tell((train_loader, val_loader), [], reporter)
    try:
        if not resume:
            folder.create(config)
            write_split(ready.split, ready.manifest, folder.split)
        trainer = Trainer(model, config.train, ready.device, len(train_loader))
        run = Run(config, folder, list(ready.manifest.classes), trainer, train_loader, val_loader, reporter)
        progress = fit(run, resume)
    finally:
        train_loader.close()
        val_loader.close()
    notes = _tell((train_loader, val_loader), notes, reporter)  # a disk may have filled up since
    seconds = time.perf_counter() - started
    spent = run.spent.summary(started, seconds)
    summary = {**_summarise(ready, progress, trainer, seconds), **spent, "notes": notes}
    folder.write_summary(summary)
    draw(folder, progress.history, summary)
    return summary


def draw(folder: RunFolder, history: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Curves, confusion matrix and report of a finished run."""
    # Only now: matplotlib takes long to import, and the best weights need not wait for it.
    from flowerfast.report import plot_confusion, plot_curves, write_report

    plot_curves(history, folder.curves)
    plot_confusion(np.array(summary["confusion"], np.int64), summary["classes"], folder.confusion)
    write_report(folder.path)


def versions() -> dict[str, str]:
    """Versions of what decides speed and pixels."""
    found = {"python": platform.python_version()}
    names = ("flowerfast", "torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "numba")
    for name in (*names, "nvidia-dali-cuda120", "nvidia-dali-cuda130"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def _announce(ready: Prepared, folder: RunFolder, reporter: Reporter) -> None:
    m, s, c = ready.manifest, ready.split, ready.choice
    counts = f"{len(s.train)} photos to train on, {len(s.val)} to validate on"
    reporter.note(f"data: {counts}, {len(m.classes)} classes: {m.root}")
    for bad in m.bad:
        reporter.note(f"skipped: {bad.path}: {bad.error}")
    reporter.note(f"backend: {c.backend} ({c.reason}), device {device_name(ready.device)}")
    reporter.note(f"decoded cache: {c.cache} ({c.cache_reason})")
    reporter.note(f"run folder: {folder.path}")


def _tell(loaders: Sequence[Loader], told: list[str], reporter: Reporter) -> list[str]:
    """Report what the loaders have to say and have not said yet; all that they said."""
    notes = [*dict.fromkeys([*told, *(note for loader in loaders for note in loader.notes)])]
    for note in notes[len(told) :]:
        reporter.note(note)
    return notes


def _loaders(ready: Prepared, crop_pct: float) -> tuple[Loader, Loader]:
    c = ready.config
    train = Recipe(c.data.image_size, c.train.batch_size, c.train.seed, c.augment, shuffle=True)
    augment = c.augment if c.eval.augmented else None
    val = Recipe(
        c.data.image_size, c.eval.batch_size or c.train.batch_size, c.train.seed, augment, crop_pct=crop_pct
    )
    train_loader = make_loader(
        ready.choice, ready.manifest, ready.split.train, train, c.data, ready.device, ready.bad
    )
    val_loader = make_eval_loader(
        ready.choice, ready.manifest, ready.split.val, val, c.data, ready.device, ready.bad
    )
    return train_loader, val_loader


def _summarise(ready: Prepared, progress: Progress, trainer: Trainer, seconds: float) -> dict[str, Any]:
    history, c = progress.history, ready.config
    report = classification_report(np.array(progress.confusion, np.int64), ready.manifest.classes)
    bad = (*ready.manifest.bad, *ready.bad.found.values())
    steady = history[1:] or history  # the first epoch pays for warm-up
    return {
        "best_epoch": progress.best_epoch,
        "best_val_acc": progress.best_val_acc,
        "epochs_run": len(history),
        "stopped_early": len(history) < c.train.epochs,
        "val_protocol": "augmented" if c.eval.augmented else "clean",
        "model": c.model.name,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "backend": ready.choice.backend,
        "backend_reason": ready.choice.reason,
        "cache": ready.choice.cache,
        "cache_reason": ready.choice.cache_reason,
        "device": device_name(ready.device),
        "amp": trainer.precision.name,
        "images_per_sec": float(np.median([row["images_per_sec"] for row in steady])),
        "data_wait": float(np.median([row["data_wait"] for row in steady])),
        "seconds": seconds,
        "classes": list(ready.manifest.classes),
        "train_samples": len(ready.split.train),
        "val_samples": len(ready.split.val),
        "macro_f1": report["macro_f1"],
        "per_class": report["per_class"],
        "confusion": progress.confusion,
        "bad_files": [{"path": b.path, "error": b.error} for b in bad],
        "versions": versions(),
    }
