"""More operations and mixing on the GPU: to the bit what the CPU makes of the same photos."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.loaders.batch import Batch
from flowerfast.pixels.finish_batch import finish_batch
from flowerfast.pixels.finish_reference import finish_square
from flowerfast.plans.finish import Finish, make_finish
from tests.gpu.compare import checksums
from tests.gpu.place import Kind, Place, open_loader, open_photos
from tests.stand_in import stand_in

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
FolderOf = Callable[[str], Path]
EVERYTHING = Augment(
    vflip=0.5, saturation=0.4, hue=0.1, grey=0.2, policy="rand", policy_ops=3, policy_magnitude=20,
    blur=0.5, erase=0.4, mixup=0.4, cutmix=1.0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU the reference stands in for Triton's kernels."""
    if not place.cuda:
        stand_in(monkeypatch)


def seen(batch: Batch) -> tuple[Any, ...]:
    """All that a training step gets to see of a batch."""
    assert batch.partner_labels is not None
    assert batch.weight is not None
    parts = checksums(batch.images), batch.labels, batch.partner_labels, batch.weight, batch.indices
    return tuple(part.tolist() for part in parts)


@pytest.mark.parametrize("augment", [EVERYTHING, Augment.preset("strong")], ids=["everything", "strong"])
@pytest.mark.parametrize("kind", ["cpu", "cache", "copied"])
def test_batches_are_those_of_the_reference(place: Place, folder_of: FolderOf, kind: Kind, augment: Augment):
    photos = open_photos(folder_of("small"))
    plain = {**place.settings("cpu", kernels="torchvision"), "device": "cpu", "backend": "cpu"}
    kernels = {} if kind == "copied" else {"gpu_kernels": "triton"}
    with (
        open_loader(photos, {**plain, "augment": augment}) as reference,
        open_loader(photos, {**place.settings(kind, **kernels), "augment": augment}) as tested,
    ):
        for batch, expected in zip(tested.epoch(1), reference.epoch(1), strict=True):
            assert batch.images.device.type == place.device.type
            assert seen(batch) == seen(expected)


def test_all_operations_give_the_references_pixels_at_once(place: Place):
    """Noise, in which every level and colour comes."""
    count, side = (200, 224) if place.cuda else (24, 32)
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images[::3] = images[::3] // 5 + 60
    finish = make_finish(0, 0, np.arange(count), EVERYTHING, side)
    assert isinstance(finish, Finish)
    found = torch.from_numpy(images.copy()).to(place.device)
    finish_batch(found, finish)
    for row, image in enumerate(images):
        finish_square(image, finish, row)
    wrong = (found.cpu().numpy() != images).reshape(count, -1).any(axis=1)
    assert not wrong.any(), finish.select(np.flatnonzero(wrong)[:1])


@pytest.mark.parametrize("kind", ["cpu", "cache", "copied"])
def test_no_batch_waits_for_the_device(place: Place, folder_of: FolderOf, kind: Kind):
    kernels = {} if kind == "copied" else {"gpu_kernels": "triton"}
    photos = open_photos(folder_of("small"))
    with open_loader(photos, {**place.settings(kind, **kernels), "augment": EVERYTHING}) as loader:
        for epoch in range(2):  # in the first, kernels are compiled and memory is found
            if place.cuda and epoch:
                torch.cuda.set_sync_debug_mode("error")
            try:
                assert sum(len(batch) for batch in loader.epoch(epoch)) == len(photos)
            finally:
                if place.cuda:
                    torch.cuda.set_sync_debug_mode("default")
