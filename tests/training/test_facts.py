"""Counts and sizes of photos, from what the scan of headers knows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flowerfast.photos.photos import Photos
from flowerfast.training.facts import describe_photos, sizes


def test_photos_are_counted_by_class_and_half_and_measured(
    tmp_path: Path, write_photo: Callable[..., Path]
) -> None:
    for half, counts in {"train": (3, 1), "val": (1, 1), "test": (0, 2)}.items():
        for kind, count in zip("ab", counts, strict=True):
            for i in range(count):
                write_photo(tmp_path / half / kind / f"{half}{i}.png", (40 + i, 30))
    photos = Photos(tmp_path)
    train, val = photos.split()
    found = describe_photos(train, val)
    assert found["halves"] == {"train": [3, 1], "val": [1, 1], "test": [0, 2]}
    assert found["sizes"]["width"] == {"min": 40, "median": 40, "max": 42}
    assert found["sizes"]["height"] == {"min": 30, "median": 30, "max": 30}
    assert found["sizes"]["megapixels"]["max"] == 42 * 30 / 1e6
    assert found["sizes"]["bytes"]["max"] == max(file.stat().st_size for file in tmp_path.rglob("*.png"))
    assert sizes(photos, np.zeros(0, np.int64)) == {}
