"""Executors of plans, and the only switch between them."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.data.manifest import Manifest
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, Loader, Recipe
from flowerfast.loaders.cache_choice import choose_cache, free_memory, open_cache
from flowerfast.loaders.kept import KeptLoader
from flowerfast.loaders.sampling import BadFiles
from flowerfast.loaders.torchvision import TorchvisionLoader

__all__ = [
    "BadFiles",
    "Batch",
    "Choice",
    "Loader",
    "Recipe",
    "choose_backend",
    "choose_cache",
    "make_eval_loader",
    "make_loader",
]


@dataclass(frozen=True)
class Choice:
    """The executor and cache of a run, and why."""

    backend: str
    reason: str
    cache: str = "none"
    cache_reason: str = ""


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
    cache = open_cache(choice.cache, data, manifest, indices, place)
    if choice.backend == "torchvision":
        return TorchvisionLoader(manifest, indices, recipe, data, device, bad, cache)
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
