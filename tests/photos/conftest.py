"""Fixtures of the tests of photos."""

from pathlib import Path

import pytest

from flowerfast.photos import scan as module
from flowerfast.photos.header import Header, read_header


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose header was read, in order."""
    seen: list[Path] = []

    def counting(file: Path, max_pixels: int) -> Header:
        seen.append(file)
        return read_header(file, max_pixels)

    monkeypatch.setattr(module, "read_header", counting)
    return seen
