"""Bytes to pixels: the same as Pillow's for whatever Pillow decodes, an error for the rest."""

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from flowerfast.photos import decode as module
from flowerfast.photos.decode import ChangedError, DecodeError, can_scale, decode

WIDTH, HEIGHT = 60, 45


def encode(kind: str = "JPEG", image: Image.Image | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image or picture()).save(stream, kind, **options)
    return stream.getvalue()


def picture() -> Image.Image:
    coarse = np.random.default_rng(4).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def run(content: bytes, width: int = WIDTH, height: int = HEIGHT, **options: Any) -> np.ndarray:
    return decode(np.frombuffer(content, np.uint8), width, height, **options)


def pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("with_buffer", [False, True])
def test_pixels_are_pillows(zoo: Path, with_buffer: bool) -> None:
    buffer = np.empty(3000 * 120 * 3, np.uint8) if with_buffer else None
    files = sorted(p for p in zoo.rglob("*") if p.is_file())
    assert len(files) > 30
    for file in files:
        expected = pillow(file.read_bytes())
        height, width, _ = expected.shape
        found = run(file.read_bytes(), width, height, buffer=buffer)
        assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
        assert np.array_equal(found, expected), file.name


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_usual_jpegs_take_the_fast_path(
    monkeypatch: pytest.MonkeyPatch, subsampling: str, progressive: bool
) -> None:
    content = encode(subsampling=subsampling, progressive=progressive)
    expected = pillow(content)
    monkeypatch.setattr(module, "_decode_pillow", None)
    assert np.array_equal(run(content), expected)


def test_jpeg_is_decoded_into_the_buffer() -> None:
    buffer = np.zeros(WIDTH * HEIGHT * 3 + 100, np.uint8)
    found = run(encode(), buffer=buffer)
    assert np.shares_memory(found, buffer)
    assert not buffer[WIDTH * HEIGHT * 3 :].any()


def flip_bytes(content: bytes, at: float) -> bytes:
    """The content with eight bytes of its scan replaced."""
    start = int(len(content) * at)
    return content[:start] + bytes([17, 200, 3, 91, 55, 130, 7, 66]) + content[start + 8 :]


@pytest.mark.parametrize("at", [0.55, 0.7, 0.85, 0.95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_tolerable_damage_gives_what_pillow_gives(at: float, subsampling: str) -> None:
    content = flip_bytes(encode(quality=95, subsampling=subsampling), at)
    assert np.array_equal(run(content), pillow(content))


def test_trailing_bytes_are_ignored() -> None:
    content = encode()
    assert np.array_equal(run(content + b"\xff\xd8 more"), pillow(content))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_files_are_refused_where_pillow_refuses(kind: str, share: float) -> None:
    content = encode(kind)
    content = content[: int(len(content) * share)]
    try:
        expected = pillow(content)
    except (OSError, SyntaxError):
        with pytest.raises(DecodeError, match=r"."):
            run(content)
    else:
        assert np.array_equal(run(content), expected)


def test_truncated_jpeg_is_refused() -> None:
    with pytest.raises(DecodeError, match="truncated"):
        run(encode(quality=95)[:-100])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", bytes(100), b"\xff\xd8\xff\xe0" + bytes(200), b"<html>",
     b"\x89PNG\r\n\x1a\n" + bytes(50)],
)  # fmt: skip
def test_garbage_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        run(content)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_garbage_behind_a_valid_header_is_decoded_or_refused_as_pillow_does() -> None:
    content, outcomes = encode(), set()
    for seed in range(30):
        noise = np.random.default_rng(seed).bytes(600)
        mixed = content[: content.index(b"\xff\xda") + 14] + noise
        try:
            expected = pillow(mixed)
        except (OSError, SyntaxError):
            outcomes.add("refused")
            with pytest.raises(DecodeError):
                run(mixed)
        else:
            outcomes.add("decoded")
            assert np.array_equal(run(mixed), expected)
    assert outcomes == {"decoded", "refused"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("width", "height"), [(WIDTH + 1, HEIGHT), (WIDTH, HEIGHT - 1), (HEIGHT, WIDTH)])
def test_changed_size_is_refused(kind: str, width: int, height: int) -> None:
    with pytest.raises(DecodeError, match=rf"is 60x45 now, was {width}x{height} when scanned"):
        run(encode(kind), width, height)


