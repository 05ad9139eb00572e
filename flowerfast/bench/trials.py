"""Which loaders are set beside the present one: each is the present settings with one thing changed."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.bench.child import Variant
from flowerfast.bench.sources import sample
from flowerfast.config import Config, change_config, known_keys
from flowerfast.data.manifest import Manifest
from flowerfast.data.shard_writer import PackSettings
from flowerfast.errors import UserError
from flowerfast.loaders import Choice, choose_backend
from flowerfast.loaders.cache import cache_bytes
from flowerfast.loaders.cache_choice import cache_budget, cache_folder
from flowerfast.loaders.cache_file import disk_problem
from flowerfast.loaders.torchvision import usable_cores
from flowerfast.pack import pack
from flowerfast.progress import RunFailed

LOADER, STEPS, TRAINING = (f"flowerfast.bench.sources:{name}" for name in ("loader", "steps", "training"))

_LATER = "once an epoch has filled it"


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        config: the present settings.
        data, manifest: the photos.
        device: where batches are wanted.
        choice: the present backend and cache.
        photos: how many photos an epoch of a measurement has.
        scratch: temporary folder for what measuring needs on disk.
    """

    config: Config
    data: Path
    manifest: Manifest
    device: torch.device
    choice: Choice
    photos: int
    scratch: Path


@dataclass(frozen=True)
class Trial:
    """A loader to measure.

    Attributes:
        name: its row.
        changes: `key=value` overrides of the present settings.
        setting: what a user would type for it; "" for the present settings, and for trials that only show a
            scaling curve or a reference.
        backend: its executor.
        data: its photos, where they are not the present ones.
        note: what else it changes, for those who would follow it.
    """

    name: str
    changes: list[str] = field(default_factory=list)
    setting: str = ""
    backend: str = "torchvision"
    data: Path | None = None
    note: str = ""

    def config(self, bench: Bench) -> Config:
        """The whole of its settings."""
        return change_config(bench.config, self.changes, {})

    def variant(self, bench: Bench) -> Variant:
        """For the measuring core."""
        options = {
            "data": str(self.data or bench.data),
            "settings": overrides(self.config(bench)),
            "device": bench.device.type,
            "photos": bench.photos,
        }
        return Variant(self.name, LOADER, options)

    def about(self, bench: Bench) -> dict[str, Any]:
        """What its row says beside the figures."""
        config = self.config(bench)
        changed = any(change.startswith("data.cache=") for change in self.changes)
        found: dict[str, Any] = {
            "backend": self.backend,
            "cache": config.data.cache if changed else bench.choice.cache,
            "workers": config.data.workers or usable_cores(),
            "batch_size": config.train.batch_size,
            "setting": self.setting,
            "note": self.note,
        }
        return found | ({"kernels": config.data.kernels} if self.backend == "torchvision" else {})


def overrides(config: Config) -> list[str]:
    """The `key=value` overrides that make the defaults this configuration."""
    mine, defaults = config.model_dump(mode="json"), Config().model_dump(mode="json")
    found = []
    for key in known_keys():
        section, _, name = key.partition(".")
        if key != "data.path" and mine[section][name] != defaults[section][name]:
            found.append(f"{key}={json.dumps(mine[section][name])}")
    return found


def loader_trials(bench: Bench, quick: bool) -> tuple[list[Trial], dict[str, str]]:
    """The present loader first, then the others; and what is left out, with the reason, by name."""
    left_out: dict[str, str] = {}
    backend, cache = bench.choice.backend, bench.choice.cache
    trials = [Trial(_name(backend, cache), backend=backend)]
    if not quick:
        trials += _backends(bench, left_out)
    trials += _caches(bench, left_out, quick)
    trials += _workers(bench, quick)
    if not quick:
        size = bench.config.train.batch_size
        note = "changes the training too"
        change = f"train.batch_size={4 * size}"
        trials.append(Trial(f"{backend}, batch {4 * size}", [change], change, backend, note=note))
    trials += _smaller(bench, left_out, quick)
    return trials, left_out


def _name(backend: str, cache: str) -> str:
    return backend if cache == "none" else f"{backend}, {cache} cache"


