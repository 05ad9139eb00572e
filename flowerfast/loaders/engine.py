"""What makes batches: the contract of the backends, and which of them runs here."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, Protocol

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
        # Advice that stands here alone: with auto, cpu is what is used already.
        instead = "dali-cpu or cpu" if wanted.type == "cuda" != device.type else "cpu"
        join = ", or" if ";" in problem else ";"
        raise UserError(f"data.backend={data.backend}: {problem}{join} use data.backend={instead}")
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
        return "train.device=cpu" if torch.cuda.is_available() else "torch sees no CUDA GPU"
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return 'NVIDIA DALI is not installed; on Linux: pip install "flowerfast[dali]"'
    from flowerfast.loaders.dali.probe import dali_problem  # may import DALI, a second or more: when wanted

    return dali_problem(wanted)


def choose_augmenter(
    data: DataConfig, backend: str, cache: str, device: torch.device, size: int
) -> tuple[Literal["triton", "dali"] | None, str]:
    """(who augments on the GPU, why) for `data.gpu_kernels`; None where that is done on the CPU.

    `size` is the side of the images, in pixels. Raises UserError when Triton's kernels are asked for, or
    nothing else will do, and they do not run here.
    """
    on_cpu = backend == "cpu" or (backend == "dali-cpu" and data.gpu_kernels != "triton")
    if on_cpu and cache != "vram":
        return None, ""
    from flowerfast.pixels.gpu import kernel_problem

    problem = None if data.gpu_kernels == "dali" else kernel_problem(workplace(backend, device, cache), size)
    if data.gpu_kernels == "triton" and problem is not None:
        raise UserError(f"data.gpu_kernels=triton: {problem}; use auto or dali")
    if data.gpu_kernels != "dali" and problem is None:
        return "triton", "Triton's kernels gave the reference's pixels in a trial"
    why = problem or "data.gpu_kernels=dali"
    if backend == "cpu":
        raise UserError(
            f"data.cache=vram: without DALI only Triton's kernels can use it ({why}); use ram or none"
        )
    return "dali", why


def open_engine(
    backend: str, sampler: Sampler, data: DataConfig, device: torch.device, cache: PhotoCache | None
) -> Engine:
    """The engine of a backend, whose batches come to `device`; `cache` is where it works.

    `data.gpu_kernels` is taken for granted: triton where they run, dali otherwise.
    """
    at_hand = cache is not None and cache.store.device.type == device.type
    if cache is not None and at_hand and data.gpu_kernels == "triton":
        from flowerfast.loaders.cached import CachedEngine

        return CachedEngine(sampler, data, device, cache)
    if backend == "cpu":
        from flowerfast.loaders.threads import ThreadEngine

        return ThreadEngine(sampler, data, device, cache)
    from flowerfast.loaders.dali.engine import DaliEngine

    return DaliEngine(sampler, data, workplace(backend, device), cache, target=device)


def workplace(backend: str, device: torch.device, cache: str = "none") -> torch.device:
    """Where a backend makes pixels, and keeps decoded photos."""
    return device if backend == "dali" or cache == "vram" else torch.device("cpu")
