"""Photos of plans out of a cache, decoded into it by threads when they are first asked for."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.reading import Reading, Ready
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.workers import Workers, iter_chunks
from flowerfast.plans.plan import Plan

_CHUNK = 4  # photos per task: decoding one takes a millisecond
_Decoded = tuple[dict[int, str], dict[int, torch.Tensor]]
"""(why photos failed, photos that the cache has no room for), each by sample index."""
Find = Callable[[PhotoCache, Plan, Mapping[int, torch.Tensor]], tuple[Plan, Any]]
"""Makes of a plan whose photos are there the plan for the cached sizes, and where the photos are.

The mapping has the photos that the cache has no room for, uint8 (h, w, 3) of the cached size on its device,
by sample index.
"""


class CachedPhotos:
    """Photos of plans as pixels, the same as those that the `cpu` backend caches.

    Args:
        cache: where they are kept.
        threads: how many decode at a time.
        find: says where the photos of a batch are.
    """

    def __init__(self, cache: PhotoCache, threads: int, find: Find) -> None:
        self._cache, self._find = cache, find
        self._pool = Workers(threads, "flowerfast-cache")

    def start(self, plan: Plan) -> Reading:
        """Begin to decode what the cache lacks of a plan's photos."""
        chunks = iter_chunks(self._cache.missing(plan.indices), _CHUNK)
        tasks = [self._pool.submit(chunk, self._decode_all, chunk.tolist()) for chunk in chunks]
        return Reading(self._cache.photos, plan, tasks, self._finish)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

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
        return *self._find(self._cache, plan.without([*bad]), loose), bad
