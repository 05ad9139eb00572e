"""JPEGs written from a grammar: what the standard allows and encoders never make, and what it just forbids.

Source: ITU-T T.81. Coefficients, tables and the order of segments are random; so are the faults, of which
most files have none.
"""

from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator
_SAMPLINGS = ((0x11,) * 3, (0x21, 0x11, 0x11), (0x12, 0x11, 0x11), (0x22, 0x11, 0x11))
_ODD_SAMPLINGS = (
    (0x41, 0x11, 0x11),
    (0x22, 0x21, 0x12),
    (0x11, 0x22, 0x22),
    (0x22, 0x22, 0x22),
    (0x14, 0x11, 0x11),
)
_FAULTS = (
    """
restart number, restart missing, restart amid, no end, early end, bytes before the end,
marker in data, fill bytes in data, interval length, frame length, scan length, table number,
component, twice the frame, second start, segment behind, ones, dc symbol, height, factor,
precision, spectrum, no table, behind the end
""".replace("\n", " ")
    .strip()
    .split(", ")
)


@dataclass
class _Plan:
    """What the file shall be."""

    width: int
    height: int
    factors: tuple[int, ...]
    interval: int
    separate: bool  # a scan for each component
    fault: str


def written(case: int) -> bytes:
    """The bytes of a file: of three one is progressive."""
    from benchmarks.torture.jpeg_progression import progression

    if case % 3 == 2:
        return progression(case)
    rng = np.random.default_rng([0x4752, case])
    grey = rng.random() < 0.25
    samplings = _SAMPLINGS if rng.random() < 0.85 else _ODD_SAMPLINGS
    factors = (
        (int(rng.choice([0x11, 0x11, 0x22, 0x41])),) if grey else samplings[rng.integers(len(samplings))]
    )
    width, height = rng.integers(1, 41, 2).tolist()
    interval = int(rng.choice([0, 0, 0, 1, 2, 3, 7]))
    fault = _FAULTS[rng.integers(len(_FAULTS))] if rng.random() < 0.4 else ""
    return _file(_Plan(width, height, factors, interval, rng.random() < 0.1, fault), rng)


