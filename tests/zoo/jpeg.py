"""JPEGs of every sampling, precision, colour space and order of scans: what no encoder at hand writes.

Source: ITU-T T.81. Codes are of one length each, as the standard allows: files are large, their writer short.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from benchmarks.torture.jpeg_grammar import segment

JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
START, END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = {"baseline": 0xC0, "extended": 0xC1, "progressive": 0xC2, "lossless": 0xC3}
_STEP = 4  # of all coefficients
_PREDICTOR = 1  # of lossless frames: the sample to the left
_ZIGZAG = sorted(
    range(64), key=lambda n: (n // 8 + n % 8, n // 8 if (n // 8 + n % 8) % 2 else n % 8)
)  # along the diagonals, up and down in turns
_COSINES = np.array(
    [
        [np.sqrt((1 if k == 0 else 2) / 8) * np.cos((2 * n + 1) * k * np.pi / 16) for n in range(8)]
        for k in range(8)
    ]
)
Factors = Sequence[tuple[int, int]]
"""(across, down) of each component: how often it is sampled, beside the others."""


def adobe(transform: int) -> bytes:
    """Adobe's marker: 0 says RGB or CMYK, 1 YCbCr, 2 YCCK."""
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))


@dataclass(frozen=True)
class Form:
    """How a JPEG is written.

    Attributes:
        factors: of each component.
        space: L, YCbCr, RGB, CMYK or YCCK; the last two inverted, as Adobe has them.
        frame: a key of _FRAMES.
        head: segments behind the start of the file, which say what the components mean.
        names: of the components.
        interval: MCUs between restart markers; 0: none.
        scans: together: one; apart: one of each component; single: progressive, one of each coefficient.
        bits: of a sample; 12 are 16 times as much as 8.
        wide: steps in 16 bits.
        fill: bytes that only fill, in front of every marker.
        late_height: the height stands behind the first scan (DNL).
    """

    factors: Factors = ((2, 2), (1, 1), (1, 1))
    space: str = "YCbCr"
    frame: str = "baseline"
    head: tuple[bytes, ...] = (JFIF,)
    names: bytes = b"\1\2\3\4"
    interval: int = 0
    scans: str = "together"
    bits: int = 8
    wide: bool = False
    fill: int = 0
    late_height: bool = False


def write(picture: Image.Image, form: Form) -> bytes:
    """A file, whole."""
    width, height = picture.size
    planes = [np.asarray(band) for band in _bands(picture, form.space)][: len(form.factors)]
    count = len(planes)
    frame = bytes((form.bits,)) + (0 if form.late_height else height).to_bytes(2, "big")
    frame += width.to_bytes(2, "big") + bytes((count,))
    for name, (across, down) in zip(form.names, form.factors, strict=False):
        frame += bytes((name, across << 4 | down, 0))
    lossless = form.frame == "lossless"
    sizes = 17 if lossless else 16 if form.bits > 8 else 12
    dc, ac = _codes(range(sizes), 5), _codes(_ac_symbols(form.bits), 8)
    steps = np.full(64, _STEP, ">u2" if form.wide else "u1").tobytes()
    parts = [*form.head]
    if not lossless:
        parts.append(segment(0xDB, bytes((form.wide << 4,)) + steps))
    parts += [segment(_FRAMES[form.frame], frame), _table(0, dc)]
    parts += [] if lossless else [_table(1, ac)]
    parts += [segment(0xDD, form.interval.to_bytes(2, "big"))] * bool(form.interval)
    levels = [] if lossless else [_levels(plane, n, form) for n, plane in enumerate(planes)]
    for number, scan in enumerate(_scans(form, count)):
        header = bytes((len(scan.components),))
        header += b"".join(bytes((form.names[c], 0)) for c in scan.components)
        parts.append(segment(0xDA, header + bytes((scan.first, scan.last, 0))))
        units = _samples(planes, scan, dc) if lossless else _units(levels, scan, picture.size, form, dc, ac)
        parts += _packed(units, form)
        if form.late_height and number == 0:
            parts.append(segment(0xDC, height.to_bytes(2, "big")))
    fill = b"\xff" * form.fill
    return START + b"".join(fill + part if part[:1] == b"\xff" else part for part in parts) + fill + END


def _bands(picture: Image.Image, space: str) -> Sequence[Image.Image]:
    if space in ("CMYK", "YCCK"):
        *inks, black = picture.convert("CMYK").split()
        if space == "CMYK":
            return [ImageChops.invert(band) for band in (*inks, black)]
        return [*Image.merge("RGB", inks).convert("YCbCr").split(), ImageChops.invert(black)]
    return picture.convert(space).split()


def _ac_symbols(bits: int) -> list[int]:
    return [0, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 11 if bits == 8 else 15))]


def _codes(symbols: Sequence[int], length: int) -> dict[int, str]:
    """Codes of one length; the one of ones alone stays free."""
    assert len(symbols) < 1 << length
    return {symbol: f"{code:0{length}b}" for code, symbol in enumerate(symbols)}


def _table(kind: int, codes: dict[int, str]) -> bytes:
    length = len(next(iter(codes.values())))
    counts = [len(codes) if n == length else 0 for n in range(1, 17)]
    return segment(0xC4, bytes((kind << 4, *counts, *codes)))


