"""Decoded photos for DALI: from a cache where the graph runs, decoded into it when first asked for."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from flowerfast.data.manifest import Manifest, iter_chunks
from flowerfast.data.plan import Plan
from flowerfast.loaders.cache import PhotoCache, scale_plan
from flowerfast.loaders.dali_files import Reading, Ready, without
from flowerfast.loaders.dali_inputs import DeviceArray, Piece
from flowerfast.loaders.decode import DecodeError, decode
from flowerfast.loaders.torchvision import resize

_CHUNK = 4  # photos per task: decoding one takes a millisecond
_NONE: Mapping[int, torch.Tensor] = MappingProxyType({})
_Decoded = tuple[dict[int, str], dict[int, torch.Tensor]]
"""(why photos failed, photos that the cache has no room for), each by sample index."""


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

    @property
    def notes(self) -> list[str]:
        """What the cache has to say, one line each."""
        return self._cache.notes

    def _decode_all(self, indices: list[int]) -> _Decoded:
        bad, loose = {}, {}
        for index in indices:
            if self._cache.get(index) is not None:
                continue  # left on disk by an earlier process
            width, height = int(self._manifest.width[index]), int(self._manifest.height[index])
            try:
                photo = decode(self._manifest.read(index), width, height)
            except (OSError, DecodeError) as error:
                bad[index] = str(error)
                continue
            pixels = self._cache.put(index, resize(photo, *self._cache.shape(index)))
            if self._cache.get(index) is None:
                loose[index] = pixels
        return bad, loose

    def _finish(self, plan: Plan, parts: list[_Decoded]) -> Ready:
        bad = {index: error for errors, _ in parts for index, error in errors.items()}
        loose = {index: pixels for _, photos in parts for index, pixels in photos.items()}
        good = without(plan, bad)
        assert isinstance(good, Plan)
        return *window_rows(self._cache, good, loose), bad


def window_rows(
    cache: PhotoCache, plan: Plan, loose: Mapping[int, torch.Tensor] = _NONE
) -> tuple[Plan, list[Piece]]:
    """Of each photo the rows that hold the plan's window, and the plan for those rows.

    Pieces are uint8 (rows, w, 3) on the cache's device, without a copy: whole rows lie side by side, and DALI
    need not gather those above and below. `loose` are photos that the cache has no room for, uint8 (h, w, 3)
    of the cached size on its device, by sample index.
    """
    old, new = cache.sizes(plan.indices)
    scaled = scale_plan(plan, old, new)
    widths = new[0].astype(np.int64)
    skipped = scaled.top * widths * 3
    starts = (cache.starts(plan.indices) + skipped).tolist()
    shapes = [(h, w, 3) for h, w in zip(scaled.height.tolist(), widths.tolist(), strict=True)]
    stores = [cache.store] * len(plan)
    if loose:
        for row, index in enumerate(plan.indices.tolist()):
            if index in loose:
                stores[row], starts[row] = loose[index].reshape(-1), int(skipped[row])
    pieces = [_piece(*place) for place in zip(stores, starts, shapes, strict=True)]
    return replace(scaled, top=np.zeros_like(scaled.top)), pieces


def _piece(store: torch.Tensor, start: int, shape: tuple[int, int, int]) -> Piece:
    if store.is_cuda:
        return DeviceArray(store, start, shape)
    found: np.ndarray = store.numpy()[start : start + shape[0] * shape[1] * 3].reshape(shape)
    return found
