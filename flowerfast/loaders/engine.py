"""What makes batches: the contract of the backends, and which of them runs here."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.cache.choice import choose_cache
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.speeds import compare
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Plan, Sampler


class Engine(Protocol):
    """Batches of a sampler's plans, epoch by epoch.

    A file that cannot be decoded is left out of its batch (shorter then, at worst empty) and reported to
    the photos. Which samples share a batch, and their pixels, depend on nothing but (seed, epoch): not on
    workers, prefetch or where the epoch was entered.
    """

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were chosen, one line each."""
        ...

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on; an abandoned iterator stops its workers."""
        ...

    def execute(self, plan: Plan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        ...

    def close(self) -> None:
        """Free threads, memory and device resources; may be called twice."""
        ...


def choose_backend(data: DataConfig, device: torch.device, photos: Photos | None = None) -> tuple[str, str]:
    """(backend, why) for `data.backend`.

    auto is cpu unless DALI and a CUDA GPU are both there. Of the two then the one that has the cache asked
    for; else what was measured to be faster on this machine, for `photos` and images of `data.image_size`;
    else, and without `photos`, DALI (docs/gpu.md says why).

    Raises UserError with the remedy when the backend asked for cannot run here.
    """
    if data.backend == "cpu":
        return "cpu", "data.backend=cpu"
    wanted = torch.device("cpu") if data.backend == "dali-cpu" else torch.device("cuda")
    problem = _dali_problem(wanted, device)
    if data.backend == "auto":
        if problem is None:
            return _choose_of_two(data, device, photos)
        return "cpu", f"no DALI on the GPU: {problem}"
    if problem is not None:
        raise UserError(f"data.backend={data.backend}: {problem}")
    return data.backend, f"data.backend={data.backend}"


def _choose_of_two(data: DataConfig, device: torch.device, photos: Photos | None) -> tuple[str, str]:
    """(dali or cpu, why) on a machine that has both."""
    there = "CUDA GPU and NVIDIA DALI are both there"
    if data.cache in ("ram", "disk"):
        return "cpu", f"it is the one that keeps photos for data.cache={data.cache}"
    if photos is None or data.cache == "vram":
        return "dali", there
    places = {name: choose_cache(data, name, device, photos)[0] for name in ("dali", "cpu")}
    wanted = [data.model_copy(update={"backend": name, "cache": place}) for name, place in places.items()]
    found = compare(photos, device, wanted)
    if found is None:
        open_question = "which is faster for such photos was not measured on this machine"
        return "dali", f"{there}; {open_question}: flowerfast bench DATA decides"
    date, speeds = found[0], sorted(found[1], key=lambda speed: -speed.images_per_sec)
    told = [
        f"{speed.backend}{'' if speed.cache == 'none' else f' with {speed.cache} cache'} "
        f"{speed.images_per_sec:,.0f}"
        for speed in speeds
    ]
    return speeds[0].backend, f"measured on this machine on {date}: {told[0]} images/s, {told[1]}"


def _dali_problem(wanted: torch.device, device: torch.device) -> str | None:
    if wanted.type == "cuda" and device.type != "cuda":
        there = "train.device=cpu" if torch.cuda.is_available() else "torch sees no CUDA GPU"
        return f"{there}; use data.backend=dali-cpu or cpu"
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return 'NVIDIA DALI is not installed; on Linux: pip install "flowerfast[dali]"'
    from flowerfast.loaders.dali.probe import dali_problem  # may import DALI, a second or more: when wanted

    return dali_problem(wanted)


def open_engine(
    backend: str, sampler: Sampler, data: DataConfig, device: torch.device, cache: PhotoCache | None
) -> Engine:
    """The engine of a backend, whose batches come to `device`; `cache` is where it works."""
    if backend == "cpu":
        from flowerfast.loaders.threads import ThreadEngine

        return ThreadEngine(sampler, data, device, cache)
    from flowerfast.loaders.dali.engine import DaliEngine

    return DaliEngine(sampler, data, workplace(backend, device), cache, target=device)


def workplace(backend: str, device: torch.device) -> torch.device:
    """Where a backend makes pixels, and keeps decoded photos."""
    return device if backend == "dali" else torch.device("cpu")
