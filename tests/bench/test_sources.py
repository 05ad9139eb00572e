"""What rounds are measured on: photos and batches."""

from typing import Any

import pytest
import torch

from flowerfast.bench import training_sources
from flowerfast.bench.sources import sample
from flowerfast.bench.training_sources import steps, training
from flowerfast.bench.trials import LOADER
from flowerfast.loaders.batch import Batch
from flowerfast.photos.photos import Photos
from tests.bench.small import CPU, TINY

pytestmark = pytest.mark.usefixtures("short_rounds")


@pytest.mark.parametrize(("count", "wanted", "length"), [(10, None, 10), (10, 20, 10), (15, 7, 7)])
def test_a_sample_is_spread(photo_folder, count, wanted, length):
    few = sample(Photos(photo_folder()).subset(range(15 - count, 15)), wanted).indices.tolist()
    assert len({*few}) == length
    assert (few[0], few[-1]) == (15 - count, 14)


@pytest.fixture
def trained(monkeypatch) -> list[Any]:
    """What training steps were given; they do nothing else."""
    seen: list[Any] = []
    monkeypatch.setattr(training_sources, "train_step", lambda _, batch: seen.append(batch))
    return seen


def pairs() -> Any:
    """A loader of somebody else's."""
    while True:
        yield [(torch.zeros(3, 3, 32, 32), torch.tensor([2, 0, 1]))]


@pytest.mark.parametrize("kind", ["ours", "pairs", "synthetic"])
def test_what_is_trained_on_is_a_batch(photo_folder, trained, kind):
    data = photo_folder()
    if kind == "synthetic":
        source = steps(TINY)
    else:
        ours = {"target": LOADER, "options": {"data": str(data), "settings": TINY, "photos": 6}}
        others = {"target": f"{__name__}:pairs", "options": {}}
        source = training(ours if kind == "ours" else others, TINY)
    for drawn in next(source.epochs):
        images, labels = drawn
        assert len(images) == len(labels)
    source.close()
    assert trained
    for batch in trained:
        assert isinstance(batch, Batch)
        assert batch.images.shape[1:] == (3, 32, 32)
        for part in (batch.labels, batch.indices):
            assert part.dtype == torch.int64
            assert part.shape == (len(batch),)
        assert batch.indices.device == CPU
    if kind == "ours":
        photos = Photos(data)
        drawn_samples = torch.cat([batch.indices for batch in trained])
        assert sorted(drawn_samples.tolist()) == sample(photos, 6).indices.tolist()
        assert (
            torch.cat([batch.labels for batch in trained]).tolist() == photos.labels[drawn_samples].tolist()
        )
