"""What is to be known of a set of photos without decoding one: how many of what, and how large."""

from typing import Any

import numpy as np

from flowerfast.photos.layout import TEST
from flowerfast.photos.photos import Photos


def describe_photos(train: Photos, val: Photos) -> dict[str, Any]:
    """What summary.json says of a run's photos: `halves`, photos by class, in the order of the labels, of
    train, val and test; and `sizes` of all of them, smallest, median and largest.
    """
    test = np.flatnonzero(train.table.fold == TEST)
    halves = {"train": train.indices, "val": val.indices, "test": test}
    three = sizes(train, np.concatenate([*halves.values()]))
    return {
        "halves": {half: train.table.counts(rows).tolist() for half, rows in halves.items()},
        "sizes": {
            name: dict(zip(("min", "median", "max"), values, strict=True)) for name, values in three.items()
        },
    }


def sizes(photos: Photos, rows: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """(smallest, median, largest) width and height in pixels, upright, megapixels and bytes of some samples,
    int64 (n,); empty of none.
    """
    if not len(rows):
        return {}
    width, height = photos.sizes(rows)
    columns = {
        "width": width,
        "height": height,
        "megapixels": width * height / 1e6,
        "bytes": photos.table.size[rows],
    }
    return {
        name: (float(values.min()), float(np.median(values)), float(values.max()))
        for name, values in columns.items()
    }
