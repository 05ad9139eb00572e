"""How photos are turned: as Pillow's exif_transpose turns them, in every format, however odd the EXIF."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from flowerfast.photos.decode import decode
from flowerfast.photos.header import read_header
from flowerfast.photos.orientation import turn

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else []))
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'


def encode(kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def exif(value: object = 6, kind: int = 3, count: int = 1, order: str = "<", tag: int = 0x112) -> bytes:
    """An EXIF block of two entries, in the given byte order; `value` is the raw field of an orientation."""
    field = value if isinstance(value, bytes) else struct.pack(order + "HH", value, 0)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    entries = struct.pack(order + "HHI4s", 0x100, 3, 1, bytes(4)) + struct.pack(
        order + "HHI4s", tag, kind, count, field
    )
    return b"Exif\0\0" + head + struct.pack(order + "H", 2) + entries + bytes(4)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments: bytes) -> bytes:
    """A JPEG with these segments before all others but the first."""
    plain = encode(quality=95)
    return plain[:2] + b"".join(segments) + plain[2:]


def png_with_exif_behind(block: bytes) -> bytes:
    plain, chunk = encode("PNG"), b"eXIf" + block[6:]
    end = plain.index(b"IEND") - 4
    return plain[:end] + struct.pack(">I", len(block) - 6) + chunk + struct.pack(
        ">I", zlib.crc32(chunk)
    ) + plain[end:]  # fmt: skip


def expected(content: bytes) -> np.ndarray:
    """Pixels as exif_transpose gives them."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def upright(content: bytes) -> tuple[np.ndarray, int]:
    width, height, orientation, _ = read_header(io.BytesIO(content), 10**6)
    return turn(decode(np.frombuffer(content, np.uint8), width, height), orientation), orientation


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_are_those_of_exif_transpose(kind: str, orientation: int) -> None:
    block = Image.Exif()
    block[0x112] = orientation
    content = encode(kind, exif=block)
    pixels, found = upright(content)
    assert np.array_equal(pixels, expected(content))
    assert found == (orientation if 1 < orientation < 9 and kind != "TIFF" else 1)
    assert pixels.shape == ((8, 5, 3) if 4 < orientation < 9 else (5, 8, 3))


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (jpeg(segment(0xE1, exif(8, order=">"))), 8),
        (encode(exif=exif(6)), 6),  # behind JFIF
        (jpeg(segment(0xFE, b"a comment"), segment(0xE2, b"else"), segment(0xE1, exif(3))), 3),
        (jpeg(segment(0xE1, exif(6, kind=1))), 1),  # a byte
        (jpeg(segment(0xE1, exif(bytes([6, 0, 0, 0]), kind=4))), 6),  # a long
        (jpeg(segment(0xE1, exif(b"6\0\0\0", kind=2, count=2))), 1),  # a text
        (jpeg(segment(0xE1, exif(bytes([6, 0, 3, 0]), count=2))), 6),  # two of them
        (jpeg(segment(0xE1, exif(6, kind=77))), 1),
        (jpeg(segment(0xE1, exif(0))), 1),
        (jpeg(segment(0xE1, exif(9))), 1),
        (jpeg(segment(0xE1, exif(6)[:30])), 1),  # cut in the first entry
        (jpeg(segment(0xE1, exif(6)[:-10])), 1),  # and in the second
        (jpeg(segment(0xE1, b"Exif\0\0" + bytes(20))), 1),
        (jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), 6),
        (jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), segment(0xE1, exif(8))), 8),
        (jpeg(segment(0xE1, exif(8)), segment(0xE1, exif(3))), 8),
        (png_with_exif_behind(exif(6)), 6),
        (png_with_exif_behind(exif(6))[:-12], 6),  # without an end
        (encode("PNG", exif=exif(6)[:30]), 1),
        (encode("WEBP", xmp=XMP), 6),
        (encode("GIF"), 1),
        (encode("BMP"), 1),
    ],
)  # fmt: skip
def test_odd_exif_is_read_as_pillow_reads_it(content: bytes, orientation: int) -> None:
    pixels, found = upright(content)
    assert found == orientation
    assert np.array_equal(pixels, expected(content))


def test_exif_on_which_pillow_fails_means_as_stored() -> None:
    content = encode("WEBP", exif=b"no EXIF at all")
    with pytest.raises(SyntaxError):
        expected(content)
    assert upright(content)[1] == 1


def damaged(block: bytes, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        spoilt = bytearray(block)
        for at in rng.integers(6, len(block), rng.integers(1, 4)):
            spoilt[at] = rng.choice([0, 1, 2, 5, 10, 12, 255, rng.integers(256)])
        yield bytes(spoilt[: rng.integers(8, len(block) + 1)] if rng.random() < 0.2 else spoilt)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_damaged_exif_is_read_as_pillow_reads_it_and_never_costs_the_photo(kind: str) -> None:
    found, failed = set(), 0
    for block in damaged(exif(6), 150):
        content = encode(kind, exif=block)
        try:
            Image.open(io.BytesIO(content)).close()
        except OSError:
            continue
        pixels, orientation = upright(content)
        found.add(orientation)
        try:
            assert np.array_equal(pixels, expected(content))
        except (SyntaxError, ValueError, TypeError, AttributeError, struct.error):
            failed += 1
    assert {1, 6} <= found
    assert failed


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(1, 5, 3), (5, 1, 3), (1, 1, 3)])
def test_photos_one_pixel_thin_are_turned_into_plain_memory(
    shape: tuple[int, int, int], orientation: int
) -> None:
    turned = turn(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape), orientation)
    assert min(turned.strides) > 0
    torch.from_numpy(turned)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("by_xmp", [False, True])
def test_a_tiff_is_measured_as_pillow_turns_it(orientation: int, by_xmp: bool) -> None:
    text = XMP.replace(b'"6"', b'"%d"' % orientation)
    tags = {700: text} if by_xmp else {0x112: orientation}
    content = encode("TIFF", tiffinfo=tags)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.array(image.convert("RGB"))
    header = read_header(io.BytesIO(content), 1000)
    assert (header.height, header.width, header.orientation) == (*expected.shape[:2], 1)
    assert expected.shape[:2] == ((8, 5) if orientation > 4 else (5, 8))
    found = decode(np.frombuffer(content, np.uint8), header.width, header.height)
    assert np.array_equal(found, expected)
