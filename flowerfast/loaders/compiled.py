"""CPU executor in compiled loops: the pixels of `torchvision.Executor`, in less than half its time.

Several samples go through in one call that does not hold the interpreter lock, so threads are enough on any
number of cores. Baseline JPEGs, which nearly all photos are, are decoded on the way, and only what the crop
needs of them; everything else is decoded as the plain executor does.
"""

import threading
from dataclasses import dataclass

import numpy as np

from flowerfast.data.manifest import Manifest
from flowerfast.data.plan import End, EvalPlan, Plan
from flowerfast.kernels.chain import Scratch, Steps, make_scratch, run, steps_of
from flowerfast.loaders.cache import PhotoCache, scale_plan
from flowerfast.loaders.decode import DecodeError, decode
from flowerfast.loaders.reading import Reader
from flowerfast.loaders.shrink import shrink_plan
from flowerfast.loaders.torchvision import resize


@dataclass(frozen=True)
class _Prepared:
    """A plan for photos of the size in which they are found, also as steps; from the cache or from files."""

    plan: Plan | EvalPlan
    steps: Steps
    cache: PhotoCache | None


class CompiledExecutor:
    """Executes plans in compiled loops on the calling thread; threads may share it.

    Args:
        manifest: all photos.
        cache: decoded photos to read from and fill, or None; evaluation plans go past it.
        decode_scale: the setting; photos from the cache are as they were cached.
    """

    def __init__(self, manifest: Manifest, cache: PhotoCache | None, decode_scale: str = "off") -> None:
        self._manifest, self._cache, self._decode_scale = manifest, cache, decode_scale
        self._reader = Reader(manifest, compiled=True)
        self._local = threading.local()

    def prepare(self, plan: Plan | EvalPlan) -> _Prepared:
        """What `fill` takes."""
        if self._cache is None or isinstance(plan, EvalPlan):
            small = shrink_plan(plan, self._manifest, self._decode_scale)
            steps = steps_of(small.plan, small.width, small.height, small.shrink)
            return _Prepared(small.plan, steps, None)
        old, new = self._cache.sizes(plan.indices)
        scaled = scale_plan(plan, old, new)
        return _Prepared(scaled, steps_of(scaled, *new), self._cache)

    def fill(
        self, prepared: _Prepared, rows: np.ndarray, span: range, until: End = End.all
    ) -> dict[int, str]:
        """Pixels of some samples into `rows`, uint8 (n, S, S, 3); why rows failed. See `Executes`."""
        if until is End.read and prepared.cache is not None:
            return {}
        failed: dict[int, str] = {}
        files, pixels = self._files(prepared, span, failed)
        if until is End.read:
            return failed
        for row in self._run(prepared.steps, files, rows, True, until):
            index = int(prepared.plan.indices[row])
            try:
                pixels[row] = self._decode(index, files[row], prepared.steps, row)
            except DecodeError as error:
                failed[row] = str(error)
        self._run(prepared.steps, pixels, rows, False, until)
        return failed

    def _files(
        self, prepared: _Prepared, span: range, failed: dict[int, str]
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Encoded files and decoded photos of some samples, by row."""
        files: dict[int, np.ndarray] = {}
        pixels: dict[int, np.ndarray] = {}
        indices = prepared.plan.indices[span.start : span.stop]
        if prepared.cache is None:
            for row, file in zip(span, self._reader.read(indices)[0], strict=True):
                if isinstance(file, OSError):
                    failed[row] = str(file)
                else:
                    files[row] = file
            return files, pixels
        for row, index in zip(span, indices.tolist(), strict=True):
            try:
                pixels[row] = self._cached(index, prepared.cache)
            except (OSError, DecodeError) as error:
                failed[row] = str(error)
        return files, pixels

    def _run(
        self, steps: Steps, photos: dict[int, np.ndarray], out: np.ndarray, encoded: bool, until: End
    ) -> list[int]:
        """Execute steps on files or pixels, by row; the rows that another decoder must take."""
        if not photos:
            return []
        which = np.fromiter(photos, np.int64, len(photos))
        address = np.array([photo.ctypes.data for photo in photos.values()], np.int64)
        length = np.array([len(photo) if encoded else -1 for photo in photos.values()], np.int64)
        shrink = steps.shrink[which]
        size = int((steps.photo_width[which] * shrink).max()), int((steps.photo_height[which] * shrink).max())
        done = run(address, length, which, steps, self._scratch(size, out.shape[1]), out, int(until))
        left: list[int] = which[~done].tolist()
        return left

    def _scratch(self, size: tuple[int, int], side: int) -> Scratch:
        """This thread's scratch, for files of up to `size` (width, height) and squares of `side` pixels."""
        had, scratch = getattr(self._local, "scratch", ((0, 0, 0), None))
        if scratch is None or had[2] != side or had[0] < size[0] or had[1] < size[1]:
            had = max(had[0], size[0]), max(had[1], size[1]), side
            scratch = make_scratch(*had)
            self._local.scratch = had, scratch
        return scratch

    def _cached(self, index: int, cache: PhotoCache) -> np.ndarray:
        found = cache.get(index)
        if found is None:
            width, height = int(self._manifest.width[index]), int(self._manifest.height[index])
            photo = decode(self._manifest.read(index), width, height)
            found = cache.put(index, resize(photo, *cache.shape(index)))
        return found.numpy()

    def _decode(self, index: int, encoded: np.ndarray, steps: Steps, row: int) -> np.ndarray:
        """Pixels of a photo in the size that the steps expect."""
        width, height = int(self._manifest.width[index]), int(self._manifest.height[index])
        photo = decode(encoded, width, height, shrink=int(steps.shrink[row]))
        return np.ascontiguousarray(resize(photo, int(steps.photo_height[row]), int(steps.photo_width[row])))
