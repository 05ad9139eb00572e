"""Decoded photos for DALI: from a cache where the graph runs, decoded into it when first asked for."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from flowerfast.data.manifest import Manifest, iter_chunks
from flowerfast.data.plan import Plan
from flowerfast.loaders.cache import PhotoCache, scale_plan
from flowerfast.loaders.dali_files import Reading, Ready, without
from flowerfast.loaders.dali_inputs import DeviceArray, Piece
from flowerfast.loaders.decode import DecodeError, decode
from flowerfast.loaders.torchvision import resize

_CHUNK = 4  # photos per task: decoding one takes a millisecond


class CachedPhotos:
    """Photos of plans as pixels, the same as those that the torchvision executor caches.

    Args:
        manifest: all photos.
        cache: where they are kept.
        threads: how many decode at a time.
    """

    def __init__(self, manifest: Manifest, cache: PhotoCache, threads: int) -> None:
        self._manifest, self._cache = manifest, cache
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flowerfast-cache")

    def start(self, plan: Plan) -> Reading:
        """Begin to decode what the cache lacks of a plan's photos."""
        chunks = iter_chunks(self._cache.missing(plan.indices), _CHUNK)
        tasks = [self._pool.submit(self._decode_all, chunk.tolist()) for chunk in chunks]
        return Reading(plan, tasks, self._finish)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _decode_all(self, indices: list[int]) -> dict[int, str]:
        bad = {}
        for index in indices:
            width, height = int(self._manifest.width[index]), int(self._manifest.height[index])
            try:
                photo = decode(self._manifest.read(index), width, height)
            except (OSError, DecodeError) as error:
                bad[index] = str(error)
                continue
            self._cache.put(index, resize(photo, *self._cache.shape(index)))
        return bad

    def _finish(self, plan: Plan, failures: list[dict[int, str]]) -> Ready:
        bad = {index: error for part in failures for index, error in part.items()}
        good = without(plan, bad)
        assert isinstance(good, Plan)
        return *window_rows(self._cache, good), bad


def window_rows(cache: PhotoCache, plan: Plan) -> tuple[Plan, list[Piece]]:
    """Of each cached photo the rows that hold the plan's window, and the plan for those rows.

    Pieces are uint8 (rows, w, 3) on the cache's device, without a copy: whole rows lie side by side, and DALI
    need not gather those above and below.
    """
    old, new = cache.sizes(plan.indices)
    scaled = scale_plan(plan, old, new)
    widths = new[0].astype(np.int64)
    starts = (cache.starts(plan.indices) + scaled.top * widths * 3).tolist()
    shapes = [(h, w, 3) for h, w in zip(scaled.height.tolist(), widths.tolist(), strict=True)]
    pieces: list[Piece]
    if cache.store.is_cuda:
        pieces = [DeviceArray(cache.store, start, shape) for start, shape in zip(starts, shapes, strict=True)]
    else:
        flat = cache.store.numpy()
        pieces = [
            flat[start : start + shape[0] * shape[1] * 3].reshape(shape)
            for start, shape in zip(starts, shapes, strict=True)
        ]
    return replace(scaled, top=np.zeros_like(scaled.top)), pieces
