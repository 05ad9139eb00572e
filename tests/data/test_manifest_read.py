"""Manifest.read: the bytes as they are now, also when the file has changed since the scan."""

import numpy as np
import pytest

from flowerfast.data.manifest import load_manifest


@pytest.mark.parametrize("change", [0, -1, 1, -200, 3_000_000], ids=str)
def test_bytes_are_those_of_the_file_now(photo_folder, change):
    root = photo_folder({"a": 2, "b": 1})
    manifest = load_manifest(root)
    file = root / manifest.path(1)
    data = file.read_bytes()
    assert manifest.size[1] == len(data)
    now = data[:change] if change < 0 else data + bytes(range(250)) * (change // 250 + 1) if change else data
    file.write_bytes(now)
    found = manifest.read(1)
    assert found.dtype == np.uint8
    assert found.tobytes() == now


def test_empty_and_missing_files(photo_folder):
    root = photo_folder({"a": 2, "b": 1})
    manifest = load_manifest(root)
    (root / manifest.path(0)).write_bytes(b"")
    assert len(manifest.read(0)) == 0
    (root / manifest.path(1)).unlink()
    with pytest.raises(FileNotFoundError):
        manifest.read(1)
