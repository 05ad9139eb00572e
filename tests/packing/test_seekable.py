"""JPEGs written anew keep their pixels in every decoder, and can be read from their middle."""

import io
import re
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from flowerfast.kernels.jpeg_tables import make_tables
from flowerfast.kernels.jpeg_writer import code_lengths
from flowerfast.packing.seekable import seekable
from tests.kernels.test_jpeg import assert_windows_agree, decode_window, jpeg, picture

ICC = b"a profile " * 20
RESTART = re.compile(rb"\xff[\xd0-\xd7]")


def again(data: bytes) -> bytes | None:
    with Image.open(io.BytesIO(data)) as image:
        found = seekable(np.frombuffer(data, np.uint8), *image.size)
    return None if found is None else found.tobytes()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"subsampling": 2, "progressive": True},
        {"subsampling": 0, "progressive": True, "restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "optimize": True},
        {"quality": 100, "subsampling": 0},
        {"quality": 2},
        {"qtables": [[300] * 64, list(range(1, 65))]},
    ],
    ids=str,
)
def test_pixels_stay_and_crops_are_found(mode: str, options: dict[str, Any]) -> None:
    if mode == "L":  # its factors would mean nothing, and not all decoders know
        options = {name: value for name, value in options.items() if name != "subsampling"}
    data = jpeg(picture((203, 151), 3).convert(mode), **options)
    found = again(data)
    assert found is not None
    assert len(found) <= 1.1 * len(data)
    assert len(RESTART.findall(found)) >= 9
    assert np.array_equal(pixels(found), pixels(data))
    assert np.array_equal(simplejpeg.decode_jpeg(found), simplejpeg.decode_jpeg(data))
    assert_windows_agree(found)
    assert not isinstance(decode_window(found, (130, 180, 20, 20), make_tables()), int)


def test_what_decoders_and_people_read_beside_the_pixels_stays() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    data = jpeg(picture((200, 150)), exif=exif, icc_profile=ICC, comment=b"in a garden", dpi=(300, 300))
    found = again(data)
    assert found is not None
    assert found != data
    with Image.open(io.BytesIO(data)) as one, Image.open(io.BytesIO(found)) as other:
        for name in ("exif", "icc_profile", "comment", "dpi", "jfif"):
            assert other.info[name] == one.info[name]
        assert other.getexif() == one.getexif()


def test_an_adobe_marker_stays_and_says_what_the_colours_are() -> None:
    data = jpeg(picture((200, 150)))
    jfif = data.index(b"\xff\xe0")
    length = int.from_bytes(data[jfif + 2 : jfif + 4], "big")
    data = data[:jfif] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1" + data[jfif + 2 + length :]
    found = again(data)
    assert found is not None
    assert b"Adobe" in found
    assert np.array_equal(pixels(found), pixels(data))


def two_pictures() -> bytes:
    file = io.BytesIO()
    picture((200, 150)).save(file, "MPO", save_all=True, append_images=[picture((200, 150), 1)])
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        jpeg(picture((200, 150)).convert("CMYK")),
        jpeg(picture((200, 150)), keep_rgb=True),
        jpeg(picture((60, 50))),
        jpeg(picture((200, 150)))[:-2],
        jpeg(picture((200, 150)))[:-2] + b"\0\1\2 behind the end",
        two_pictures(),
    ],
    ids=["cmyk", "rgb", "small", "no end", "stray bytes", "two pictures"],
)
def test_others_stay_as_they_are(data: bytes) -> None:
    assert again(data) is None


def test_a_photo_with_a_damaged_scan_stays_as_it_is() -> None:
    data = bytearray(jpeg(picture((200, 150))))
    at = len(data) // 2
    data[at : at + 40] = bytes(range(40))
    assert again(bytes(data)) is None


def test_a_photo_that_would_grow_stays_as_it_is() -> None:
    data = jpeg(Image.new("RGB", (300, 200), "green"), optimize=True)
    assert again(data) is None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steep", [0.0, 0.1, 0.5, 1.0])
def test_codes_are_complete_and_the_shortest(seed: int, steep: float) -> None:
    """Kraft's sum leaves one code of the longest free; without the limit it is Huffman's sum of bits."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(256, np.int64)
    some = rng.choice(256, int(rng.integers(1, 200)), replace=False)
    counts[some] = np.maximum(1, 1e6 * np.exp(-steep * np.arange(len(some)))).astype(np.int64)
    lengths = code_lengths(counts)
    assert ((lengths > 0) == (counts > 0)).all()
    assert lengths.max() <= 16
    assert (2.0 ** -lengths[lengths > 0]).sum() <= 1 - 2.0 ** -lengths.max()
    weights = sorted([1, *counts[counts > 0].tolist()])
    total = 0
    while len(weights) > 1:
        merged = weights.pop(0) + weights.pop(0)
        total += merged
        weights = sorted([*weights, merged])
    bits = int((lengths * counts).sum()) + int(lengths.max())
    assert bits >= total
    if lengths.max() < 16:
        assert bits == total


@pytest.mark.parametrize("progressive", [False, True])
def test_what_lies_behind_the_end_of_a_picture_is_not_lost(progressive: bool) -> None:
    data = jpeg(picture((203, 151), 3), progressive=progressive)
    assert again(data) is not None
    for behind in (data, b"notes\xff\xd9", b"\0\0\xff\xd9"):
        assert again(data + behind) is None
