"""What each step of a loader costs, inside the executor that training uses.

The executor is stopped after one step more each time, over the same photos in turns, on one thread: the
difference is that step. So nothing is timed that training does not do, and the parts add up to the whole,
which is timed beside them: the loader itself with one worker.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from flowerfast.bench.result import BESIDE, middle_and_spread
from flowerfast.bench.rounds import timed
from flowerfast.bench.sources import sample
from flowerfast.config import Config
from flowerfast.kernels import End
from flowerfast.kernels.ready import LOOPS
from flowerfast.loaders.cache.choice import open_cache
from flowerfast.loaders.cache.store import Cached
from flowerfast.loaders.threads import chunk_size, finished_batch
from flowerfast.photos.photos import Photos
from flowerfast.pixels.executor import Executor, Executors
from flowerfast.pixels.reference import PlainExecutor
from flowerfast.pixels.source import Files
from flowerfast.places import url_of
from flowerfast.plans.plan import Plan
from flowerfast.training.half_loaders import training_loader

NAMES = {
    End.read: "read",
    End.decode: "decode",
    End.resize: "crop+resize",
    End.turn: "flip+rotate",
    End.jitter: "jitter",
    End.all: "translate",
}
"""Stages by the end at which the executor has done them."""
ASSEMBLE = "assemble"
Figures = dict[str, Any]
_CPU = torch.device("cpu")


class StageClock:
    """Times the executor of a configuration, and the whole loader with one worker; to be closed.

    Args:
        config: settings.
        photos: those to use.
        cache: where decoded photos are kept; one on the GPU is left out, since the CPU cannot use it.
    """

    def __init__(self, config: Config, photos: Photos, cache: str = "none") -> None:
        place = cache if cache in ("ram", "disk") else "none"
        data = config.data.model_copy(update={"backend": "cpu", "cache": place, "workers": 1})
        self._photos = photos
        self._loader = training_loader(config.model_copy(update={"data": data}), photos, _CPU)
        self._sampler = self._loader.plan_sampler
        # As `ThreadEngine` opens it; only an executor of our own can be stopped half way.
        kept = open_cache(place, data, photos, _CPU)
        files = Files(photos, data.kernels != "torchvision", data.decode_scale)
        source = files if kept is None else Cached(kept)
        if data.kernels != "torchvision":
            LOOPS.demand()  # the steady state is measured
        self._executor: Executor = Executors(data.kernels, photos, source).now
        self._chunk = chunk_size(self._sampler.batch_size, data.prefetch, threads=1)

    @property
    def executor(self) -> str:
        """numba or torchvision."""
        return "torchvision" if isinstance(self._executor, PlainExecutor) else "numba"

    def close(self) -> None:
        """Free the loader."""
        self._loader.close()

    def warm_up(self) -> float:
        """One pass, which compiles, fills caches and scratch memory, and a timed second one: ms per image."""
        for _ in range(2):
            spent = sum(self._fill(plan, End.all) for plan in self._sampler.plans(0))
        return self._ms(spent)

    def measure(self, repeats: int, device: torch.device) -> dict[str, Any]:
        """The `stages` part of the result."""
        cumulated: dict[End, list[float]] = {end: [] for end in End}
        assembled, whole = [], []
        with one_thread(), ThreadPoolExecutor(1) as pool:
            for epoch in range(repeats + 1):
                seconds, gathering = self._pass(epoch, [*End] if epoch % 2 else [*End][::-1], pool)
                (taken,) = timed(partial(self._draw_all, epoch), 1)
                if not epoch:
                    continue  # it warmed up
                whole.append(self._ms(taken))
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
            rows[BESIDE] = self._to_device(repeats, device)
        loader_row = figures(whole)
        return {
            "executor": self.executor,
            "threads": 1,
            "photos": len(self._photos),
            "repeats": repeats,
            "rows": rows,
            "sum_ms": total,
            "loader_ms": loader_row["ms"],
            "loader_spread_ms": loader_row["spread_ms"],
            "cold_read": cold_read(sample(self._photos, 200), repeats),
        }

    def _draw_all(self, epoch: int) -> None:
        for _ in self._loader.epoch(epoch):
            pass

    def _ms(self, seconds: float) -> float:
        return 1000 * seconds / len(self._photos)

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
            self._executor.source.prepare(plan)
            images = torch.empty((len(plan), plan.size, plan.size, 3), dtype=torch.uint8)
            for task in [pool.submit(int) for _ in range(0, len(plan), self._chunk)]:
                task.result()
            finished_batch(self._photos, plan, images, {})
            around += time.perf_counter() - started
            del images
            started = time.perf_counter()
        return seconds, around

    def _fill(self, plan: Plan, end: End) -> float:
        """Seconds in the executor. Into fresh memory, as in the loader: its pages are first touched here."""
        prepared = self._executor.source.prepare(plan)
        rows = torch.empty((len(plan), plan.size, plan.size, 3), dtype=torch.uint8).numpy()
        started = time.perf_counter()
        for first in range(0, len(plan), self._chunk):
            self._executor.fill(prepared, rows, range(first, min(first + self._chunk, len(plan))), end)
        return time.perf_counter() - started

    def _to_device(self, repeats: int, device: torch.device) -> Figures:
        n, side = self._sampler.batch_size, self._sampler.size
        images = torch.empty((n, side, side, 3), dtype=torch.uint8).pin_memory()
        taken = timed(lambda: images.to(device, non_blocking=True), repeats + 1)
        return figures([1000 * seconds / n for seconds in taken[1:]])


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's operations stay on the thread that calls them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cold_read(photos: Photos, repeats: int) -> Figures:
    """Milliseconds per photo, read one after the other, with its content gone from the page cache.

    As in the first epoch on a machine that has just started. {"ms", "spread_ms", "images_per_sec"}, or
    {"not_measured": why}: the kernel is asked to let go of each file, and then whether it has; names and
    places of the files stay in its memory.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return {"not_measured": "this system does not let a program drop files from its page cache"}
    taken, indices, shards = [], photos.indices.tolist(), photos.table.shards
    if url_of(photos.source) is not None:
        return {"not_measured": "the photos come from a URL"}
    if shards is None:
        files = [os.path.join(photos.root, photos.path(index)) for index in indices]
    else:
        files = [os.path.join(shards.folder, file.name) for file in shards.files]
    for _ in range(repeats):
        kept = sum(not _dropped(file) for file in files)
        if kept > 0.05 * len(files):
            return {"not_measured": f"the system kept {kept} of {len(files)} files in its page cache"}
        started = time.perf_counter()
        for index in indices:
            photos.read_one(index)
        taken.append(1000 * (time.perf_counter() - started) / len(indices))
    return figures(taken)


def _dropped(path: str) -> bool:
    """Ask for a file to be dropped from the page cache: whether its first byte is gone."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)
        finally:
            os.close(file)
    except BlockingIOError:  # it would have to be fetched from the disk
        return True
    except OSError:  # a file system that cannot say
        return False
    return False


def figures(taken: Sequence[float]) -> Figures:
    """Median of repeats in milliseconds per image, its spread and the rate.

    The median is never below a microsecond, the least that is told apart here.
    """
    middle, spread = middle_and_spread(taken)
    return {"ms": max(middle, 0.001), "spread_ms": spread, "images_per_sec": 1000 / max(middle, 0.001)}