def test_pillows_warnings_are_silenced_in_threads_and_no_others() -> None:
    """A palette with transparency warns; two overlapping `catch_warnings` would leave everything ignored."""
    content = encode("PNG", picture().quantize(16), transparency=bytes(range(16)))
    before = warnings.filters[:]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: run(content), range(300)))
    assert all(np.array_equal(pixels, found[0]) for pixels in found)
    added = [entry for entry in warnings.filters if entry not in before]
    assert len(added) <= 1
    assert [entry for entry in warnings.filters if entry not in added] == before
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="still an error"):
        warnings.warn("still an error", UserWarning, stacklevel=1)


def test_a_sampling_that_simplejpeg_has_no_name_for_comes_with_pillows_pixels(zoo: Path) -> None:
    content = (zoo / "odd/jpeg-441.jpg").read_bytes()
    with pytest.raises(KeyError):
        simplejpeg.decode_jpeg_header(content)
    assert np.array_equal(run(content, 90, 120), pillow(content))
    with pytest.raises(ChangedError):
        run(content, 32, 120)


@pytest.mark.parametrize(
    "raised", [KeyError(3), RuntimeError("x\ny"), NotImplementedError(), MemoryError(), struct.error("short")]
)
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_a_decoder_raises_is_a_bad_file_in_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    if where == "open":
        monkeypatch.setattr(module, "open_image", fail)
    else:
        monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DecodeError) as caught:
        run(encode("PNG"))
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_avif_is_a_bad_file() -> None:
    content, raised = encode("AVIF"), set()
    for at in range(0, len(content), 7):
        damaged = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
        try:
            expected = pillow(damaged)
        except Exception as error:
            raised.add(type(error))
            with pytest.raises(DecodeError, match=r"."):
                run(damaged)
        else:
            assert np.array_equal(run(damaged, *expected.shape[1::-1]), expected)
    assert RuntimeError in raised


def frame(marker: int = 0xC0, bits: int = 8, factors: tuple[int, ...] = (0x22, 0x11, 0x11)) -> bytes:
    """A JPEG that ends with its frame header."""
    parts = b"".join(bytes([n + 1, factor, 0]) for n, factor in enumerate(factors))
    body = bytes([bits, 0, 30, 0, 40, len(factors)]) + parts
    app = b"\xff\xe0\0\x07JUNK!" + b"\xff"  # and a byte that only fills
    return b"\xff\xd8" + app + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


@pytest.mark.parametrize("marker", [*range(0xC0, 0xD0)])
@pytest.mark.parametrize("bits", [8, 12])
def test_only_listed_frames_are_scaled(marker: int, bits: int) -> None:
    content = np.frombuffer(frame(marker, bits), np.uint8)
    assert can_scale(content) == (marker in (0xC0, 0xC1, 0xC2) and bits == 8)


@pytest.mark.parametrize(
    ("factors", "scaled"),
    [
        ((0x11,), True), ((0x22,), False), ((0x11, 0x11, 0x11), True), ((0x21, 0x11, 0x11), True),
        ((0x12, 0x11, 0x11), True), ((0x22, 0x11, 0x11), True), ((0x14, 0x11, 0x11), False),
        ((0x41, 0x11, 0x11), False), ((0x22, 0x21, 0x11), False), ((0x22, 0x11, 0x12), False),
        ((0x11, 0x11), False), ((0x11, 0x11, 0x11, 0x11), False), ((), False),
    ],
)  # fmt: skip
def test_only_listed_samplings_are_scaled(factors: tuple[int, ...], scaled: bool) -> None:
    assert can_scale(np.frombuffer(frame(factors=factors), np.uint8)) == scaled


def test_what_is_cut_before_the_frame_is_not_scaled() -> None:
    content = np.frombuffer(frame(), np.uint8)
    assert not any(can_scale(content[:end]) for end in range(len(content)))
    assert can_scale(content)


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_both_decoders_scale_alike(
    monkeypatch: pytest.MonkeyPatch, shrink: int, subsampling: str, progressive: bool
) -> None:
    content = encode(subsampling=subsampling, progressive=progressive)
    fast = decode(np.frombuffer(content, np.uint8), WIDTH, HEIGHT, shrink=shrink)
    assert fast.shape == (-(-HEIGHT // shrink), -(-WIDTH // shrink), 3)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)  # refuses all
    assert np.array_equal(decode(np.frombuffer(content, np.uint8), WIDTH, HEIGHT, shrink=shrink), fast)


def test_what_is_not_listed_is_decoded_whole(zoo: Path) -> None:
    content = np.fromfile(zoo / "odd/jpeg-441.jpg", np.uint8)
    assert np.array_equal(decode(content, 90, 120, shrink=4), pillow(content.tobytes()))