@dataclass(frozen=True)
class _Scan:
    components: tuple[int, ...]
    first: int = 0
    last: int = 63


def _scans(form: Form, count: int) -> list[_Scan]:
    if form.frame == "lossless":
        return [_Scan(tuple(range(count)), _PREDICTOR, 0)]
    if form.scans == "single":
        all_dc = _Scan(tuple(range(count)), 0, 0)
        return [all_dc, *(_Scan((c,), k, k) for k in range(1, 64) for c in range(count))]
    if form.scans == "apart":
        return [_Scan((c,)) for c in range(count)]
    return [_Scan(tuple(range(count)))]


def _levels(plane: np.ndarray, number: int, form: Form) -> np.ndarray:
    """Quantised coefficients of a component in whole MCUs, int64 (rows, columns, 64) in zigzag order."""
    (across, down), most = form.factors[number], [max(each) for each in zip(*form.factors, strict=True)]
    height, width = plane.shape
    sampled = -(-width * across // most[0]), -(-height * down // most[1])
    image = Image.fromarray(plane).resize(sampled, Image.Resampling.BOX)
    samples = np.asarray(image, np.float64) * (1 << (form.bits - 8)) - (1 << (form.bits - 1))
    mcus = -(-height // (8 * most[1])), -(-width // (8 * most[0]))
    whole = mcus[0] * down * 8, mcus[1] * across * 8
    samples = np.pad(samples, [(0, whole[n] - samples.shape[n]) for n in (0, 1)], "edge")
    blocks = samples.reshape(whole[0] // 8, 8, whole[1] // 8, 8).transpose(0, 2, 1, 3)
    found = np.rint(_COSINES @ blocks @ _COSINES.T / _STEP).astype(np.int64)
    return found.reshape(*found.shape[:2], 64)[..., _ZIGZAG]


def _places(scan: _Scan, size: tuple[int, int], form: Form) -> Iterator[list[tuple[int, int, int]]]:
    """(component, row, column) of the blocks of each MCU of a scan."""
    most = [max(each) for each in zip(*form.factors, strict=True)]
    if len(scan.components) == 1:
        c = scan.components[0]
        across, down = form.factors[c]
        wide, tall = -(-size[0] * across // most[0]), -(-size[1] * down // most[1])
        yield from ([(c, row, column)] for row in range(-(-tall // 8)) for column in range(-(-wide // 8)))
        return
    for row in range(-(-size[1] // (8 * most[1]))):
        for column in range(-(-size[0] // (8 * most[0]))):
            yield [
                (c, row * form.factors[c][1] + y, column * form.factors[c][0] + x)
                for c in scan.components
                for y in range(form.factors[c][1])
                for x in range(form.factors[c][0])
            ]


def _units(
    levels: list[np.ndarray],
    scan: _Scan,
    size: tuple[int, int],
    form: Form,
    dc: dict[int, str],
    ac: dict[int, str],
) -> Iterator[str]:
    """Bits of each MCU."""
    before = [0] * len(levels)
    for number, blocks in enumerate(_places(scan, size, form)):
        if form.interval and number % form.interval == 0:
            before = [0] * len(levels)
        bits = ""
        for c, row, column in blocks:
            block = levels[c][row, column].tolist()
            if scan.first == 0:
                bits += _value(dc, 0, block[0] - before[c])
                before[c] = block[0]
            bits += _alternating(ac, block[max(scan.first, 1) : scan.last + 1])
        yield bits


def _alternating(ac: dict[int, str], levels: list[int]) -> str:
    bits, zeros = "", 0
    for level in levels:
        if level == 0:
            zeros += 1
            continue
        bits += ac[0xF0] * (zeros // 16) + _value(ac, zeros % 16, level)
        zeros = 0
    return bits + (ac[0] if zeros else "")


def _value(codes: dict[int, str], zeros: int, level: int) -> str:
    size = abs(level).bit_length()
    behind = level if level >= 0 else level + (1 << size) - 1
    return codes[zeros << 4 | size] + (f"{behind:0{size}b}" if size else "")


def _samples(planes: list[np.ndarray], scan: _Scan, codes: dict[int, str]) -> Iterator[str]:
    """Bits of each pixel of a lossless scan: its difference from the one to the left, or above."""
    values = np.stack([planes[c] for c in scan.components], 2).astype(np.int64)
    beside = np.empty_like(values)
    beside[:, 1:], beside[1:, 0], beside[0, 0] = values[:, :-1], values[:-1, 0], 128
    for pixel in (values - beside).reshape(-1, len(scan.components)).tolist():
        yield "".join(_value(codes, 0, difference) for difference in pixel)


def _packed(units: Iterator[str], form: Form) -> Iterator[bytes]:
    """Entropy-coded data with its restart markers."""
    held: list[str] = []
    marker = 0
    for number, bits in enumerate(units):
        if form.interval and number and number % form.interval == 0:
            yield from (_bytes("".join(held)), bytes((0xFF, 0xD0 + marker)))
            held, marker = [], (marker + 1) & 7
        held.append(bits)
    yield _bytes("".join(held))


def _bytes(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
