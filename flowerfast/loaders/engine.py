"""What makes batches: the contract of the backends, and which of them runs here."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Protocol

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
        # Advice that stands here alone: with auto, cpu is what is used already.
        instead = "dali-cpu or cpu" if wanted.type == "cuda" != device.type else "cpu"
        join = ", or" if ";" in problem else ";"
        raise UserError(f"data.backend={data.backend}: {problem}{join} use data.backend={instead}")
    return data.backend, f"data.backend={data.backend}"


def _dali_problem(wanted: torch.device, device: torch.device) -> str | None:
    if wanted.type == "cuda" and device.type != "cuda":
        return "train.device=cpu" if torch.cuda.is_available() else "torch sees no CUDA GPU"
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
