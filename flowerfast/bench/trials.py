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
from flowerfast.config import Config, known_keys
from flowerfast.errors import RunFailed, UserError
from flowerfast.loaders.cache.choice import cache_budget, cache_folder, why_no_disk
from flowerfast.loaders.cache.store import cache_bytes
from flowerfast.loaders.engine import choose_backend
from flowerfast.loaders.speeds import gpu_decodes
from flowerfast.machine import usable_cores
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.settings import change_config

HW_LOADS = (0.0, 0.1, 0.2, 0.65)
"""Shares of the hardware decoder that `decoder=gpu` is measured with."""
LOADER = "flowerfast.bench.sources:loader"
STEPS, TRAINING = (f"flowerfast.bench.training_sources:{name}" for name in ("steps", "training"))

_LATER = "once an epoch has filled it"


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        config: the present settings, with the backend and the cache that were chosen by them.
        photos: all of them.
        device: where batches are wanted.
        epoch: how many photos an epoch of a measurement has.
        scratch: temporary folder for what measuring needs on disk.
        reason: why that backend.
    """

    config: Config
    photos: Photos
    device: torch.device
    epoch: int
    scratch: Path
    reason: str = ""

    @property
    def backend(self) -> str:
        """Who makes the pixels at present."""
        return self.config.data.backend

    @property
    def cache(self) -> str:
        """Where decoded photos are kept at present."""
        return self.config.data.cache


@dataclass(frozen=True)
class Trial:
    """A loader to measure.

    Attributes:
        name: its row.
        changes: `key=value` overrides of the present settings.
        setting: what a user would type for it; "" for the present settings, and for trials that only show a
            scaling curve or a reference.
        data: its photos, where they are not the present ones.
        note: what else it changes, for those who would follow it.
    """

    name: str
    changes: list[str] = field(default_factory=list)
    setting: str = ""
    data: Path | None = None
    note: str = ""

    def config(self, bench: Bench) -> Config:
        """The whole of its settings."""
        packed = {"data.classes": None} if self.data is not None else {}  # all of them are those chosen
        return change_config(bench.config, self.changes, packed)

    def variant(self, bench: Bench) -> Variant:
        """For the measuring core."""
        options = {
            "data": str(self.data or bench.photos.source),
            "settings": overrides(self.config(bench)),
            "device": bench.device.type,
            "photos": bench.epoch,
        }
        return Variant(self.name, LOADER, options)

    def about(self, bench: Bench) -> dict[str, Any]:
        """What its row says beside the figures."""
        config = self.config(bench)
        facts: dict[str, Any] = {
            "backend": config.data.backend,
            "cache": config.data.cache,
            "workers": config.data.workers or usable_cores(),
            "batch_size": config.train.batch_size,
            "setting": self.setting,
            "note": self.note,
        }
        facts |= {"kernels": config.data.kernels} if config.data.backend == "cpu" else {}
        by_gpu = {"decoder": "gpu", "hw_decoder_load": config.data.hw_decoder_load}
        return facts | (by_gpu if gpu_decodes(config.data) else {})


def overrides(config: Config) -> list[str]:
    """The `key=value` overrides that make the defaults this configuration."""
    mine, defaults = config.model_dump(mode="json"), Config().model_dump(mode="json")
    changed = []
    for key in known_keys():
        section, _, name = key.partition(".")
        if key != "data.path" and mine[section][name] != defaults[section][name]:
            changed.append(f"{key}={json.dumps(mine[section][name])}")
    return changed


def loader_trials(bench: Bench, quick: bool) -> tuple[list[Trial], dict[str, str]]:
    """The present loader first, then the others; and what is left out, with the reason, by name."""
    left_out: dict[str, str] = {}
    trials = [Trial(_name(bench.backend, bench.cache))]
    if not quick:
        trials += _backends(bench, left_out)
    for place in ("none", "vram") if bench.backend == "dali" else ("none", "ram", "disk"):
        if place != bench.cache and not (quick and place == "disk"):
            trials += _kept(bench, bench.backend, place, left_out)
    trials += _workers(bench, quick)
    if not quick:
        size = 4 * bench.config.train.batch_size
        change = f"train.batch_size={size}"
        name = f"{bench.backend}, batch {size}"
        trials.append(Trial(name, [change], change, note="changes the training too"))
    trials += _smaller(bench, left_out, quick)
    return trials, left_out


def _name(backend: str, cache: str) -> str:
    return backend if cache == "none" else f"{backend}, {cache} cache"


def _backends(bench: Bench, left_out: dict[str, str]) -> Iterator[Trial]:
    for backend in ("cpu", "dali" if bench.device.type == "cuda" else "dali-cpu"):
        if backend == bench.backend:
            continue
        try:
            other = change_config(bench.config, (), {"data.backend": backend})
            choose_backend(other.data, bench.device)
        except UserError as error:
            left_out[backend] = str(error)
            continue
        for place in ("none", "vram" if backend == "dali" else "ram"):
            yield from _kept(bench, backend, place, left_out)
    if bench.backend == "cpu" and bench.config.data.kernels != "torchvision":
        yield Trial("cpu, kernels=torchvision", ["data.kernels=torchvision"])
    if bench.backend == "dali" and bench.cache == "none":
        yield from _decoders(bench)


def _decoders(bench: Bench) -> Iterator[Trial]:
    """DALI with its decoder on the GPU: by the share that `auto` comes to, and by others."""
    from flowerfast.loaders.dali.settings import choose_share

    data = change_config(bench.config, ("data.decoder=gpu",), {}).data
    share, note = choose_share(data, bench.device, bench.photos), "pixels differ a little"
    if bench.config.data.decoder != "gpu":
        setting = "data.decoder=gpu"
        yield Trial("dali, decoder=gpu", [setting, f"data.hw_decoder_load={share}"], setting, note=note)
    for load in HW_LOADS:
        if load != share:
            # The share comes first: `train` goes by the first change, and one share is enough there.
            setting = f"data.hw_decoder_load={load} data.decoder=gpu"
            yield Trial(f"dali, decoder=gpu, load={load:g}", setting.split(), setting, note=note)


def _kept(bench: Bench, backend: str, place: str, left_out: dict[str, str]) -> Iterator[Trial]:
    """A backend with the decoded photos kept in `place`, where all have room there."""
    wanted = {"data.backend": (backend, bench.backend), "data.cache": (place, bench.cache)}
    changes = [f"{key}={value}" for key, (value, now) in wanted.items() if value != now]
    name, setting, problem = _name(backend, place), " ".join(changes), None
    if place == "disk":
        problem = why_no_disk(cache_folder(bench.config.data))
        changes.append(f"data.cache_dir={json.dumps(str(bench.scratch / 'photos'))}")
    problem = problem or (_no_room(bench, place) if place != "none" else None)
    if problem:
        left_out[name] = problem
    else:
        yield Trial(name, changes, setting, note="" if place == "none" else _LATER)


def _no_room(bench: Bench, place: str) -> str:
    """Why all photos would not fit a cache, or ""."""
    needed = cache_bytes(bench.photos, bench.photos.indices, bench.config.data.cache_side)
    budget = cache_budget(bench.config.data, place, bench.device)
    told = f"all photos take {needed / 1e9:.2f} GB, the budget is {budget / 1e9:.2f} GB"
    return told if needed > budget else ""


def _workers(bench: Bench, quick: bool) -> Iterator[Trial]:
    cores = usable_cores()
    now = bench.config.data.workers or cores
    curve = {2**power for power in range(int(math.log2(cores)) + 1)} | {cores, 2 * cores}
    for count in sorted({1, cores} if quick else curve):
        if count != now:
            setting = f"data.workers={count}"
            yield Trial(f"{bench.backend}, workers={count}", [setting], setting)


def _smaller(bench: Bench, left_out: dict[str, str], quick: bool) -> Iterator[Trial]:
    """Smaller photos: packed so, or decoded so, where they are larger than the crop needs."""
    backend, side = bench.backend, bench.config.data.image_size
    short = float(np.minimum(*bench.photos.sizes(bench.photos.indices)).mean())
    plain = backend == "cpu" and bench.cache == "none"
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
    yield Trial(name, [], setting, packed, "smaller photos, encoded once more")


def pack_sample(bench: Bench, max_side: int) -> Path:
    """The photos of the measurement, packed into shards in the temporary folder."""
    folder, out = bench.scratch / "sample", bench.scratch / f"packed-{max_side}"
    if bench.photos.table.shards is not None:
        raise UserError("the photos are packed already")
    for index in sample(bench.photos, min(bench.epoch, 300)).indices.tolist():
        path, label = bench.photos.path(index), bench.photos.table.label[index] % len(bench.photos.classes)
        # What a table calls its classes need be no name of a folder.
        link = folder / (path if bench.photos.table.file is None else f"{label}/{index}{Path(path).suffix}")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.symlink((bench.photos.root / path).resolve(), link)
    as_folder: dict[str, Any] = {"classes": None, "label_separator": None, "label_columns": None}
    as_folder |= {"layout": "classes"} if bench.photos.table.file is not None else {}
    pack(folder, out, PackSettings(max_side), bench.config.data.model_copy(update=as_folder))
    return out
