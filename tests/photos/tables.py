"""Tables as the tests read and compare them."""

from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.config import DataConfig
from flowerfast.photos import open_table as module
from flowerfast.photos.shard_index import INDEX
from flowerfast.photos.table import Table

MAX_PIXELS = DataConfig().max_pixels
ARRAYS = ("label", "width", "height", "orientation", "size", "fold", "path_bytes", "path_ends")


def read_table(root: Path, max_pixels: int = MAX_PIXELS, **options: Any) -> Table:
    return module.read_table(root, max_pixels, **options)


def same(one: Table, other: Table) -> bool:
    arrays = all(np.array_equal(getattr(one, a), getattr(other, a)) for a in ARRAYS)
    return arrays and (one.classes, one.bad, one.fingerprint) == (other.classes, other.bad, other.fingerprint)


def without_orientations(folder: Path) -> None:
    """The index as earlier versions wrote it."""
    with np.load(folder / INDEX) as stored:
        older = {name: stored[name] for name in stored.files if name != "orientation"}
    with (folder / INDEX).open("wb") as file:
        np.savez(file, **older)
