"""Loaders of a run's two halves: only the training half mixes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from flowerfast.training.half_loaders import training_loader, validation_loader


@pytest.mark.parametrize("augmented", [True, False])
def test_validation_never_mixes(photo_folder: Callable[..., Path], augmented: bool) -> None:
    photos, cpu = Photos(photo_folder()), torch.device("cpu")
    given = {"data.image_size": 32, "data.backend": "cpu", "data.workers": 2, "eval.augmented": augmented}
    config = load_config(None, ["augment=strong"], given)
    with (
        training_loader(config, photos, cpu) as train,
        validation_loader(config, photos, 0.875, cpu, augmented) as val,
    ):
        assert all(batch.weight is not None for batch in train.epoch(0))
        assert [batch.weight for batch in val.epoch(0)] == [None]
        mine = val.plan_sampler.augment
        assert (mine is not None, mine is not None and mine.policy == "trivial") == (augmented, augmented)
