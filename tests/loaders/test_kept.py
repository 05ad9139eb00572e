"""Evaluation batches are decoded once."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.loaders.batch import Batch
from flowerfast.loaders.kept import KeptLoader
from flowerfast.loaders.reading import Reader
from flowerfast.loaders.torchvision import TorchvisionLoader

Open = Callable[..., TorchvisionLoader]


@pytest.fixture
def photos(photo_folder) -> Path:
    return photo_folder({"a": 5, "b": 4})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per photo that is read, and so decoded."""
    calls: list[int] = []
    read = Reader.read

    def counted(reader: Reader, indices: np.ndarray) -> Any:
        calls.extend(indices.tolist())
        return read(reader, indices)

    monkeypatch.setattr(Reader, "read", counted)
    return calls


def digests(batches: Iterator[Batch]) -> list[tuple[list[int], list[int], str]]:
    return [
        (b.indices.tolist(), b.labels.tolist(), sha256(b.images.numpy().tobytes()).hexdigest())
        for b in batches
    ]


def test_photos_are_decoded_once(photos, open_loader: Open, decoded):
    expected = digests(open_loader(photos).epoch(0))
    decoded.clear()
    kept = KeptLoader(open_loader(photos))
    assert len(kept) == len(expected) == 3
    for epoch in (0, 1, 5):
        assert digests(kept.epoch(epoch)) == expected
    assert len(decoded) == 9
    assert len(kept) == 3
    kept.close()


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4])
def test_start_batch_gives_the_tail_before_and_after_keeping(photos, open_loader: Open, decoded, start):
    kept = KeptLoader(open_loader(photos))
    expected = digests(open_loader(photos).epoch(0))[start:]
    assert digests(kept.epoch(0, start)) == expected
    assert digests(kept.epoch(0, start)) == expected
    assert len(digests(kept.epoch(0))) == 3


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_abandoned_first_pass_keeps_nothing(photos, open_loader: Open, decoded, leave):
    kept = KeptLoader(open_loader(photos))
    expected = digests(open_loader(photos).epoch(0))
    decoded.clear()
    batches = kept.epoch(0)
    next(batches)
    if leave == "close":
        batches.close()
    del batches
    begun = len(decoded)
    assert digests(kept.epoch(1)) == expected
    assert len(decoded) == begun + 9
    assert digests(kept.epoch(2)) == expected
    assert len(decoded) == begun + 9


def test_bad_files_stay_named(photos, open_loader: Open):
    loader = open_loader(photos)
    (photos / "b/b_001.jpg").unlink()
    kept = KeptLoader(loader)
    for _ in range(2):
        assert [len(b) for b in kept.epoch(0)] == [4, 3, 1]
        assert [b.path for b in kept.bad.values()] == ["b/b_001.jpg"]
    kept.close()
    kept.close()
    assert len(kept.bad) == 1


def test_close_frees_the_batches(photos, open_loader: Open):
    kept = KeptLoader(open_loader(photos))
    list(kept.epoch(0))
    kept.close()
    assert kept._kept is None
