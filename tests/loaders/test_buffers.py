"""Memory of batches: used again when the last view of a batch is gone, and never before."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from flowerfast.augment import Augment
from flowerfast.loaders.buffers import Buffers
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos


def test_memory_is_used_again() -> None:
    buffers = Buffers(48, 2)
    first = buffers.take((4, 12))
    place = first.data_ptr()
    other = buffers.take((2, 12))  # a short last batch
    assert other.data_ptr() != place
    del first
    assert buffers.take((4, 12)).data_ptr() == place


def test_any_view_keeps_it() -> None:
    buffers = Buffers(48, 2)
    for view in (lambda t: t[1:], lambda t: t.numpy()[2], lambda t: t.view(12, 4).permute(1, 0)):
        kept = view(buffers.take((4, 12)).fill_(7))
        gc.collect()
        taken = [buffers.take((4, 12)).fill_(9) for _ in range(3)]
        assert (torch.as_tensor(kept) == 7).all()
        del taken


def test_no_more_is_kept_than_asked_for() -> None:
    buffers = Buffers(48, 2)
    held = [buffers.take((48,)) for _ in range(5)]
    del held
    assert len(buffers._free) == 2


def test_what_is_too_large_or_empty_is_no_matter() -> None:
    buffers = Buffers(48, 2)
    assert buffers.take((7, 12)).shape == (7, 12)
    assert buffers.take((0, 12)).shape == (0, 12)
    assert not buffers._free


def test_batches_that_are_held_stay_as_they_are(
    photo_folder: Callable[..., Path], open_loader: Callable[..., Loader]
) -> None:
    loader = open_loader(Photos(photo_folder(), max_bad=1), augment=Augment(), cache="none")
    held = list(loader.epoch(0))
    copies = [batch.images.clone() for batch in held]
    for batch in loader.epoch(1):
        del batch
    assert all(torch.equal(batch.images, copy) for batch, copy in zip(held, copies, strict=True))
    assert all(torch.equal(batch.images, copy) for batch, copy in zip(loader.epoch(0), copies, strict=True))
