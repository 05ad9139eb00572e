"""Executors of plans, and the only switch between them."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.data.manifest import Manifest
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, Loader, Recipe
from flowerfast.loaders.cache import PhotoCache, cache_bytes
from flowerfast.loaders.kept import KeptLoader
from flowerfast.loaders.processes import ProcessLoader, can_fork
from flowerfast.loaders.sampling import BadFiles
from flowerfast.loaders.torchvision import TorchvisionLoader

__all__ = [
    "BadFiles",
    "Batch",
    "Choice",
    "Loader",
    "Recipe",
    "choose_backend",
    "make_eval_loader",
    "make_loader",
]


@dataclass(frozen=True)
class Choice:
    """The executor and cache of a run, and why."""

    backend: str
    reason: str
    cache: str = "none"


def choose_backend(data: DataConfig, device: torch.device) -> Choice:
    """Executor for `data.backend`: auto is DALI on the GPU where both are there, else torchvision.

    Raises UserError with the remedy when the executor asked for cannot run here.
    """
    if data.backend == "torchvision":
        return Choice("torchvision", "data.backend=torchvision")
    wanted = torch.device("cpu") if data.backend == "dali-cpu" else torch.device("cuda")
    problem = _dali_problem(wanted, device)
    if data.backend == "auto":
        if problem is None:
            return Choice("dali", "CUDA GPU and NVIDIA DALI are both there")
        return Choice("torchvision", f"no DALI on the GPU: {problem}")
    if problem is not None:
        raise UserError(f"data.backend={data.backend}: {problem}")
    return Choice(data.backend, f"data.backend={data.backend}")


def _dali_problem(wanted: torch.device, device: torch.device) -> str | None:
    if wanted.type == "cuda" and device.type != "cuda":
        there = "train.device=cpu" if torch.cuda.is_available() else "torch sees no CUDA GPU"
        return f"{there}; use data.backend=dali-cpu or torchvision"
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return 'NVIDIA DALI is not installed; on Linux: pip install "flowerfast[dali]"'
    from flowerfast.loaders.dali_probe import dali_problem  # may import DALI, a second or more: when wanted

    return dali_problem(wanted)


def choose_cache(
    data: DataConfig, backend: str, device: torch.device, manifest: Manifest, indices: np.ndarray
) -> str:
    """Cache of decoded photos: none, ram or vram. `auto` takes it when it fits in a third of the free memory.

    Raises UserError when the executor has no such cache.
    """
    place = "vram" if backend == "dali" else "ram"
    if data.cache in ("none", place):
        return data.cache
    if data.cache != "auto":
        raise UserError(
            f"data.cache={data.cache}: the {backend} backend keeps photos in {place}; use that or auto"
        )
    fits = (
        cache_bytes(manifest, indices, data.cache_side)
        <= free_memory(device if place == "vram" else None) / 3
    )
    return place if fits else "none"


def free_memory(device: torch.device | None = None) -> int:
    """Bytes free on a CUDA device, or in the host's memory."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2 << 30  # not Linux: assume little


def use_processes(data: DataConfig) -> bool:
    """Whether torchvision's workers are processes. Raises UserError when they are asked for and cannot be.

    `auto` takes threads: forked workers crashed (2 of 3 runs) in a process that had used DALI, for a reason
    not yet found, and they have not been measured beside a GPU.
    """
    if data.worker_kind != "processes":
        return False
    if not can_fork():
        raise UserError("data.worker_kind=processes: this system cannot fork; use threads or auto")
    if "nvidia.dali" in sys.modules:
        raise UserError(
            "data.worker_kind=processes: DALI is loaded in this process, and forked workers crash beside it; "
            "use threads, or a process of its own"
        )
    return True


def make_loader(
    choice: Choice,
    manifest: Manifest,
    indices: np.ndarray,
    recipe: Recipe,
    data: DataConfig,
    device: torch.device,
    bad: BadFiles,
) -> Loader:
    """Loader of some samples with the chosen executor."""
    place = device if choice.backend == "dali" else torch.device("cpu")
    cache = PhotoCache(manifest, indices, data.cache_side, place) if choice.cache != "none" else None
    if choice.backend == "torchvision":
        kind = ProcessLoader if use_processes(data) else TorchvisionLoader
        return kind(manifest, indices, recipe, data, device, bad, cache)
    from flowerfast.loaders.dali import DaliLoader

    return DaliLoader(manifest, indices, recipe, data, place, bad, cache, target=device)


def make_eval_loader(
    choice: Choice,
    manifest: Manifest,
    indices: np.ndarray,
    recipe: Recipe,
    data: DataConfig,
    device: torch.device,
    bad: BadFiles,
) -> Loader:
    """Loader for evaluation: kept decoded when it has no randomness and fits a quarter of the free memory."""
    inner = make_loader(Choice(choice.backend, choice.reason), manifest, indices, recipe, data, device, bad)
    size = len(indices) * 3 * recipe.image_size**2
    return KeptLoader(inner) if recipe.augment is None and size < free_memory(device) / 4 else inner
