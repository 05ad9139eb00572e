"""Where an executor gets photos from. Sources know nothing of executors, executors nothing of caches."""

from typing import Protocol

import numpy as np

from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Plan

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


class Source(Protocol):
    """Gives photos of plans; threads may share it."""

    def prepare(self, plan: Plan) -> Plan:
        """The plan for photos of the size in which they come."""
        ...

    def fetch(self, indices: np.ndarray) -> list[np.ndarray | str]:
        """Of each sample its file, uint8 (bytes,), or pixels, uint8 (h, w, 3); or why there is neither."""
        ...

    @property
    def is_decoded(self) -> bool:
        """Whether photos come as pixels."""
        ...


class Files:
    """Photos as they lie in their folder or shards.

    Args:
        photos: the set.
        compiled: read many files in one compiled call where that can be had.
        decode_scale: "auto": JPEGs are to be decoded at 1/2, 1/4 or 1/8 of their size where the crop stays as
            large as what it is resized to, along both axes. A photo of 12 megapixels need not be decoded
            whole to fill 224 pixels; the pixels differ a little from those of the whole photo.
    """

    is_decoded = False

    def __init__(self, photos: Photos, compiled: bool, decode_scale: str = "off") -> None:
        self._photos, self._compiled, self._decode_scale = photos, compiled, decode_scale

    def prepare(self, plan: Plan) -> Plan:
        """The plan for photos decoded at the scale that is right for each."""
        if self._decode_scale == "off":
            return plan
        room = np.minimum(plan.height // plan.out_height, plan.width // plan.out_width)
        shrink = np.ones(len(plan), np.int64)
        for factor in (2, 4, 8):
            shrink[room >= factor] = factor
        for row in np.flatnonzero(shrink > 1):
            if not self._photos.path(int(plan.indices[row])).lower().endswith(_JPEG):
                shrink[row] = 1
        return plan.at((-(-plan.photo_width // shrink), -(-plan.photo_height // shrink)), shrink)

    def fetch(self, indices: np.ndarray) -> list[np.ndarray | str]:
        """The files' bytes."""
        files = self._photos.read(indices, self._compiled)[0]
        return [str(file) if isinstance(file, OSError) else file for file in files]
