"""How fast this machine's loaders were when they were last measured: what `auto` goes by.

`flowerfast bench` keeps a small file per machine in the cache folder. Several machines may share that
folder, and one CPU may be cut into containers of different sizes, so a machine is known by its CPU, the cores
that this process may use, and its GPU. Speeds are only ever compared within one run, in which they were
measured in turns on the same photos.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field

from flowerfast.config import Config, DataConfig
from flowerfast.documents import DocumentError, conform, read_json
from flowerfast.files import write_text
from flowerfast.kernels import numba_problem
from flowerfast.loaders.device import device_name
from flowerfast.machine import cpu_name, usable_cores, user_cache_dir, versions
from flowerfast.photos.photos import Photos

WIDE = 0.15
"""Share of the median above which a spread is too wide to go by."""
_NEAR = 1.0
"""Most octaves (1: a factor of two) between what was measured and what is to be done, in pixels per photo and
in pixels per image: decoding costs by the former, all that follows by the latter."""
_RUNS = 32  # kept in a file, newest last
_DECIDES = ("flowerfast", "torch", "numba", "nvidia-dali-cuda120", "nvidia-dali-cuda130")


class Speed(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One loader: the settings that decide its speed, and median and spread of its rounds in images/s."""

    backend: str
    cache: str
    decoder: Literal["cpu", "gpu"]
    hw_decoder_load: float | None
    gpu_kernels: str | None
    workers: int
    kernels: str
    decode_scale: str
    images_per_sec: float = Field(gt=0)
    spread: float = Field(ge=0)


class Run(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Loaders measured side by side; megapixels is the mean of the photos."""

    date: str
    megapixels: float = Field(gt=0)
    image_size: int = Field(gt=0)
    batch_size: int
    versions: dict[str, str]
    speeds: tuple[Speed, ...]


class _Profile(BaseModel, frozen=True, extra="forbid"):
    schema_version: Literal[1] = 1
    machine: dict[str, str | int]
    runs: tuple[Run, ...] = ()


def remember(
    photos: Photos,
    device: torch.device,
    config: Config,
    measured: Iterable[tuple[DataConfig, Mapping[str, Any]]],
) -> Path:
    """Keep what a run has measured: the file that it was written to.

    Args:
        photos: those that were read.
        device: where batches were wanted.
        config: image and batch size.
        measured: for each loader its settings, backend and cache by name, and a row of the results with
            `images_per_sec` and `spread`.

    Raises OSError where the cache folder cannot be written.
    """
    figures = ("images_per_sec", "spread")
    speeds = [Speed(**_settings(data), **{name: row[name] for name in figures}) for data, row in measured]
    run = Run(
        date=time.strftime("%Y-%m-%d"),
        megapixels=_megapixels(photos),
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        versions=_versions(),
        speeds=tuple(speeds),
    )
    runs = (*_read(device).runs, run)[-_RUNS:]
    profile, file = _Profile(machine=_machine(device), runs=runs), _file(device)
    write_text(file, profile.model_dump_json(indent=1) + "\n", shared=True)
    return file


def compare(
    photos: Photos, device: torch.device, wanted: Sequence[DataConfig]
) -> tuple[str, list[Speed]] | None:
    """(date, the speed of each loader that is wanted) where one run has measured all of them; else None.

    That run is of the same versions, and the nearest in pixels of photos and images; of equally near ones the
    newest. Where settings leave the share of the hardware decoder open, or who augments, the fastest counts.
    Figures that are too noisy to go by do not.
    """
    if not len(photos):
        return None
    megapixels, size, now = _megapixels(photos), wanted[0].image_size, _versions()
    nearest, found = math.inf, None
    for run in reversed(_read(device).runs):
        apart = abs(math.log2(megapixels / run.megapixels)), 2 * abs(math.log2(size / run.image_size))
        distance = round(sum(apart), 1)
        if run.versions == now and max(apart) <= _NEAR and distance < nearest:
            best = [speed for data in wanted if (speed := _fastest(run, data))]
            if len(best) == len(wanted):
                nearest, found = distance, (run.date, best)
    return found


def gpu_decodes(data: DataConfig) -> bool:
    """Whether a loader of augmented batches decodes on the GPU; backend and cache are given by name."""
    return (data.backend, data.cache, data.decoder) == ("dali", "none", "gpu")


def _fastest(run: Run, data: DataConfig) -> Speed | None:
    wanted = _settings(data)
    for name in ("hw_decoder_load", "gpu_kernels"):
        if wanted[name] == "auto":
            del wanted[name]
    fit = [
        speed
        for speed in run.speeds
        if speed.spread <= WIDE * speed.images_per_sec
        and all(getattr(speed, name) == value for name, value in wanted.items())
    ]
    return max(fit, key=lambda speed: speed.images_per_sec, default=None)


def _settings(data: DataConfig) -> dict[str, Any]:
    """The settings of a `Speed`; what does not matter to a loader is the same in all of its kind."""
    by_gpu, compiled = gpu_decodes(data), data.kernels != "torchvision" and numba_problem() is None
    return {
        "backend": data.backend,
        "cache": data.cache,
        "decoder": "gpu" if by_gpu else "cpu",
        "hw_decoder_load": data.hw_decoder_load if by_gpu else None,
        "gpu_kernels": data.gpu_kernels if data.backend == "dali" or data.cache == "vram" else None,
        "workers": data.workers or usable_cores(),
        "kernels": "numba" if compiled else "torchvision",
        "decode_scale": data.decode_scale if data.backend == "cpu" else "off",
    }


def _megapixels(photos: Photos) -> float:
    width, height = photos.sizes(photos.indices)
    return float((width * height).mean()) / 1e6


def _versions() -> dict[str, str]:
    return {name: number for name, number in versions().items() if name in _DECIDES}


def _machine(device: torch.device) -> dict[str, str | int]:
    gpu = device_name(device) if device.type == "cuda" else "none"
    return {"cpu": cpu_name(), "cores": usable_cores(), "gpu": gpu}


def _file(device: torch.device) -> Path:
    key = hashlib.sha256(json.dumps(_machine(device)).encode()).hexdigest()[:16]
    return user_cache_dir() / "speeds" / f"{key}.json"


def _read(device: torch.device) -> _Profile:
    """What is known of this machine; nothing where there is no file, or none of this version."""
    try:
        return conform(_Profile, read_json(_file(device)))
    except (OSError, DocumentError):
        return _Profile(machine=_machine(device))
