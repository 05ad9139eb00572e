"""Thumbnails: small, whole, and none of what cannot be decoded."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from flowerfast.photos.photos import Photos
from flowerfast.training.thumbnails import data_uri, thumbnails


def opened(uri: str) -> Image.Image:
    kind, _, content = uri.partition("base64,")
    assert kind == "data:image/jpeg;"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_thumbnails_are_small_whole_photos_and_what_is_damaged_has_none(
    tmp_path: Path, write_photo: Callable[..., Path]
) -> None:
    for i, size in enumerate([(400, 300), (30, 300), (20, 20)]):
        write_photo(tmp_path / "a" / f"{i}.jpg", size, seed=i)
    broken = write_photo(tmp_path / "b/3.jpg", (400, 300))
    broken.write_bytes(broken.read_bytes()[:2000])
    told: list[tuple[int, int]] = []
    photos = Photos(tmp_path, on_bad="skip")
    made = thumbnails(photos, [0, 1, 2, 3], lambda *done: told.append(done), side=64)
    assert {row: opened(uri).size for row, uri in made.items()} == {0: (64, 48), 1: (6, 64), 2: (20, 20)}
    assert told == [(4, 4)]
    small, whole = (np.asarray(opened(uri).resize((8, 6)), int)
                    for uri in (made[0], data_uri(photos.decode(0), 400)))  # fmt: skip
    assert np.abs(small - whole).mean() < 4
    assert thumbnails(photos, []) == {}
