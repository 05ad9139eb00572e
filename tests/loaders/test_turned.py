"""Photos that are stored turned: in every engine, cache and source the batches of the same photos upright."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import COLUMNS

Open = Callable[..., Loader]
Turned = tuple[Path, Path]
NOTE = "49 of 64 photos are stored turned and are turned upright (data.exif=apply)"
RANDOM: dict[str, Any] = {"augment": Augment(), "seed": 3}
_PLAIN = {"backend": "cpu", "kernels": "torchvision"}


@pytest.fixture(scope="module")
def shards(turned: Turned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, packed byte for byte."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(turned[0], out, PackSettings(), DataConfig())
    return out


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "shards"])
@pytest.mark.parametrize(
    "kind",
    [RANDOM, {}, {**RANDOM, "cache": "auto", "cache_side": 48}, {**RANDOM, "cache": "disk"}],
    ids=["augmented", "evaluation", "in memory, shrunk", "on disk"],
)
def test_pixels_are_those_of_upright_photos(
    turned: Turned,
    shards: Path,
    open_loader: Open,
    engine: dict[str, Any],
    kind: dict[str, Any],
    packed: bool,
) -> None:
    if kind.get("cache") == "disk" and engine["backend"] == "dali":
        pytest.skip("dali keeps photos in vram")
    photos, upright = Photos(shards if packed else turned[0]), Photos(turned[1])
    loader = open_loader(photos, **engine, **kind)
    memory = {"cache": "ram"} if "cache" in kind else {}
    reference = open_loader(upright, **_PLAIN, **{**kind, **memory})
    for epoch in (1, 2):
        plan, expected_plan = (each.plan_sampler.plan(epoch, photos.indices) for each in (loader, reference))
        assert all(np.array_equal(getattr(plan, c), getattr(expected_plan, c)) for c in COLUMNS)
        expected, found = reference.execute(plan), loader.execute(plan)
        apart = np.abs(found.astype(np.int16) - expected).reshape(len(plan), -1)
        if engine["backend"] == "cpu":
            assert not apart.any(), [photos.path(row) for row in np.flatnonzero(apart.any(axis=1))]
        else:
            assert apart.mean(axis=1).max() <= 1, photos.path(int(apart.mean(axis=1).argmax()))
            assert np.percentile(apart, 99) <= 3
    for batch in loader.epoch(2):
        assert np.array_equal(batch.images.permute(0, 2, 3, 1).cpu(), found[batch.indices.numpy()])
    assert loader.notes[0] == NOTE


def test_a_turned_photo_can_be_ignored(turned: Turned, open_loader: Open, engine: dict[str, Any]) -> None:
    stored = Photos(turned[0], exif="ignore")
    loader, reference = (open_loader(stored, **settings, **RANDOM) for settings in (engine, _PLAIN))
    plan = loader.plan_sampler.plan(0, stored.indices)
    apart = np.abs(loader.execute(plan).astype(np.int16) - reference.execute(plan))
    assert apart.mean() <= (0 if engine["backend"] == "cpu" else 0.5)
    assert NOTE not in loader.notes
    with pytest.raises(ValueError, match="photos is"):
        open_loader(Photos(turned[0]), **engine, **RANDOM).load_state_dict(loader.state_dict())
