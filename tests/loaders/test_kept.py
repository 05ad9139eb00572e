"""Evaluation batches that are kept are made once."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.loaders import loader as module
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

Open = Callable[..., Loader]
Digests = Callable[..., list[tuple[list[int], list[int], str]]]


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 5, "b": 4}), max_bad=1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples that were read, in order."""
    calls: list[int] = []
    read = Photos.read

    def counted(self: Photos, indices: np.ndarray, *more: bool, **named: bool) -> Any:
        calls.extend(indices.tolist())
        return read(self, indices, *more, **named)

    monkeypatch.setattr(Photos, "read", counted)
    return calls


def test_photos_are_decoded_once(
    photos: Photos, open_loader: Open, backend: dict[str, Any], digests: Digests, reads: list[int]
) -> None:
    expected = digests(open_loader(photos, **backend).epoch(0))
    reads.clear()
    kept = open_loader(photos, **backend, keep=True)
    assert len(kept) == len(expected) == 3
    for epoch in (0, 1, 5):
        assert digests(kept.epoch(epoch)) == expected
    assert sorted(reads) == list(range(9))
    assert kept.notes == []


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_start_batch_gives_the_tail_before_and_after_keeping(
    photos: Photos, open_loader: Open, digests: Digests, start: int
) -> None:
    kept = open_loader(photos, keep=True)
    expected = digests(open_loader(photos).epoch(0))[start:]
    assert digests(kept.epoch(0, start)) == expected
    assert digests(kept.epoch(0, start)) == expected
    assert len(digests(kept.epoch(0))) == 3


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_an_abandoned_first_pass_keeps_nothing(
    photos: Photos, open_loader: Open, digests: Digests, reads: list[int], leave: str
) -> None:
    kept = open_loader(photos, keep=True)
    expected = digests(open_loader(photos).epoch(0))
    batches = kept.epoch(0)
    next(batches)
    if leave == "close":
        batches.close()
    del batches
    reads.clear()
    assert digests(kept.epoch(1)) == expected
    assert digests(kept.epoch(2)) == expected
    assert len(reads) == 9


def test_bad_files_stay_named(photos: Photos, open_loader: Open) -> None:
    (photos.root / "b/b_001.jpg").unlink()
    kept = open_loader(photos, keep=True)
    for _ in range(2):
        assert [len(batch) for batch in kept.epoch(0)] == [4, 3, 1]
        assert [bad.path for bad in photos.bad] == ["b/b_001.jpg"]


def test_close_frees_the_batches(photos: Photos, open_loader: Open) -> None:
    kept = open_loader(photos, keep=True)
    alive = [weakref.ref(batch.images) for batch in kept.epoch(0)]
    gc.collect()
    assert all(image() is not None for image in alive)
    kept.close()
    kept.close()
    gc.collect()
    assert all(image() is None for image in alive)


@pytest.mark.parametrize(
    ("augment", "free", "passes"),
    [(None, 4 * 9 * 3 * 32**2 + 1, 1), (None, 4 * 9 * 3 * 32**2, 2), (Augment(), 2**40, 2)],
)
def test_batches_are_kept_when_they_repeat_and_fit_a_quarter(
    photos: Photos,
    open_loader: Open,
    reads: list[int],
    monkeypatch: pytest.MonkeyPatch,
    augment: Augment | None,
    free: int,
    passes: int,
) -> None:
    monkeypatch.setattr(module, "device_memory", lambda device=None: free)
    kept = open_loader(photos, augment=augment, keep=True)
    for _ in range(2):
        assert sum(len(batch) for batch in kept.epoch(0)) == 9
    assert len(reads) == 9 * passes
