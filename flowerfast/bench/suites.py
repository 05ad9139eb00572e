"""`flowerfast bench`: stages, loaders, the training step and training itself, in one result."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flowerfast.bench.child import Variant
from flowerfast.bench.environment import SCHEMA, describe_photos, environment
from flowerfast.bench.measure import Pace, Row, Say, measure, measure_here
from flowerfast.bench.result import SUITES
from flowerfast.bench.sources import sample
from flowerfast.bench.stages import StageClock
from flowerfast.bench.training_sources import make_state
from flowerfast.bench.trials import STEPS, TRAINING, Bench, Trial, loader_trials, overrides
from flowerfast.bench.verdict import verdict
from flowerfast.config import Config, DataConfig
from flowerfast.demo.synthetic import demo_photos
from flowerfast.errors import UserError, one_line
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.engine import choose_backend
from flowerfast.loaders.speeds import WIDE, remember
from flowerfast.machine import ProgressBars, no_bars, usable_cores, user_cache_dir
from flowerfast.photos.photos import Photos
from flowerfast.pixels.executor import compiling_notes
from flowerfast.places import in_full
from flowerfast.settings import change_config
from flowerfast.training.half_loaders import training_loader

_CPU_BATCH, _QUICK_BATCH = 4, 2  # a photo takes a tenth of a second of training on two cores
_HOPELESS = 2 * WIDE
QUICK = Pace(rounds=5, seconds=0.15, stop_at=_HOPELESS)
FULL = Pace(rounds=5, seconds=0.6, stop_at=_HOPELESS)


def run_bench(
    config: Config,
    suites: Sequence[str] = SUITES,
    quick: bool = False,
    say: Say = lambda _: None,
    bars: ProgressBars = no_bars,
    extra: Mapping[str, Variant] | None = None,
) -> dict[str, Any]:
    """Measure the present settings and what stands beside them: the result, see docs/bench.md.

    Args:
        config: the present settings; without data.path, rendered flowers.
        suites: any of `SUITES`.
        quick: fewer variants, all in this process.
        say: told how it goes, a line at a time.
        bars: makes a progress bar with a title.
        extra: more loaders to set beside ours, by name; they yield normalised floats.

    Raises UserError on settings, data or suites that cannot be.
    """
    started = time.monotonic()
    unknown = [suite for suite in suites if suite not in SUITES]
    if unknown or not suites:
        raise UserError(f"--suite {','.join(unknown)}: no such suite; give any of {', '.join(SUITES)}")
    if not quick and not hasattr(os, "killpg"):
        raise UserError("bench: this system cannot end groups of processes; give --quick, which needs one")
    if {"model", "train"} & {*suites}:
        make_state(config, torch.device("cpu"))  # says at once what is wrong with the model's settings
    with tempfile.TemporaryDirectory(prefix="flowerfast-bench-") as scratch:
        pace = QUICK if quick else FULL
        bench = _open(config, Path(scratch), bars)
        for note in (*bench.photos.notes, *compiling_notes(config.data.kernels)):
            say(note)
        say("compiling and warming up")
        ms = _milliseconds(bench)
        bench = replace(bench, epoch=_photos_a_round(bench, ms, pace))
        result = _about(bench, config, suites, quick)
        if "stages" in suites:
            say("stages")
            few = min(max(int(600 * pace.seconds / ms), 16), 256)  # each is executed 42 times
            with closing(StageClock(bench.config, sample(bench.photos, few), bench.cache)) as clock:
                result["stages"] = clock.measure(5, bench.device)
        trials, left_out = loader_trials(bench, quick or "loader" not in suites)
        result["settings"] |= {"current": trials[0].name, "left_out": left_out}
        if "loader" in suites:
            say("loaders")
            result["loader"] = _loaders(bench, trials, quick, say, extra or {})
            if not quick:
                say(_remember(bench, config, trials, result["loader"]))
            skipped = {name: row["error"] for name, row in result["loader"].items() if row.get("skipped")}
            left_out |= skipped
            for name in skipped:
                del result["loader"][name]
        if "model" in suites or "train" in suites:
            say("training step")
            fed = trials if "train" in suites else []
            result |= _models(bench, fed, "model" in suites, quick, say, extra or {})
    result["verdict"] = verdict(result)
    result["seconds"] = time.monotonic() - started
    return result


def _open(config: Config, scratch: Path, bars: ProgressBars) -> Bench:
    device = pick_device(config.train.device)
    choose_backend(config.data, device)  # says what is missing before the photos are looked at
    with bars("rendering flowers") as bar:
        data = Path(config.data.path) if config.data.path is not None else demo_photos(bar)
    with bars("reading headers") as bar:
        photos = Photos.open(in_full(data), config.data, bar)
    with training_loader(config, photos, device) as loader:  # what the settings come to here
        chosen = {f"data.{name}": value for name, value in loader.choice().items()}
        reason = loader.backend_reason
    if device.type == "cuda":
        torch.cuda.empty_cache()  # a cache on the GPU had taken its memory already
    return Bench(change_config(config, (), chosen), photos, device, len(photos), scratch, reason)


def _milliseconds(bench: Bench) -> float:
    """About what a photo costs a core; compiles, and warms up this process."""
    with closing(StageClock(bench.config, sample(bench.photos, 24), bench.cache)) as clock:
        return clock.warm_up()


def _photos_a_round(bench: Bench, ms: float, pace: Pace) -> int:
    """How many photos take about as long as a round: whole batches of them, two at least."""
    batch = bench.config.train.batch_size
    wanted = max(int(1000 * usable_cores() * pace.seconds / ms), 2 * batch)
    return min(wanted - wanted % batch, len(bench.photos))


def _about(bench: Bench, asked: Config, suites: Sequence[str], quick: bool) -> dict[str, Any]:
    """The result before anything is measured; `asked` are the settings as the user has them."""
    config, pace = bench.config, QUICK if quick else FULL
    return {
        "schema": SCHEMA,
        "kind": "bench",
        "quick": quick,
        "environment": environment(bench.device),
        "data": describe_photos(bench.photos, Path(bench.photos.source).name),
        "settings": {
            "suites": list(suites),
            "set": [text for text in overrides(asked) if not text.startswith("data.cache_dir=")],
            "backend": bench.backend,
            "backend_reason": bench.reason,
            "cache": bench.cache,
            "workers": config.data.workers or usable_cores(),
            "batch_size": config.train.batch_size,
            "image_size": config.data.image_size,
            "model": config.model.name,
            "device": bench.device.type,
            "photos_per_epoch": bench.epoch,
            "rounds": pace.rounds,
            "round_seconds": pace.seconds,
            "processes": "one for all" if quick else "one for each variant",
        },
    }


def _measure(variants: Sequence[Variant], bench: Bench, quick: bool, say: Say) -> dict[str, Row]:
    if quick:
        return measure_here(variants, QUICK, say)
    # One at a time on a GPU: what each takes of its memory is the growth while it starts.
    cuda = bench.device.type == "cuda"
    return measure(variants, replace(FULL, openers=1 if cuda else 2, gpu=cuda), say)


def _loaders(
    bench: Bench, trials: Sequence[Trial], quick: bool, say: Say, extra: Mapping[str, Variant]
) -> dict[str, Row]:
    rows = _measure([*extra.values(), *(trial.variant(bench) for trial in trials)], bench, quick, say)
    return rows | {trial.name: {**rows[trial.name], **trial.about(bench)} for trial in trials}


def _remember(bench: Bench, asked: Config, trials: Sequence[Trial], rows: Mapping[str, Row]) -> str:
    """Keep the speeds of all loaders of the same photos in the same batches; what to tell the user."""
    measured = []
    for trial in trials:
        config, row = trial.config(bench), rows[trial.name]
        same = trial.data is None and config.train.batch_size == asked.train.batch_size
        if same and "images_per_sec" in row:
            measured.append((config.data, row))
    return keep_speeds(bench.photos, bench.device, asked, measured)


def keep_speeds(
    photos: Photos, device: torch.device, config: Config, measured: Sequence[tuple[DataConfig, Row]]
) -> str:
    """Keep speeds of this machine, see `remember`: a line that says what `data.backend=auto` takes now."""
    try:
        file = remember(photos, device, config, measured)
    except OSError as error:
        return f"speeds are not kept for data.backend=auto: {user_cache_dir()}: {one_line(error)}"
    auto = config.data.model_copy(update={"backend": "auto"})
    backend, reason = choose_backend(auto, device, photos)
    return f"speeds are kept in {file}: data.backend=auto takes {backend} ({reason})"


def _models(
    bench: Bench, trials: Sequence[Trial], alone: bool, quick: bool, say: Say, extra: Mapping[str, Variant]
) -> dict[str, dict[str, Row]]:
    """The suites `model` (when `alone`) and `train` (with `trials`), interleaved: they are compared."""
    size = bench.config.train.batch_size
    if bench.device.type != "cuda":  # what a full batch takes there would leave no time to repeat it
        size = min(size, _QUICK_BATCH if quick else _CPU_BATCH)
    small = replace(bench, epoch=_few(bench, size, 2 if quick else 4))
    batch = f"train.batch_size={size}"
    settings = [*overrides(bench.config), batch]
    variants: dict[tuple[str, str], Variant] = {}
    if alone:
        for name, more in _steps(bench, quick).items():
            options = {"settings": settings, "device": bench.device.type, **more}
            variants["model", name] = Variant(f"model: {name}", STEPS, options)
    if trials:
        trials = _trained(bench, trials, quick)
        inner = dict(extra) if bench.device.type == "cuda" else {}
        inner |= {t.name: replace(t, changes=[*t.changes, batch]).variant(small) for t in trials}
        for name, variant in inner.items():
            source = {"target": variant.target, "options": variant.options}
            options = {"source": source, "settings": settings, "device": bench.device.type}
            options |= {"floats": name in extra, "classes": len(bench.photos.classes)}
            variants["train", name] = Variant(f"train: {name}", TRAINING, options)
    rows = _measure(list(variants.values()), bench, quick, say)
    parts: dict[str, dict[str, Row]] = {suite: {} for suite, _ in variants}
    for (suite, name), variant in variants.items():
        row = {**rows[variant.name], "batch_size": size}
        if "waited" in row.get("counters", {}):
            row["data_wait"] = min(row["counters"]["waited"], 1.0)
        parts[suite][name] = row
    return parts


def _few(bench: Bench, size: int, batches: int) -> int:
    """Photos of an epoch of training: on a CPU so many batches, and no shorter one at its end."""
    count = bench.epoch if bench.device.type == "cuda" else min(batches * size, bench.epoch)
    return count - count % size or count


def _steps(bench: Bench, quick: bool) -> dict[str, dict[str, Any]]:
    """Options of the rows of the suite `model`, beside those that all have."""
    options: dict[str, dict[str, Any]] = {"training step": {}}
    if not quick:
        options["forward"] = {"forward": True}
    if not quick and bench.device.type == "cuda" and bench.config.train.compile != "on":
        settings = [*overrides(bench.config), "train.compile=on"]
        options["training step, torch.compile"] = {"settings": settings}
    return options


def _trained(bench: Bench, trials: Sequence[Trial], quick: bool) -> list[Trial]:
    """Loaders to train with: on a CPU, where the step takes nearly all the time, the present one."""
    if bench.device.type != "cuda" or quick:
        return [*trials[:1]]
    kinds = ("data.backend", "data.cache", "data.decoder")
    return [trial for trial in trials if not trial.changes or trial.changes[0].startswith(kinds)]
