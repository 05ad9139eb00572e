"""Small JPEGs of every usual kind, and what damage makes of them: a mutant follows from its number alone."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

_VALUES = (0x00, 0x01, 0x0F, 0x10, 0x3F, 0x7F, 0x80, 0xFE, 0xFF)
_MARKERS = (
    0x00,
    0x01,
    0xC0,
    0xC2,
    0xC4,
    0xD0,
    0xD1,
    0xD7,
    0xD8,
    0xD9,
    0xDA,
    0xDB,
    0xDC,
    0xDD,
    0xE0,
    0xFE,
    0xFF,
)
_APPS = (
    b"JFIF\0\2\1\0\0\1\0\1\0\0",
    b"Adobe\0\x64\0\0\0\0\0",
    b"Adobe\0\x64\0\0\0\0\2",
    b"Exif\0\0II*\0",
    b"MPF\0",
)

Rng = np.random.Generator


def picture(width: int, height: int, seed: int) -> Image.Image:
    """RGB: slopes, noise and a hard edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    slopes = rng.uniform(-3, 3, (2, 3))
    pixels = rng.uniform(0, 255, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    pixels += rng.normal(0, rng.choice([1, 12, 90]), pixels.shape)
    pixels[height // 3 :, width // 2 :] = rng.uniform(0, 255, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@cache
def seeds() -> tuple[bytes, ...]:
    """Good files of 1 to 96 pixels a side, of every quality, sampling, restart interval, order and colour."""
    kinds: list[dict[str, Any]] = [
        {"subsampling": 2},
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2, "restart_marker_blocks": 1},
        {"subsampling": 0, "restart_marker_blocks": 5},
        {"subsampling": 1, "restart_marker_rows": 1},
        {"subsampling": 2, "optimize": True},
        {"subsampling": 0, "optimize": True, "restart_marker_blocks": 3},
        {"subsampling": 2, "progressive": True},
        {"subsampling": 0, "progressive": True, "restart_marker_rows": 1},
        {"keep_rgb": True},
        {"qtables": [[255] * 64, list(range(1, 65))]},
    ]
    made = []
    for n, size in enumerate([(33, 24), (64, 48), (24, 40), (96, 64), (17, 9), (1, 1)]):
        for k, kind in enumerate(kinds):
            options = {"quality": (25, 75, 90, 100)[(n + k) % 4]} | kind
            made.append(_saved(picture(*size, seed=12 * n + k), **options))
        made.append(_saved(picture(*size, seed=n).convert("L"), quality=80, restart_marker_blocks=n))
        made.append(_saved(picture(*size, seed=n).convert("L"), progressive=True))
        made.append(_saved(picture(*size, seed=n).convert("CMYK")))
        pixels = np.ascontiguousarray(np.asarray(picture(*size, seed=n)))
        for sampling in ("440", "411"):
            made.append(simplejpeg.encode_jpeg(pixels, 85, colorsubsampling=sampling))
    return tuple(made)


def _saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def mutant(case: int) -> bytes:
    """The bytes of a mutant."""
    rng, good = np.random.default_rng([0x4A50, case]), seeds()
    data = bytearray(good[rng.integers(len(good))])
    for _ in range(min(rng.geometric(0.6), 6)):
        _CHANGES[rng.integers(len(_CHANGES))](data, rng)
    if rng.random() < 0.3 and data[-2:] != b"\xff\xd9":
        data += b"\xff\xd9"
    return bytes(data)


def segments(data: bytes | bytearray) -> list[tuple[int, int]]:
    """(start, end) of the segments before the entropy-coded data, as far as their lengths can be followed."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            break
        found.append((at, end))
        if data[at + 1] == 0xDA:
            break
        at = end
    return found


def _scan(data: bytearray) -> int:
    """Where the entropy-coded data begin."""
    places = segments(data)
    return min(places[-1][1] if places else 2, max(len(data) - 1, 0))


def _place(data: bytearray, rng: Rng) -> int:
    """A byte of the whole file, of its header or of its scan."""
    if not data:
        return 0
    scan = _scan(data)
    where = rng.integers(3)
    low, high = ((0, len(data)), (0, max(scan, 1)), (scan, len(data)))[where]
    return int(rng.integers(low, high))


def _flip(data: bytearray, rng: Rng) -> None:
    for _ in range(rng.integers(1, 5)):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def _set(data: bytearray, rng: Rng) -> None:
    for _ in range(rng.integers(1, 4)):
        if data:
            data[_place(data, rng)] = int(rng.choice(_VALUES) if rng.random() < 0.7 else rng.integers(256))


def _mark(data: bytearray, rng: Rng) -> None:
    at = _place(data, rng)
    keep = int(rng.integers(2)) * 2  # over two bytes, or between them
    data[at : at + keep] = bytes((0xFF, int(rng.choice(_MARKERS))))


def _delete(data: bytearray, rng: Rng) -> None:
    at = _place(data, rng)
    del data[at : at + int(rng.integers(1, 17))]


def _insert(data: bytearray, rng: Rng) -> None:
    at = _place(data, rng)
    data[at:at] = rng.bytes(int(rng.integers(1, 17)))


def _repeat(data: bytearray, rng: Rng) -> None:
    at, to = _place(data, rng), _place(data, rng)
    data[to:to] = data[at : at + int(rng.integers(1, 64))]


def _cut(data: bytearray, rng: Rng) -> None:
    at = len(data) - int(rng.integers(1, 12)) if rng.random() < 0.5 else _place(data, rng)
    del data[max(at, 0) :]


def _append(data: bytearray, rng: Rng) -> None:
    good = seeds()
    more = (bytes(8), b"\xff\xd9", b"\xff\xff\xff\xd9", rng.bytes(20), good[rng.integers(len(good))])
    data += more[rng.integers(len(more))]


def _splice(data: bytearray, rng: Rng) -> None:
    """The tail, or the scan, of another file."""
    good = seeds()
    other = bytearray(good[rng.integers(len(good))])
    if rng.random() < 0.5:
        data[_scan(data) :] = other[_scan(other) :]
    else:
        data[_place(data, rng) :] = other[_place(other, rng) :]


def _fill(data: bytearray, rng: Rng) -> None:
    """Bytes before a marker: fill bytes, which are allowed, or others."""
    starts = [start for start, _ in segments(data)] + [len(data) - 2]
    at = max(starts[rng.integers(len(starts))], 0)
    data[at:at] = bytes(int(rng.integers(1, 3))) if rng.random() < 0.4 else b"\xff" * int(rng.integers(1, 4))


def _reorder(data: bytearray, rng: Rng) -> None:
    """A segment doubled, dropped, moved, behind the scan, of a wrong length, or one that says odd things."""
    places = segments(data)
    if not places:
        return
    (start, end), what = places[rng.integers(len(places))], rng.integers(6)
    piece = bytes(data[start:end])
    if what == 0:
        data[end:end] = piece
    elif what == 1:
        del data[start:end]
    elif what == 2:
        del data[start:end]
        others = segments(data)
        at = others[rng.integers(len(others))][0] if others else 2
        data[at:at] = piece
    elif what == 3:
        data[-2:-2] = piece
    elif what == 4:
        length = int.from_bytes(piece[2:4], "big") + int(rng.choice([-3, -2, -1, 1, 2, 3]))
        data[start + 2 : start + 4] = (length % 65536).to_bytes(2, "big")
    else:
        name = int(rng.choice([0xE0, 0xE1, 0xE2, 0xEE, 0xDD]))
        body = bytes((0, int(rng.integers(9)))) if name == 0xDD else _APPS[rng.integers(len(_APPS))]
        data[start:start] = bytes((0xFF, name)) + (len(body) + 2).to_bytes(2, "big") + body


def _field(data: bytearray, rng: Rng) -> None:
    """A byte of the frame's or the scan's header, or of a table, takes another plausible value."""
    wanted = (0xC0, 0xC1, 0xC2, 0xDA, 0xDD) if rng.random() < 0.5 else (0xC4, 0xDB)
    places = [place for place in segments(data) if data[place[0] + 1] in wanted]
    if not places:
        return
    start, end = places[rng.integers(len(places))]
    at = int(rng.integers(start + (1 if rng.random() < 0.1 or end < start + 5 else 4), end))
    near = (data[at] + int(rng.choice([-1, 1, 16, -16]))) % 256
    data[at] = int(rng.choice([near, 0x11, 0x21, 0x12, 0x22, 0x41, 0, 1, 2, 3, 11, 12, 0xF0, 255]))


_CHANGES: tuple[Callable[[bytearray, Rng], None], ...] = (
    *(_flip, _flip, _set, _set, _mark, _delete, _insert, _repeat, _cut, _append),
    *(_splice, _fill, _reorder, _reorder, _field, _field, _field),
)
