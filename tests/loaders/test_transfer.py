"""Batches on their way to a GPU: in pinned memory, on one stream."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.loaders import transfer
from flowerfast.loaders.threads import finished_batch
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import still_plan


def test_a_batch_without_its_bad_rows_stays_in_its_memory(photo_folder: Callable[..., Path]) -> None:
    photos = Photos(photo_folder(), max_bad=1.0)
    made = torch.arange(5 * 2 * 2 * 3, dtype=torch.uint8).view(5, 2, 2, 3)  # pinned, where there is a GPU
    expected = made[[0, 2, 4]].permute(0, 3, 1, 2).clone()
    plan = still_plan(np.arange(5), photos.sizes(np.arange(5)), 2)
    batch = finished_batch(photos, plan, made, {1: "damaged", 3: "damaged"})
    assert torch.equal(batch.images, expected)
    assert batch.indices.tolist() == [0, 2, 4]
    assert batch.images.data_ptr() == made.data_ptr()
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_all_epochs_are_copied_on_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    transfer._copying_stream.cache_clear()
    first, again, other = (transfer._copying_stream(torch.device("cuda", index)) for index in (0, 0, 1))
    transfer._copying_stream.cache_clear()
    assert first is again
    assert first is not other
