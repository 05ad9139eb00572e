"""The compiled JPEG decoder gives libjpeg-turbo's pixels, window by window, or says that it will not."""

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numba import njit
from PIL import Image

from flowerfast.kernels.jpeg_blocks import region_of
from flowerfast.kernels.jpeg_header import read_header
from flowerfast.kernels.jpeg_planes import BEYOND, make_room, read_planes
from flowerfast.kernels.jpeg_rows import rgb_row
from flowerfast.kernels.jpeg_tables import Tables, make_tables

SIZES = ((6, 5), (7, 9), (16, 16), (17, 33), (31, 64), (101, 100), (1200, 24), (24, 1200))


@njit
def _window(data, tables, shrink, window, chroma, out):
    """0 and the pixels in `out`; 1: not for this decoder; 2: its data are not in order."""
    top, left, height, width = window
    if not read_header(data, tables):
        return 1
    frame = tables.frame[0]
    region = region_of(frame, shrink, top, left, height, width)
    if top + height > region.height or left + width > region.width:
        return 1  # the header was damaged; callers compare it with the size that they know
    room = make_room(data, frame, region)
    if not read_planes(data, tables, region, room):
        return 2
    for y in range(height):
        rgb_row(room.planes, region, top + y, left, chroma, out[y])
    return 0


def decode_window(
    data: bytes, window: tuple[int, int, int, int], tables: Tables, shrink: int = 1
) -> np.ndarray | int:
    """Pixels of a window (top, left, height, width), uint8 (height, width, 3), or why there are none."""
    out = np.zeros(window[2:], np.uint32)
    chroma = np.zeros((3, window[3] + 2 * BEYOND), np.uint8)
    code = _window(np.frombuffer(data, np.uint8), tables, shrink, window, chroma, out)
    return code or out.view(np.uint8).reshape(*window[2:], 4)[..., :3]


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Slopes, noise and hard edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = rng.uniform(0, 255, 3) + np.stack([x, y, x + y], 2) % 97 + rng.normal(0, 12, (*x.shape, 3))
    pixels[size[1] // 3 :, size[0] // 2 :] = rng.uniform(0, 255, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def assert_windows_agree(data: bytes, seed: int = 0, windows: int = 6, shrink: int = 1) -> None:
    tall, wide = (-(-edge // shrink) for edge in simplejpeg.decode_jpeg_header(data)[:2])
    expected = simplejpeg.decode_jpeg(data, "RGB", min_height=tall, min_width=wide, min_factor=1)
    assert expected.shape == (tall, wide, 3)
    rng, tables = np.random.default_rng(seed), make_tables()
    for i in range(windows):
        height, width = rng.integers(1, [tall + 1, wide + 1]) if i else (tall, wide)
        top, left = rng.integers(0, [tall - height + 1, wide - width + 1])
        found = decode_window(data, (int(top), int(left), int(height), int(width)), tables, shrink)
        assert np.array_equal(found, expected[top : top + height, left : left + width]), (i, top, left)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 5}, {"quality": 98}, {"quality": 20}])
def test_every_window_of_a_progressive_photo_is_libjpegs(
    size: tuple[int, int], subsampling: str, options: dict[str, Any]
) -> None:
    photo, chosen = picture(size, 2), {**options, "progressive": True}
    if subsampling == "grey":
        assert_windows_agree(jpeg(photo.convert("L"), **chosen))
    else:
        assert_windows_agree(jpeg(photo, subsampling=subsampling, **chosen))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:4:0"])
def test_every_window_is_libjpegs(size: tuple[int, int], subsampling: str) -> None:
    pixels = np.ascontiguousarray(np.asarray(picture(size)))
    for quality in (30, 75, 97):
        data = simplejpeg.encode_jpeg(pixels, quality, colorsubsampling=subsampling.replace(":", ""))
        assert_windows_agree(data, quality)


@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_blocks": 1},
        {"restart_marker_blocks": 7},
        {"restart_marker_rows": 1},
        {"optimize": True},
        {"quality": 100, "subsampling": 0},
        {"quality": 3},
        {"comment": b"\xff\xd8 a comment that looks like a photo \xff\xda"},
        {"exif": b"Exif\0\0" + bytes(40)},
        {"qtables": [list(range(1, 65)), [255] * 64]},
    ],
)
def test_what_encoders_may_choose(options: dict[str, Any]) -> None:
    assert_windows_agree(jpeg(picture((130, 75), 1), **options))


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "grey"])
@pytest.mark.parametrize("size", [(64, 48), (70, 51), (333, 200)])
def test_shrunk_windows_are_libjpegs(size: tuple[int, int], subsampling: str, shrink: int) -> None:
    photo = picture(size)
    data = jpeg(photo.convert("L")) if subsampling == "grey" else jpeg(photo, subsampling=subsampling)
    assert_windows_agree(data, shrink=shrink)


def test_grey_photos() -> None:
    assert_windows_agree(jpeg(picture((61, 40)).convert("L")))


def test_noise_that_clips_everywhere() -> None:
    noise = np.random.default_rng(0).choice([0, 255], (90, 120, 3)).astype(np.uint8)
    for quality in (20, 90, 100):
        assert_windows_agree(jpeg(Image.fromarray(noise), quality=quality, subsampling=2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        jpeg(picture((40, 30)).convert("CMYK")),
        jpeg(picture((40, 30)), keep_rgb=True),
        jpeg(picture((3, 3)), subsampling=2),  # so narrow that libjpeg does not smooth the chroma
    ],
    ids=["empty", "two bytes", "no scan", "png", "cmyk", "rgb", "narrow"],
)
def test_other_files_are_left_to_others(data: bytes) -> None:
    assert decode_window(data, (0, 0, 1, 1), make_tables()) == 1


