"""Cached photos as DALI's graph takes them."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.dali.inputs import DeviceArray, Piece
from flowerfast.plans.plan import Plan

_NONE: Mapping[int, torch.Tensor] = MappingProxyType({})


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
