"""What can be measured of flowerfast itself: its loaders. For the training step see `training_sources`.

`loader` is the target of a `Variant`: it runs in the child and returns a `Source`. Arguments are JSON;
`settings` are `key=value` overrides as for `--set`, so that a setting this version lacks is a UserError and
the variant is skipped with that reason. No networks are imported: a child that only loads takes no memory
for them.
"""

from collections.abc import Sequence
from itertools import count

import numpy as np

from flowerfast.bench.rounds import Source
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from flowerfast.training.half_loaders import training_loader


def loader(data: str, settings: Sequence[str], device: str = "cpu", photos: int | None = None) -> Source:
    """Photos of `data` as augmented training batches: uint8 (n, 3, S, S) on the device, shuffled.

    All of them, or so many spread over the folder.

    Raises UserError when the backend or cache asked for cannot be had here.
    """
    config = load_config(None, settings, {"data.path": data})
    opened = training_loader(config, sample(Photos.open(data, config.data), photos), device)
    opened.warm_up()  # waits for the compiler: the steady state is measured
    return Source((opened.epoch(number) for number in count()), close=opened.close)


def sample(photos: Photos, wanted: int | None) -> Photos:
    """All of the photos, or `wanted` of them evenly spread from the first to the last."""
    if wanted is None or wanted >= len(photos):
        return photos
    places = np.linspace(0, len(photos) - 1, wanted).round().astype(np.int64)
    return photos.subset(photos.indices[places])