def _backends(bench: Bench, left_out: dict[str, str]) -> Iterator[Trial]:
    cuda, now = bench.device.type == "cuda", bench.choice.backend
    for backend in ("torchvision", "dali" if cuda else "dali-cpu"):
        if backend == now:
            continue
        changes = [f"data.backend={backend}", "data.cache=none"]
        try:
            choose_backend(change_config(bench.config, changes, {}).data, bench.device)
        except UserError as error:
            left_out[backend] = str(error)
            continue
        yield Trial(backend, changes, f"data.backend={backend}", backend)
        place = "vram" if backend == "dali" else "ram"
        both, problem = [f"data.backend={backend}", f"data.cache={place}"], _no_room(bench, place)
        if problem:
            left_out[_name(backend, place)] = problem
        else:
            yield Trial(_name(backend, place), both, " ".join(both), backend, note=_LATER)
    if now == "torchvision" and bench.config.data.kernels != "torchvision":
        yield Trial("torchvision, kernels=torchvision", ["data.kernels=torchvision"])
    if now == "dali":
        yield Trial("dali, decoder=gpu", ["data.decoder=gpu"], "data.decoder=gpu", "dali")


def _caches(bench: Bench, left_out: dict[str, str], quick: bool) -> Iterator[Trial]:
    backend, now = bench.choice.backend, bench.choice.cache
    places = ("none", "vram") if backend == "dali" else ("none", "ram", "disk")
    for place in places:
        if place == now or (quick and place == "disk"):
            continue
        name, changes = _name(backend, place), [f"data.cache={place}"]
        if place != "none":
            problem = disk_problem(cache_folder(bench.config.data)) if place == "disk" else None
            problem = problem or _no_room(bench, place)
            if problem:
                left_out[name] = problem
                continue
        if place == "disk":
            changes.append(f"data.cache_dir={json.dumps(str(bench.scratch / 'photos'))}")
        yield Trial(name, changes, f"data.cache={place}", backend, note="" if place == "none" else _LATER)


def _no_room(bench: Bench, place: str) -> str:
    """Why all photos would not fit a cache, or ""."""
    needed = cache_bytes(bench.manifest, np.arange(len(bench.manifest)), bench.config.data.cache_side)
    budget = cache_budget(bench.config.data, place, bench.device)
    told = f"all photos take {needed / 1e9:.2f} GB, the budget is {budget / 1e9:.2f} GB"
    return told if needed > budget else ""


def _workers(bench: Bench, quick: bool) -> Iterator[Trial]:
    cores, backend = usable_cores(), bench.choice.backend
    now = bench.config.data.workers or cores
    curve = {2**power for power in range(int(math.log2(cores)) + 1)} | {cores, 2 * cores}
    for count in sorted({1, cores} if quick else curve):
        if count != now:
            setting = f"data.workers={count}"
            yield Trial(f"{backend}, workers={count}", [setting], setting, backend)


def _smaller(bench: Bench, left_out: dict[str, str], quick: bool) -> Iterator[Trial]:
    """Smaller photos: packed so, or decoded so, where they are larger than the crop needs."""
    manifest, side = bench.manifest, bench.config.data.image_size
    short = float(np.minimum(manifest.width, manifest.height).mean())
    backend = bench.choice.backend
    plain = backend == "torchvision" and bench.choice.cache == "none"
    if plain and bench.config.data.decode_scale == "off" and short >= 3 * side:
        setting = "data.decode_scale=auto"
        yield Trial(f"{backend}, decode_scale=auto", [setting], setting, note="pixels differ a little")
    target = -(-side * 10 // 7 // 16) * 16  # 320 for 224: crops are seldom smaller than two thirds of that
    name = f"{backend}, packed --max-side {target}"
    if quick or short < 1.25 * target:
        return
    try:
        packed = pack_sample(bench, target)
    except (UserError, RunFailed, OSError) as error:  # OSError: no links here
        left_out[name] = str(error)
        return
    setting = f"flowerfast pack --max-side {target}"
    yield Trial(name, [], setting, backend, packed, "smaller photos, encoded once more")


def pack_sample(bench: Bench, max_side: int) -> Path:
    """The photos of the measurement, packed into shards in the temporary folder."""
    folder, out = bench.scratch / "sample", bench.scratch / f"packed-{max_side}"
    if bench.manifest.shards is not None:
        raise UserError("the photos are packed already")
    for index in sample(len(bench.manifest), min(bench.photos, 300)):
        path = bench.manifest.path(int(index))
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.symlink((bench.manifest.root / path).resolve(), link)
    pack(folder, out, PackSettings(max_side), bench.config.data)
    return out