def _file(plan: _Plan, rng: Rng) -> bytes:
    count = len(plan.factors)
    names = [(1, 2, 3), (0, 1, 2), (7, 8, 9), (82, 71, 66), (1, 1, 2)][
        int(rng.choice(5, p=[0.8, 0.1, 0.04, 0.03, 0.03]))
    ]
    tables = [_codes(rng, kind, plan.fault) for kind in (0, 0, 1, 1)]
    chosen = rng.integers(0, 2, (count, 3))  # of quantisation, DC and AC tables
    head = [*steps(rng, plan.fault), *(table(n // 2, n % 2, tables[n], rng) for n in range(4))]
    if plan.fault == "no table":
        head.pop(int(rng.integers(len(head))))
    if plan.interval:
        head.append(segment(0xDD, plan.interval.to_bytes(2, "big"), plan.fault == "interval length"))
    frame = _frame(plan, names, chosen, rng)
    head += [frame] * (2 if plan.fault == "twice the frame" else 1)
    head = [head[n] for n in rng.permutation(len(head))]
    parts = [b"\xff\xd8", *applications(rng), *head]
    if plan.fault == "second start":
        parts.insert(int(rng.integers(1, len(parts))), b"\xff\xd8")
    if rng.random() < 0.1:
        parts.insert(int(rng.integers(1, len(parts))), b"\xff" * int(rng.integers(1, 3)))
    for scan in [(c,) for c in range(count)] if plan.separate else [tuple(range(count))]:
        parts += [_scan_header(plan, scan, names, chosen, rng), _scan(plan, scan, (tables, chosen), rng)]
    return b"".join([*parts, *_ending(plan.fault, head, rng)])


def _ending(fault: str, head: list[bytes], rng: Rng) -> list[bytes]:
    if fault == "no end":
        return []
    if fault == "bytes before the end":
        return [rng.integers(0, 255, 5, np.uint8).tobytes(), b"\xff\xd9"]
    if fault == "segment behind":
        return [head[rng.integers(len(head))], b"\xff\xd9"]
    if fault == "behind the end":
        return [b"\xff\xd9", rng.bytes(9), b"\xff\xd9" * int(rng.integers(2))]
    return [b"\xff\xd9"]


def segment(marker: int, body: bytes, wrong: bool = False) -> bytes:
    """With `wrong` a byte too long, which it has."""
    body += b"\0" * wrong
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def applications(rng: Rng) -> list[bytes]:
    """What says how colours are meant, and what says nothing."""
    kinds = [
        (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        (0xE0, b"JFIF\0\2\0\0\0\1\0\1\0\0"),
        (0xE0, b"JFIF\0"),
        (0xE0, b"JFXX\0\x10"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\1"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\2"),
        (0xEE, b"Adobe"),
        (0xFE, b"\xff\xd8\xff\xda"),
        (0xFE, b""),
        (0xE5, bytes(40)),
    ]
    if rng.random() < 0.6:
        return [segment(*kinds[0])]
    return [segment(*kinds[n]) for n in rng.integers(0, len(kinds), rng.integers(0, 4))]


def steps(rng: Rng, fault: str) -> list[bytes]:
    """Two quantisation tables of 8 or 16 bits, in a segment each."""
    found = []
    for number in range(2):
        wide = int(rng.random() < 0.15)
        most = int(rng.choice([2, 12, 60, 256, 65536 if wide else 256]))
        steps = rng.integers(0 if rng.random() < 0.1 else 1, most, 64)
        number = 4 if fault == "table number" and number else number
        found.append(
            segment(0xDB, bytes((wide << 4 | number,)) + steps.astype(">u2" if wide else "u1").tobytes())
        )
    return found


Codes = dict[int, tuple[int, int]]
"""(code, its bits) by symbol; in the order of a file."""


def _codes(rng: Rng, kind: int, fault: str) -> Codes:
    """Codes for a table of a baseline file."""
    if kind == 0:
        symbols = list(range(int(rng.choice([9, 12, 16], p=[0.5, 0.4, 0.1]))))
        if fault == "dc symbol":
            symbols[-1] = 0x80
    else:
        most = int(rng.choice([4, 7, 11, 16], p=[0.5, 0.3, 0.15, 0.05]))
        symbols = [0, 0xF0, *(run << 4 | size for run in (0, 1, 2, 5, 15) for size in range(1, most))]
    return coded(symbols, rng, fault == "ones" and kind == 0)


def coded(symbols: list[int], rng: Rng, ones: bool = False) -> Codes:
    """A complete set of codes for some symbols, of random lengths; with `ones` one is of ones alone."""
    symbols = [symbols[n] for n in rng.permutation(len(symbols))]
    lengths = [1, 1] if ones else [1, 2, 2]  # the last is of ones alone, and is taken away
    while len(lengths) < len(symbols) + (not ones):
        usable = [n for n, length in enumerate(lengths) if length < 16]
        at = usable[int(rng.integers(len(usable)) * rng.random())]
        lengths[at : at + 1] = [lengths[at] + 1] * 2
    lengths = sorted(lengths)[: len(symbols)]
    codes, code, before = {}, 0, lengths[0]
    for symbol, length in zip(symbols, lengths, strict=True):
        code, before = code << (length - before), length
        codes[symbol] = code, length
        code += 1
    return codes


def table(kind: int, number: int, codes: Codes, rng: Rng) -> bytes:
    counts = [sum(bits == length for _, bits in codes.values()) for length in range(1, 17)]
    return segment(0xC4, bytes((kind << 4 | number, *counts, *codes)))


def _frame(plan: _Plan, names: tuple[int, ...], chosen: np.ndarray, rng: Rng) -> bytes:
    fault, height = plan.fault, plan.height
    factors = list(plan.factors)
    if fault == "factor":
        factors[-1] = int(rng.choice([0x01, 0x10, 0x51, 0x31, 0x44]))
    if fault == "height":
        height = int(rng.choice([0, 2 * height]))
    body = (
        bytes((12 if fault == "precision" else 8,))
        + height.to_bytes(2, "big")
        + plan.width.to_bytes(2, "big")
    )
    body += bytes((len(factors),))
    for c, factor in enumerate(factors):
        body += bytes((names[c], factor, int(chosen[c, 0])))
    return segment(0xC0 + int(rng.random() < 0.2), body, fault == "frame length")


def _scan_header(
    plan: _Plan, scan: tuple[int, ...], names: tuple[int, ...], chosen: np.ndarray, rng: Rng
) -> bytes:
    body = bytes((len(scan),))
    for c in scan:
        name = names[c] + 5 if plan.fault == "component" else names[c]
        body += bytes((name, int(chosen[c, 1]) << 4 | int(chosen[c, 2])))
    spectrum = (
        bytes(rng.choice([0, 1, 5, 62, 63, 64], 3).tolist()) if plan.fault == "spectrum" else b"\0\x3f\0"
    )
    return segment(0xDA, body + spectrum, plan.fault == "scan length")


def _scan(plan: _Plan, scan: tuple[int, ...], about: tuple[list[Codes], np.ndarray], rng: Rng) -> bytes:
    """Entropy-coded data of all units, with their restart markers."""
    tables, chosen = about
    across, down = max(f >> 4 for f in plan.factors), max(f & 15 for f in plan.factors)
    if len(scan) > 1:
        blocks = [c for c in scan for _ in range((plan.factors[c] >> 4) * (plan.factors[c] & 15))]
        units = -(-plan.width // (8 * across)) * -(-plan.height // (8 * down))
    else:
        blocks, factor = [scan[0]], plan.factors[scan[0]]
        wide, tall = -(-plan.width * (factor >> 4) // across), -(-plan.height * (factor & 15) // down)
        units = -(-wide // 8) * -(-tall // 8)
    bold = rng.random() < 0.15  # levels that go far
    parts, bits, marker = [], "", 0
    stop = int(rng.integers(units)) if plan.fault == "early end" else units
    for unit in range(stop):
        if plan.interval and unit and unit % plan.interval == 0:
            parts.append(packed(bits, rng))
            parts.append(_restart(plan.fault, marker, rng))
            bits, marker = "", (marker + 1) & 7
        for c in blocks:
            bits += _block(tables[chosen[c, 1]], tables[2 + chosen[c, 2]], bold, rng)
    data = b"".join([*parts, packed(bits, rng)])
    odd = {
        "restart amid": b"\xff\xd0",
        "marker in data": bytes((0xFF, int(rng.integers(1, 255)))),
        "fill bytes in data": b"\xff\xff\0",
    }
    if plan.fault in odd:
        at = int(rng.integers(len(data) + 1))
        data = data[:at] + odd[plan.fault] + data[at:]
    return data


def _restart(fault: str, marker: int, rng: Rng) -> bytes:
    if fault == "restart missing" and rng.random() < 0.3:
        return b""
    if fault == "restart number" and rng.random() < 0.3:
        marker = int(rng.integers(8))
    return bytes((0xFF, 0xD0 + marker))


def packed(bits: str, rng: Rng) -> bytes:
    """Bits to bytes: the last is filled with ones, as it should be, or with zeros; 00 follows FF."""
    bits += ("1" if rng.random() < 0.8 else "0") * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _block(dc: Codes, ac: Codes, bold: bool, rng: Rng) -> str:
    """Bits of a block: a difference, then a few values; now and then past the 63rd."""
    draws = rng.random(24)
    symbols, k = list(ac), 1
    sizes = [s for s in dc if bold or s < 8]
    found = _coded(dc, sizes[int(draws[0] * len(sizes))], 15, draws[1])
    for n in range(2, 2 + 2 * int(draws[23] ** 2 * 10), 2):
        symbol = symbols[int(draws[n] * len(symbols))]
        if symbol == 0 or k > 63 or (k + (symbol >> 4) > 63 and draws[22] < 0.98):
            break
        if not bold and (symbol & 15) > 6:
            continue
        found += _coded(ac, symbol, 15, draws[n + 1])
        k += (symbol >> 4) + 1
    return found + (_coded(ac, 0, 0, 0) if k < 64 else "")


def _coded(codes: Codes, symbol: int, mask: int, draw: float) -> str:
    """A symbol's code, and a value of its size."""
    (code, length), size = codes[symbol], symbol & mask
    return f"{code:0{length}b}" + (f"{int(draw * (1 << size)):0{size}b}" if size else "")
