"""Batches of photos with several labels: what each has, where samples are mixed too; what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.tags import flags, tagged

PLAIN = DataConfig(kernels="torchvision", workers=1, backend="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(flags(tmp_path / "flags.csv", tagged(tmp_path, 12)), label_columns="*")


def test_batches_say_what_each_photo_has(photos: Photos) -> None:
    with Loader(photos, size=32, batch_size=5, augment=Augment(), options=PLAIN, device="cpu") as loader:
        batches = [*loader.epoch(0)]
    for batch in batches:
        images, labels = batch
        assert (labels.dtype, labels.shape) == (torch.float32, (len(images), 3))
        assert np.array_equal(labels.numpy(), photos.targets(batch.indices.numpy()))
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(12))


def test_mixed_samples_have_the_labels_of_their_partners(photos: Photos) -> None:
    mixing = Augment(mixup=1.0, mix_prob=1.0)
    with Loader(photos, size=32, batch_size=4, augment=mixing, options=PLAIN, device="cpu") as loader:
        batch = next(loader.epoch(0))
    assert batch.partner_labels is not None
    assert batch.weight is not None
    assert torch.equal(batch.partner_labels, batch.labels[[1, 0, 3, 2]])
    assert batch.weight.shape == (4,)


def test_what_cannot_be_balanced_is_refused(photos: Photos) -> None:
    with pytest.raises(UserError, match=r"sampling=balanced: \S+flags.csv has several labels a photo, whi"):
        Loader(photos, size=32, augment=Augment(), options=PLAIN, device="cpu", sampling="balanced")
