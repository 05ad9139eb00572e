"""Fixtures of the tests of photos."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack
from flowerfast.photos import remote
from flowerfast.photos import scan as module
from flowerfast.photos.header import Header, read_header
from tests.photos.packed import SMALL
from tests.photos.store import Store


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose header was read, in order."""
    seen: list[Path] = []

    def counting(file: Path, max_pixels: int) -> Header:
        seen.append(file)
        return read_header(file, max_pixels)

    monkeypatch.setattr(module, "read_header", counting)
    return seen


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that fail are given up and made again soon."""
    monkeypatch.setattr(remote, "TIMEOUT", 0.4)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


@pytest.fixture
def shards(photo_folder: Callable[..., Path]) -> Path:
    """30 photos of two classes in several shards."""
    folder = photo_folder({"daisy": 16, "rose": 14})
    pack(folder, folder.parent / "shards", SMALL, DataConfig())
    return folder.parent / "shards"


@pytest.fixture
def store(shards: Path) -> Iterator[Store]:
    """The shards at a URL."""
    with Store(shards) as served:
        yield served
