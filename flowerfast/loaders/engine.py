"""What makes batches: the contract of the backends, and which of them runs here."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.cache.store import PhotoCache
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


def choose_backend(data: DataConfig, device: torch.device) -> tuple[str, str]:
    """(backend, why) for `data.backend`: auto is DALI on the GPU where both are there, else cpu.

    Raises UserError with the remedy when the backend asked for cannot run here.
    """
    if data.backend == "cpu":
        return "cpu", "data.backend=cpu"
    wanted = torch.device("cpu") if data.backend == "dali-cpu" else torch.device("cuda")
    problem = _dali_problem(wanted, device)
    if data.backend == "auto":
        if problem is None:
            return "dali", "CUDA GPU and NVIDIA DALI are both there"
        return "cpu", f"no DALI on the GPU: {problem}"
    if problem is not None:
        raise UserError(f"data.backend={data.backend}: {problem}")
    return data.backend, f"data.backend={data.backend}"


def _dali_problem(wanted: torch.device, device: torch.device) -> str | None:
    if wanted.type == "cuda" and device.type != "cuda":
        there = "train.device=cpu" if torch.cuda.is_available() else "torch sees no CUDA GPU"
        return f"{there}; use data.backend=dali-cpu or cpu"
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