@pytest.mark.parametrize("spoilt", ["symbol", "codes"])
def test_huffman_tables_that_libjpeg_refuses_are_left_to_it(spoilt: str) -> None:
    """A DC difference has no more than 15 bits, and no code is of ones alone."""
    data = bytearray(jpeg(picture((40, 40))))
    assert not isinstance(decode_window(bytes(data), (0, 0, 8, 8), make_tables()), int)
    table = data.index(b"\xff\xc4") + 4  # its class and number, 16 counts of codes by length, the symbols
    assert data[table] == 0
    if spoilt == "symbol":
        data[table + 17] = 0x80
    else:
        data[table + 1 : table + 17] = [2, sum(data[table + 1 : table + 17]) - 2, *[0] * 14]
    with pytest.raises(ValueError, match="Huffman"):
        simplejpeg.decode_jpeg(bytes(data), strict=True)
    assert decode_window(bytes(data), (0, 0, 8, 8), make_tables()) == 1


@pytest.mark.parametrize("window", [(0, 0, 160, 200), (0, 0, 16, 200)], ids=["whole", "top"])
@pytest.mark.parametrize(
    ("behind", "good"),
    [
        (b"", False),
        (b"\xff", False),
        (b"\xff\xd8\xff\xd9", False),
        (b"\xff\xc4\0\3\0\xff\xd9", False),
        (b"\xff\xd0\xff\xd9", False),
        (b"\xff\xff\xd9", False),
        (b"\0\1\2\xff\xd9", True),
        (b"\xff\xd9 and more \xff\xd8", True),
    ],
)
def test_what_stands_behind_the_scan_counts_in_every_window(
    behind: bytes, good: bool, window: tuple[int, int, int, int]
) -> None:
    """Up to the end marker: at one that has no place there libjpeg may stop, whatever part is wanted."""
    data = jpeg(picture((200, 160)))[:-2] + behind
    found = decode_window(data, window, make_tables())
    assert found == 2 if not good else not isinstance(found, int)


def test_a_marker_amid_the_scan_is_noticed_below_the_window() -> None:
    data = jpeg(picture((200, 160)))
    at = len(data) * 3 // 4
    for marker in (b"\xff\xc4", b"\xff\xd3", b"\xff\x01"):
        assert decode_window(data[:at] + marker + data[at + 2 :], (0, 0, 16, 16), make_tables()) == 2


def segment(data: bytes, marker: int) -> int:
    """Where the body of the first segment with this marker begins."""
    return data.index(bytes((0xFF, marker))) + 4


@pytest.mark.parametrize("spoilt", ["interval", "frame", "factors", "height"])
def test_headers_that_libjpeg_refuses_are_left_to_it(spoilt: str) -> None:
    data = bytearray(jpeg(picture((40, 40)).convert("L"), restart_marker_blocks=4))
    assert not isinstance(decode_window(bytes(data), (0, 0, 8, 8), make_tables()), int)
    frame, interval = segment(data, 0xC0), segment(data, 0xDD)
    if spoilt == "interval":  # a segment that is longer than its number of two bytes
        data[interval - 1] += 1
        data[interval:interval] = b"\0"
    elif spoilt == "frame":  # one that is longer than its components
        data[frame - 1] += 1
        data[frame + 9 : frame + 9] = b"\0"
    elif spoilt == "factors":
        data[frame + 7] = 0x51
    else:
        data[frame + 1 : frame + 3] = b"\xff\xff"
    with pytest.raises(ValueError, match=r"."):
        simplejpeg.decode_jpeg(bytes(data), strict=True)
    assert decode_window(bytes(data), (0, 0, 8, 8), make_tables()) == 1


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("step", [1, 20, 50, 120, 255])
@pytest.mark.parametrize("first", [True, False], ids=["dc", "ac"])
def test_levels_that_run_over_16_bits_are_left_to_libjpeg(step: int, shrink: int, first: bool) -> None:
    """Its vector instructions reckon in 16 bits: pixels are equal as long as that is enough."""
    data = bytearray(jpeg(picture((64, 64)), quality=100, subsampling=0))
    for marker in (at for at in range(2, len(data) - 69) if data[at : at + 4] == b"\xff\xdb\0\x43"):
        data[marker + 5 : marker + 69] = [step] + [1] * 63 if first else [1] + [step] * 63
    expected = simplejpeg.decode_jpeg(
        bytes(data), "RGB", min_height=64 // shrink, min_width=64 // shrink, min_factor=1
    )
    found = decode_window(bytes(data), (0, 0, 64 // shrink, 64 // shrink), make_tables(), shrink)
    if isinstance(found, int):
        assert step > 1
    else:
        assert np.array_equal(found, expected)


def test_a_missing_restart_marker_is_noticed() -> None:
    data = jpeg(picture((200, 160)), restart_marker_rows=1)
    at = data.index(b"\xff\xd3")
    for damaged in (data[:at] + data[at + 2 :], data[:at] + b"\xff\xd4" + data[at + 2 :]):
        assert decode_window(damaged, (0, 0, 160, 200), make_tables()) == 2


def test_tables_of_an_earlier_file_are_forgotten() -> None:
    tables = make_tables()
    good = jpeg(picture((64, 64)))
    assert not isinstance(decode_window(good, (0, 0, 64, 64), tables), int)
    at = good.index(b"\xff\xc4")
    length = int.from_bytes(good[at + 2 : at + 4], "big")
    assert decode_window(good[:at] + good[at + 2 + length :], (0, 0, 64, 64), tables) == 1
