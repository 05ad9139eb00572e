"""Progressive JPEGs written from a grammar: coefficients, scripts of scans, codes and faults are random.

Source: ITU-T T.81, annex G.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from benchmarks.torture.jpeg_grammar import Codes, Rng, applications, coded, packed, segment, steps, table

_SAMPLINGS = ((1,), (1,), (1, 1), (2, 1), (1, 2), (2, 2))
"""Across and down, of luma; one number: grey."""
_FAULTS = (
    "bits left out",
    "scan twice",
    "other order",
    "spectrum",
    "no table",
    "early end",
    "restart number",
    "run too long",
    "no end",
    "component",
    "dc symbol",
    "behind the end",
    "no code",
    "too many bits",
    *["segment"] * 6,  # there are many ways
)
_SEGMENTS = (0xC4, 0xDA, 0xDD)
_MOST_RUN = 0x7FFF
_SYMBOLS = [run << 4 | size for run in range(16) for size in range(11)]


@dataclass(frozen=True)
class _Scan:
    """One scan: its components, the first and last coefficient, and the bits left out before and after it."""

    components: tuple[int, ...]
    first: int
    last: int
    high: int
    low: int


@dataclass
class _Picture:
    """Coefficients of the components, int64 (rows, columns, 64) in zigzag order, of whole MCUs."""

    width: int
    height: int
    across: int
    down: int
    levels: list[np.ndarray]

    def units(self, scan: _Scan) -> Iterator[list[tuple[int, int, int]]]:
        """(component, row, column) of the blocks of each MCU of a scan."""
        mcus_down, mcus_across = -(-self.height // (8 * self.down)), -(-self.width // (8 * self.across))
        if len(scan.components) == 1:
            c = scan.components[0]
            across, down = (1, 1) if c == 0 else (self.across, self.down)
            for row in range(-(-self.height // (8 * down))):
                for column in range(-(-self.width // (8 * across))):
                    yield [(c, row, column)]
            return
        for row in range(mcus_down):
            for column in range(mcus_across):
                luma = [
                    (0, row * self.down + y, column * self.across + x)
                    for y in range(self.down)
                    for x in range(self.across)
                ]
                yield luma + [(c, row, column) for c in (1, 2)]


def progression(case: int) -> bytes:
    """The bytes of a file."""
    rng = np.random.default_rng([0x5052, case])
    fault = _FAULTS[rng.integers(len(_FAULTS))] if rng.random() < 0.5 else ""
    picture = _picture(rng)
    count, names = len(picture.levels), (1, 2, 3)
    chosen = rng.integers(0, 2, count)  # quantisation tables
    factors = [picture.across << 4 | picture.down if count == 3 else 0x11, 0x11, 0x11]
    body = b"\x08" + picture.height.to_bytes(2, "big") + picture.width.to_bytes(2, "big") + bytes((count,))
    for c in range(count):
        body += bytes((names[c], factors[c], int(chosen[c])))
    parts = [b"\xff\xd8", *applications(rng), *steps(rng, ""), segment(0xC2, body)]
    interval = int(rng.choice([0, 0, 0, 1, 2, 5]))
    for scan in _script(count, fault, rng):
        if rng.random() < 0.3:
            interval = int(rng.choice([0, 1, 3]))
        parts.append(segment(0xDD, interval.to_bytes(2, "big")))
        parts += _written(picture, scan, interval, fault, rng)
    if fault == "segment":
        _spoil(parts, rng)
    if fault != "no end":
        parts.append(b"\xff\xd9")
    if fault == "behind the end":
        parts.append(rng.bytes(9))
    return b"".join(parts)


def _spoil(parts: list[bytes], rng: Rng) -> None:
    """Change one byte of the head of a scan, its tables or interval, or cut it short."""
    heads = [n for n, part in enumerate(parts) if part[:1] == b"\xff" and part[1] in _SEGMENTS]
    n = heads[int(rng.integers(len(heads)))] if rng.random() < 0.5 else heads[-1]
    spoilt = bytearray(parts[n])
    at = int(rng.integers(1, min(len(spoilt), 12)))
    spoilt[at] ^= 1 << int(rng.integers(8))
    parts[n] = bytes(spoilt if rng.random() < 0.8 else spoilt[:at])


def _picture(rng: Rng) -> _Picture:
    width, height = rng.integers(1, 41, 2).tolist()
    sampling = _SAMPLINGS[rng.integers(len(_SAMPLINGS))]
    across, down = sampling if len(sampling) == 2 else (1, 1)
    rows, columns = -(-height // (8 * down)), -(-width // (8 * across))
    sizes = [(rows * down, columns * across)] + [(rows, columns)] * (2 if len(sampling) == 2 else 0)
    most = int(rng.choice([2, 5, 40, 900], p=[0.3, 0.4, 0.25, 0.05]))
    levels = []
    for size in sizes:
        values = rng.integers(-most, most + 1, (*size, 64)) * (rng.random((*size, 64)) < rng.random() ** 3)
        values[..., 0] = rng.integers(-60, 61, size)
        levels.append(values)
    return _Picture(width, height, across, down, levels)


def _script(count: int, fault: str, rng: Rng) -> list[_Scan]:
    """Scans in an order that the standard allows, unless the fault is another one."""
    lows = rng.integers(0, 3, count)
    lows[:] = lows[0] if (together := bool(rng.random() < 0.7)) else lows
    queues: list[list[_Scan]] = []
    first = [_Scan(tuple(range(count)), 0, 0, 0, int(lows[0]))]
    if not together:
        first = [_Scan((c,), 0, 0, 0, int(lows[c])) for c in range(count)]
    for scan in first:
        queues.append([scan.__class__(scan.components, 0, 0, n, n - 1) for n in range(scan.low, 0, -1)])
    for c in range(count):
        edges = sorted({1, 64, *rng.integers(2, 64, int(rng.integers(0, 3))).tolist()})
        for begin, end in pairwise(edges):
            low = int(rng.integers(0, 3))
            queues.append(
                [_Scan((c,), begin, end - 1, 0, low)]
                + [_Scan((c,), begin, end - 1, n, n - 1) for n in range(low, 0, -1)]
            )
    scans = first
    while queues := [queue for queue in queues if queue]:
        scans.append(queues[int(rng.integers(len(queues)))].pop(0))
    at = int(rng.integers(len(scans)))
    if fault == "bits left out":
        del scans[at]
    elif fault == "scan twice":
        scans.insert(at, scans[at])
    elif fault == "other order":
        scans = [scans[n] for n in rng.permutation(len(scans))]
    elif fault == "too many bits":
        scans[at] = replace(scans[at], high=0, low=int(rng.integers(10, 14)))
    elif fault == "spectrum":
        scans[at] = _Scan(
            scans[at].components, *rng.integers(0, 66, 2).tolist(), *rng.integers(0, 15, 2).tolist()
        )
    return scans


@dataclass
class _Coder:
    """Symbols of one scan to bits."""

    dc: Codes
    ac: Codes
    rng: Rng
    bits: str = ""
    run: int = 0  # blocks of an end-of-band run that is not written yet
    late: list[int] = field(default_factory=list)  # bits that belong behind it

    def symbol(self, codes: Codes, symbol: int, more: int = 0, size: int = 0) -> None:
        code, length = codes[symbol]
        self.bits += f"{code:0{length}b}" + (f"{more:0{size}b}" if size else "")

    def end_run(self) -> None:
        if self.run:
            size = self.run.bit_length() - 1
            self.symbol(self.ac, size << 4, self.run - (1 << size), size)
            self.run = 0
        self.bits += "".join(map(str, self.late))
        self.late = []

    def first_dc(self, difference: int) -> None:
        size = abs(difference).bit_length()
        self.symbol(self.dc, size, difference if difference >= 0 else difference + (1 << size) - 1, size)

    def first_ac(self, values: list[int]) -> None:
        zeros = 0
        for value in values:
            if value == 0:
                zeros += 1
                continue
            self.end_run()
            while zeros > 15:
                self.symbol(self.ac, 0xF0)
                zeros -= 16
            size = abs(value).bit_length()
            more = value if value >= 0 else value + (1 << size) - 1
            self.symbol(self.ac, zeros << 4 | size, more, size)
            zeros = 0
        if zeros:
            self._end_block([])

    def more_ac(self, values: list[int]) -> None:
        """One more bit of values, of which those of one bit were 0 before."""
        last = max((k for k, value in enumerate(values) if abs(value) == 1), default=-1)
        zeros, behind = 0, list[int]()
        for k, value in enumerate(values):
            if value == 0:
                zeros += 1
                continue
            while zeros > 15 and k <= last:
                self.end_run()
                self.symbol(self.ac, 0xF0)
                self.bits += "".join(map(str, behind))
                zeros, behind = zeros - 16, []
            if abs(value) > 1:
                behind.append(abs(value) & 1)
                continue
            self.end_run()
            self.symbol(self.ac, zeros << 4 | 1, int(value > 0), 1)
            self.bits += "".join(map(str, behind))
            zeros, behind = 0, []
        if zeros or behind:
            self._end_block(behind)

    def _end_block(self, behind: list[int]) -> None:
        self.run += 1
        self.late += behind
        if self.run == _MOST_RUN or self.rng.random() < 0.2:
            self.end_run()


def _written(picture: _Picture, scan: _Scan, interval: int, fault: str, rng: Rng) -> list[bytes]:
    """Tables, header and data of a scan."""
    sizes = list(range(12))
    if fault == "dc symbol":
        sizes.append(16)
    dc = coded(sizes, rng)
    ac = coded(_SYMBOLS if rng.random() < 0.9 else [*_SYMBOLS, 13, 0x1E, 0xFF], rng)
    coder, parts = _Coder(dc, ac, rng), list[bytes]()
    if fault != "no table":
        parts += [table(0, 0, dc, rng), table(1, 0, ac, rng)]
    name = 7 if fault == "component" else 1
    body = bytes((len(scan.components),)) + b"".join(bytes((c + name, 0)) for c in scan.components)
    parts.append(segment(0xDA, body + bytes((scan.first & 255, scan.last & 255, scan.high << 4 | scan.low))))
    before, marker = [0] * len(picture.levels), 0
    units = list(picture.units(scan))
    stop = int(rng.integers(len(units))) if fault == "early end" else len(units)
    for number, blocks in enumerate(units[:stop]):
        if interval and number and number % interval == 0:
            coder.end_run()
            parts += [packed(coder.bits, rng), bytes((0xFF, 0xD0 + marker))]
            coder.bits, marker, before = "", (marker + 1) & 7, [0] * len(before)
            if fault == "restart number" and rng.random() < 0.2:
                marker = int(rng.integers(8))
        for c, row, column in blocks:
            levels = picture.levels[c][row, column]
            if scan.first == 0:
                level = int(levels[0]) >> scan.low
                if scan.high:
                    coder.bits += str(level & 1)
                else:
                    coder.first_dc(level - before[c])
                    before[c] = level
                continue
            band = [int(value) for value in levels[scan.first : min(scan.last, 63) + 1]]
            values = [(abs(v) >> scan.low) * (1 if v > 0 else -1) for v in band]
            (coder.more_ac if scan.high else coder.first_ac)(values)
    if fault == "run too long":
        coder.run += 5
    coder.end_run()
    if fault == "no code":
        at = int(rng.integers(len(coder.bits) + 1))
        coder.bits = f"{coder.bits[:at]}{'1' * 16}{coder.bits[at:]}"
    return [*parts, packed(coder.bits, rng)]
