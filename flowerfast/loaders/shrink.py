"""Large JPEGs decoded at a half, a quarter or an eighth of their size, where the crop stays large enough.

A photo of 12 megapixels need not be decoded whole to fill 224 pixels: the JPEG decoder can leave out the
highest frequencies, at a fraction of the time. The pixels differ a little from those of the whole photo.
"""

from dataclasses import dataclass

import numpy as np

from flowerfast.data.manifest import Manifest
from flowerfast.data.plan import EvalPlan, Plan
from flowerfast.loaders.cache import scale_plan

_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Shrunk:
    """A plan for photos that are decoded at 1 / shrink of their size, rounded up.

    Attributes:
        plan: with its windows in pixels of the smaller photos.
        shrink: int64 (n,), 1, 2, 4 or 8.
        width, height: int64 (n,), of the smaller photos.
    """

    plan: Plan | EvalPlan
    shrink: np.ndarray
    width: np.ndarray
    height: np.ndarray


def shrink_plan(plan: Plan | EvalPlan, manifest: Manifest, setting: str) -> Shrunk:
    """The plan for `data.decode_scale`: off (all photos whole) or auto.

    auto: the smallest size at which the crop is still as large as what it is resized to, along both axes.
    """
    width, height = (axis[plan.indices].astype(np.int64) for axis in (manifest.width, manifest.height))
    shrink = np.ones(len(plan), np.int64)
    if setting == "off":
        return Shrunk(plan, shrink, width, height)
    if isinstance(plan, EvalPlan):
        room = np.minimum(height // plan.resize_height, width // plan.resize_width)
    else:
        room = np.minimum(plan.height, plan.width) // plan.size
    for factor in (2, 4, 8):
        shrink[room >= factor] = factor
    for row in np.flatnonzero(shrink > 1):
        if not manifest.path(int(plan.indices[row])).lower().endswith(_JPEG):
            shrink[row] = 1
    small = -(-width // shrink), -(-height // shrink)
    if isinstance(plan, Plan):
        plan = scale_plan(plan, (width, height), small)
    return Shrunk(plan, shrink, *small)
