"""CPU executor: plans to pixels with torchvision's reference semantics, and a loader that runs it in threads.

`Executor` is the plain way, in torchvision's and Pillow's operations. Where numba is at hand the loader runs
`compiled.CompiledExecutor` in its place, which gives the same pixels.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.data.manifest import BadFile, Manifest
from flowerfast.data.plan import End, EvalPlan, Plan
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, Recipe
from flowerfast.loaders.cache import PhotoCache, scale_plan
from flowerfast.loaders.decode import DecodeError, decode
from flowerfast.loaders.sampling import BadFiles, Sampler
from flowerfast.loaders.shrink import Shrunk, shrink_plan
from flowerfast.loaders.transfer import to_device

_LEAST, _MOST = 8, 32  # samples per task: enough to hide the cost of a call, few enough to balance threads
_TASKS = 4  # per thread, under way or waiting


@dataclass
class _Job:
    """One batch under way: tasks fill rows of `images`; failures name rows that stay empty."""

    indices: np.ndarray
    images: torch.Tensor
    tasks: list[Future[dict[int, str]]]


class Executes(Protocol):
    """What makes pixels of plans on the calling thread; threads may share it."""

    def prepare(self, plan: Plan | EvalPlan) -> Any:
        """What `fill` takes."""
        ...

    def fill(self, prepared: Any, rows: np.ndarray, span: range, until: End = End.all) -> dict[int, str]:
        """Pixels of some samples into `rows`, uint8 (n, S, S, 3); why rows failed.

        With an earlier end the rows hold nothing of use, and a photo from the cache costs no `read`.
        """
        ...


def make_executor(
    data: DataConfig, manifest: Manifest, cache: PhotoCache | None
) -> tuple[Executes, list[str]]:
    """Executor for `data.kernels`, and what the user should know of it, one line each.

    Raises UserError when numba is asked for and is not there.
    """
    if data.kernels == "torchvision":
        return Executor(manifest, cache, data.decode_scale), []
    if find_spec("numba") is None:
        if data.kernels == "numba":
            raise UserError("data.kernels=numba: numba is not installed; pip install numba, or use auto")
        slower = "torchvision and Pillow make the photos ready, at half the speed or less"
        return Executor(manifest, cache, data.decode_scale), [
            f"numba is not installed: {slower}; pip install numba"
        ]
    from flowerfast.kernels.compiling import is_compiled  # numba takes half a second to import
    from flowerfast.loaders.compiled import CompiledExecutor

    wait = (
        [] if is_compiled() else ["compiling the CPU loops for this machine: the first batch takes seconds"]
    )
    return CompiledExecutor(manifest, cache, data.decode_scale), wait


class Executor:
    """Executes plans in torchvision's and Pillow's operations on the calling thread; threads may share it.

    Args:
        manifest: all photos.
        cache: decoded photos to read from and fill, or None; evaluation plans go past it.
        decode_scale: the setting; photos from the cache are as they were cached.
    """

    def __init__(self, manifest: Manifest, cache: PhotoCache | None, decode_scale: str = "off") -> None:
        self._manifest, self._cache, self._decode_scale = manifest, cache, decode_scale
        self._local = threading.local()

    def prepare(self, plan: Plan | EvalPlan) -> Shrunk:
        """What `fill` takes: the plan for photos of the size in which they are found."""
        if self._cache is None or isinstance(plan, EvalPlan):
            return shrink_plan(plan, self._manifest, self._decode_scale)
        old, new = self._cache.sizes(plan.indices)
        return Shrunk(scale_plan(plan, old, new), np.ones(len(plan), np.int64), *new)

    def fill(self, prepared: Shrunk, rows: np.ndarray, span: range, until: End = End.all) -> dict[int, str]:
        """Pixels of some samples of a prepared plan into `rows`, uint8 (n, S, S, 3); see `Executes`."""
        plan, failed = prepared.plan, {}
        for row in span:
            index = int(plan.indices[row])
            try:
                if self._cache is not None and isinstance(plan, Plan):
                    if until is End.read:
                        continue
                    photo = self._cached(index, self._cache)
                elif until is End.read:
                    self._manifest.read(index)
                    continue
                else:
                    photo = self._decode(index, int(prepared.shrink[row]))
                    photo = resize(photo, int(prepared.height[row]), int(prepared.width[row]))
            except (OSError, DecodeError) as error:
                failed[row] = str(error)
                continue
            if until is End.decode:
                continue
            if isinstance(plan, Plan):
                augment(photo, plan, row, rows[row], until)
            else:
                resize_and_crop(photo, plan, row, rows[row])
        return failed

    def _cached(self, index: int, cache: PhotoCache) -> np.ndarray:
        found = cache.get(index)
        if found is None:
            found = cache.put(index, resize(self._decode(index), *cache.shape(index)))
        return found.numpy()

    def _decode(self, index: int, shrink: int = 1) -> np.ndarray:
        width, height = int(self._manifest.width[index]), int(self._manifest.height[index])
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < width * height * 3:
            buffer = self._local.buffer = np.empty(width * height * 3, np.uint8)
        return decode(self._manifest.read(index), width, height, buffer, shrink)


def finished_batch(
    manifest: Manifest, bad: BadFiles, indices: np.ndarray, images: torch.Tensor, failed: dict[int, str]
) -> Batch:
    """Batch of images, uint8 (n, S, S, 3), without the rows that failed; takes note of those."""
    for row, error in failed.items():
        bad.add(int(indices[row]), error)
    if failed:
        kept = np.setdiff1d(np.arange(len(indices)), list(failed))
        images, indices = images[kept], indices[kept]
    labels = torch.from_numpy(manifest.label[indices].astype(np.int64))
    return Batch(images.permute(0, 3, 1, 2), labels, torch.from_numpy(indices))


class TorchvisionLoader:
    """Loader that decodes and augments on CPU threads. See `Loader` for the contract.

    Args:
        manifest: all photos.
        indices: int64 (n,), the samples of this loader.
        recipe: what to make of them.
        data: workers, prefetch and cache settings.
        device: where batches are wanted.
        bad: takes note of files that cannot be decoded.
        cache: decoded photos to read from and fill, or None.
    """

    def __init__(
        self,
        manifest: Manifest,
        indices: np.ndarray,
        recipe: Recipe,
        data: DataConfig,
        device: torch.device,
        bad: BadFiles,
        cache: PhotoCache | None = None,
    ) -> None:
        self._sampler = Sampler(manifest, indices, recipe)
        self._manifest, self._device, self._bad = manifest, device, bad
        self._executor, self._notes = make_executor(data, manifest, cache)
        self._cache = cache
        self._prefetch = data.prefetch
        threads = data.workers or usable_cores()
        self._chunk = chunk_size(recipe.batch_size, data.prefetch, threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flowerfast-decode")

    @property
    def bad(self) -> dict[int, BadFile]:
        """Files left out so far, by sample index."""
        return self._bad.found

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were chosen and what the cache has to say, one line each."""
        return self._notes + (self._cache.notes if self._cache is not None else [])

    def __len__(self) -> int:
        return len(self._sampler)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on."""
        return to_device(self._batches(epoch, start_batch), self._device)

    def execute(self, plan: Plan | EvalPlan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        job = self._submit(plan)
        failed = self._failures(job)
        for row, error in failed.items():
            raise UserError(f"{self._manifest.where(int(plan.indices[row]))}: {error}")
        return job.images.numpy()

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        jobs: deque[_Job] = deque()
        try:
            for plan in self._sampler.plans(epoch, start_batch):
                jobs.append(self._submit(plan))
                if len(jobs) > self._prefetch:
                    yield self._finish(jobs.popleft())
            while jobs:
                yield self._finish(jobs.popleft())
        finally:
            # Only for those that run: `wait` would never return for one that `close` has cancelled already.
            wait([task for job in jobs for task in job.tasks if not task.cancel()])

    def _submit(self, plan: Plan | EvalPlan) -> _Job:
        shape = (len(plan), plan.size, plan.size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        prepared, fill = self._executor.prepare(plan), self._executor.fill
        spans = [range(a, min(a + self._chunk, len(plan))) for a in range(0, len(plan), self._chunk)]
        tasks = [self._pool.submit(fill, prepared, images.numpy(), span) for span in spans]
        return _Job(plan.indices, images, tasks)

    def _failures(self, job: _Job) -> dict[int, str]:
        failed: dict[int, str] = {}
        for task in job.tasks:
            failed |= task.result()
        return failed

    def _finish(self, job: _Job) -> Batch:
        """The finished batch without its bad rows."""
        failed = self._failures(job)
        return finished_batch(self._manifest, self._bad, job.indices, job.images, failed)


def chunk_size(batch_size: int, prefetch: int, threads: int) -> int:
    """Samples per task: the more, the seldomer a thread must get hold of the interpreter."""
    return min(max(batch_size * (prefetch + 1) // (_TASKS * threads), _LEAST), _MOST)


def usable_cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize with antialias, as torchvision does on uint8 tensors.

    uint8 (h, w, 3) to uint8 (height, width, 3). Pillow's result differs by one level where the two round
    differently; the tensor path takes a third of its time.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    out = F.interpolate(photo, size=(height, width), mode="bilinear", antialias=True)
    return out[0].permute(1, 2, 0).contiguous().numpy()


def resize_and_crop(photo: np.ndarray, plan: EvalPlan, row: int, out: np.ndarray) -> None:
    """Evaluation plan of one sample: uint8 (h, w, 3) photo into `out`, uint8 (S, S, 3)."""
    big = resize(photo, int(plan.resize_height[row]), int(plan.resize_width[row]))
    top, left = int(plan.top[row]), int(plan.left[row])
    # crop_pct can be 1 and rounding can leave a margin of a pixel: what lies outside is black, as in the
    # reference.
    _paste(big, -left, -top, out)


def augment(photo: np.ndarray, plan: Plan, row: int, out: np.ndarray, until: End = End.all) -> None:
    """Random plan of one sample: uint8 (h, w, 3) photo into `out` (S, S, 3), in the reference's order.

    With an earlier end `out` is left alone.
    """
    top, left = int(plan.top[row]), int(plan.left[row])
    window = photo[top : top + int(plan.height[row]), left : left + int(plan.width[row])]
    pixels = resize(window, plan.size, plan.size)
    if until is End.resize:
        return
    if plan.flip[row]:
        pixels = pixels[:, ::-1]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if plan.angle[row]:
        image = image.rotate(float(plan.angle[row]), Image.Resampling.NEAREST, fillcolor=(0, 0, 0))
    if until is End.turn:
        return
    steps = [(float(plan.brightness[row]), False), (float(plan.contrast[row]), True)]
    for factor, towards_mean in reversed(steps) if plan.contrast_first[row] else steps:
        if factor != 1:
            image = image.point(_blend_table(factor, _grey_mean(image) if towards_mean else 0) * 3)
    if until is End.all:
        _paste(np.asarray(image), int(plan.shift_x[row]), int(plan.shift_y[row]), out)


def _grey_mean(image: Image.Image) -> int:
    """Mean of the grey image, rounded to a whole level as Pillow's contrast does."""
    return int(np.asarray(image.convert("L")).mean() + 0.5)


def _blend_table(factor: float, level: int) -> list[int]:
    """256 values of clamp(level + factor * (x - level)), truncated: Pillow's blend, in float32 as there."""
    x = np.arange(256, dtype=np.float32)
    blended = np.float32(level) + np.float32(factor) * (x - np.float32(level))
    table: list[int] = np.clip(blended, 0, 255).astype(np.uint8).tolist()
    return table


def _paste(pixels: np.ndarray, x: int, y: int, out: np.ndarray) -> None:
    """Copy (h, w, 3) into (S, S, 3) with its corner at column x, row y; the rest is 0."""
    side, (height, width) = len(out), pixels.shape[:2]
    top, bottom, left, right = max(y, 0), min(y + height, side), max(x, 0), min(x + width, side)
    if (top, bottom, left, right) != (0, side, 0, side):
        out[:] = 0
    if top < bottom and left < right:
        out[top:bottom, left:right] = pixels[top - y : bottom - y, left - x : right - x]
