"""Decoded photos for DALI: from a cache where the graph runs, decoded into it when first asked for."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.dali.files import Reading, Ready
from flowerfast.loaders.dali.inputs import DeviceArray, Piece
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import iter_chunks
from flowerfast.plans.plan import Plan

_CHUNK = 4  # photos per task: decoding one takes a millisecond
_NONE: Mapping[int, torch.Tensor] = MappingProxyType({})
_Decoded = tuple[dict[int, str], dict[int, torch.Tensor]]
"""(why photos failed, photos that the cache has no room for), each by sample index."""


class CachedPhotos:
    """Photos of plans as pixels, the same as those that the `cpu` backend caches.

    Args:
        cache: where they are kept.
        threads: how many decode at a time.
    """

    def __init__(self, cache: PhotoCache, threads: int) -> None:
        self._cache = cache
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
            try:
                pixels = self._cache.fill(index)
            except (OSError, DecodeError) as error:
                bad[index] = str(error)
                continue
            if self._cache.get(index) is None:
                loose[index] = pixels
        return bad, loose

    def _finish(self, plan: Plan, parts: list[_Decoded]) -> Ready:
        bad = {index: error for errors, _ in parts for index, error in errors.items()}
        loose = {index: pixels for _, photos in parts for index, pixels in photos.items()}
        return *window_rows(self._cache, plan.without([*bad]), loose), bad


def window_rows(
    cache: PhotoCache, plan: Plan, loose: Mapping[int, torch.Tensor] = _NONE
) -> tuple[Plan, list[Piece]]:
    """Of each photo the rows that hold the plan's window, and the plan for those rows.

    Pieces are uint8 (rows, w, 3) on the cache's device, without a copy: whole rows lie side by side, and DALI
    need not gather those above and below. `loose` are photos that the cache has no room for, uint8 (h, w, 3)
    of the cached size on its device, by sample index.
    """
    scaled = plan.at(cache.sizes(plan.indices))
    skipped = scaled.top * scaled.photo_width * 3
    starts = (cache.starts(plan.indices) + skipped).tolist()
    sizes = zip(scaled.height.tolist(), scaled.photo_width.tolist(), strict=True)
    shapes = [(height, width, 3) for height, width in sizes]
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
    pixels: np.ndarray = store.numpy()[start : start + shape[0] * shape[1] * 3].reshape(shape)
    return pixels
