"""What each step of a loader costs, inside the executor that training uses.

The executor is stopped after one step more each time, over the same photos in turns, on one thread: the
difference is that step. So nothing is timed that training does not do, and the parts add up to the whole,
which is timed beside them: the loader itself with one worker.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from flowerfast.bench.disk import Figures, cold_read, figures
from flowerfast.config import Config
from flowerfast.data.manifest import Manifest
from flowerfast.data.plan import End, EvalPlan, Plan
from flowerfast.loaders import BadFiles, Recipe
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.cache_choice import open_cache
from flowerfast.loaders.sampling import Sampler
from flowerfast.loaders.torchvision import (
    Executes,
    Executor,
    TorchvisionLoader,
    chunk_size,
    finished_batch,
    make_executor,
)

NAMES = {
    End.read: "read",
    End.decode: "decode",
    End.resize: "crop+resize",
    End.turn: "flip+rotate",
    End.jitter: "jitter",
    End.all: "translate",
}
"""Stages by the end at which the executor has done them."""
ASSEMBLE, TO_DEVICE = "assemble", "host-to-device"
_CPU = torch.device("cpu")


class StageClock:
    """Times the executor of a configuration, and the whole loader with one worker.

    Args:
        config: settings; a cache on the GPU is left out, since the CPU cannot use it.
        manifest: all photos.
        indices: int64 (n,), the photos to use.
        cache: where decoded photos are kept: none, ram or disk.
    """

    def __init__(self, config: Config, manifest: Manifest, indices: np.ndarray, cache: str = "none") -> None:
        self._manifest, self._indices = manifest, indices
        self._recipe = recipe_of(config)
        self._sampler = Sampler(manifest, indices, self._recipe)
        self._bad = BadFiles(manifest, "skip", 1.0)
        place = cache if cache in ("ram", "disk") else "none"
        self._cache: PhotoCache | None = open_cache(place, config.data, manifest, indices, _CPU)
        self._data = config.data.model_copy(update={"workers": 1})
        self._chunk = chunk_size(self._recipe.batch_size, config.data.prefetch, threads=1)
        self._executor: Executes = make_executor(self._data, manifest, self._cache)[0]

    @property
    def executor(self) -> str:
        """numba or torchvision."""
        return "torchvision" if isinstance(self._executor, Executor) else "numba"

    def warm_up(self) -> float:
        """One pass, which compiles, fills caches and scratch memory, and a timed second one: ms per image."""
        for _ in range(2):
            spent = sum(self._fill(plan, End.all) for plan in self._sampler.plans(0))
        return 1000 * spent / len(self._indices)

    def measure(self, repeats: int, device: torch.device) -> dict[str, Any]:
        """The `stages` part of the result."""
        cumulated: dict[End, list[float]] = {end: [] for end in End}
        assembled, whole = [], []
        with one_thread(), self._loader() as loader, ThreadPoolExecutor(1) as pool:
            for epoch in range(repeats + 1):
                seconds, gathering = self._pass(epoch, [*End] if epoch % 2 else [*End][::-1], pool)
                started = time.perf_counter()
                for _ in loader.epoch(epoch):
                    pass
                if not epoch:
                    continue  # it warmed up
                whole.append(self._ms(time.perf_counter() - started))
                assembled.append(self._ms(gathering))
                for end, spent in seconds.items():
                    cumulated[end].append(self._ms(spent))
        rows = {}
        for end, name in NAMES.items():
            before = cumulated[End(end - 1)] if end else [0.0] * repeats
            steps = zip(cumulated[end], before, strict=True)
            rows[name] = figures([total - earlier for total, earlier in steps])
        rows[ASSEMBLE] = figures(assembled)
        total = sum(row["ms"] for row in rows.values())
        if device.type == "cuda":
            rows[TO_DEVICE] = self._to_device(repeats, device)
        loader_row = figures(whole)
        return {
            "executor": self.executor,
            "threads": 1,
            "photos": len(self._indices),
            "repeats": repeats,
            "rows": rows,
            "sum_ms": total,
            "loader_ms": loader_row["ms"],
            "loader_spread_ms": loader_row["spread_ms"],
            "cold_read": cold_read(self._manifest, self._indices[:200].tolist(), repeats),
        }

    def _ms(self, seconds: float) -> float:
        return 1000 * seconds / len(self._indices)

    def _pass(self, epoch: int, ends: list[End], pool: ThreadPoolExecutor) -> tuple[dict[End, float], float]:
        """All photos once to each end: seconds by end, and those of what surrounds the executor.

        To that belongs the handing over of tasks to threads, here of tasks that do nothing.
        """
        seconds, around = dict.fromkeys(End, 0.0), 0.0
        plans, started = self._sampler.plans(epoch), time.perf_counter()
        for plan in plans:
            around += time.perf_counter() - started
            for end in ends:
                seconds[end] += self._fill(plan, end)
            started = time.perf_counter()
            self._executor.prepare(plan)
            images = torch.empty((len(plan), plan.size, plan.size, 3), dtype=torch.uint8)
            for task in [pool.submit(int) for _ in range(0, len(plan), self._chunk)]:
                task.result()
            finished_batch(self._manifest, self._bad, plan.indices, images, {})
            around += time.perf_counter() - started
            del images
            started = time.perf_counter()
        return seconds, around

    def _fill(self, plan: Plan | EvalPlan, end: End) -> float:
        """Seconds in the executor. Into fresh memory, as in the loader: its pages are first touched here."""
        prepared = self._executor.prepare(plan)
        rows = torch.empty((len(plan), plan.size, plan.size, 3), dtype=torch.uint8).numpy()
        started = time.perf_counter()
        for first in range(0, len(plan), self._chunk):
            self._executor.fill(prepared, rows, range(first, min(first + self._chunk, len(plan))), end)
        return time.perf_counter() - started

    @contextmanager
    def _loader(self) -> Iterator[TorchvisionLoader]:
        loader = TorchvisionLoader(
            self._manifest, self._indices, self._recipe, self._data, _CPU, self._bad, self._cache
        )
        try:
            yield loader
        finally:
            loader.close()

    def _to_device(self, repeats: int, device: torch.device) -> Figures:
        n, side = self._recipe.batch_size, self._recipe.image_size
        images, taken = torch.empty((n, side, side, 3), dtype=torch.uint8).pin_memory(), []
        for _ in range(repeats + 1):
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            images.to(device, non_blocking=True)
            torch.cuda.synchronize(device)
            taken.append(1000 * (time.perf_counter() - started) / n)
        return figures(taken[1:])


def recipe_of(config: Config) -> Recipe:
    """Training batches of a configuration."""
    return Recipe(
        config.data.image_size, config.train.batch_size, config.train.seed, config.augment, shuffle=True
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's operations stay on the thread that calls them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
