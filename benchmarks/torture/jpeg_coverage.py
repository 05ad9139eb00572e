"""Which branches of the JPEG decoder the files of the trials take: its loops run by Python, line by line.

Those left: coverage run --branch --include='*/kernels/jpeg_*' -m benchmarks.torture.jpeg_coverage 900,
then coverage report -m.
"""

import ctypes
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np

from benchmarks.torture.jpeg_grammar import written
from benchmarks.torture.jpeg_mutants import mutant
from benchmarks.torture.jpeg_progression import progression
from benchmarks.torture.trial import MOST, Tally, Trial

_LONGEST = 40  # pixels a side: Python takes its time
_ENOUGH = 98.0  # percent of lines and branches


def _uncompiled(**_: object) -> Callable[[Any], Any]:
    """What `numba.njit` gives, without compiling anything."""

    def leave(function: Any) -> Any:
        function._cache = SimpleNamespace(cache_path=".", _impl=SimpleNamespace(filename_base=""))
        return function

    return leave


def _load_big_endian(address: int) -> np.uint64:
    return np.uint64(int.from_bytes(ctypes.string_at(int(address), 8), "big"))


def _loader(kind: type[np.number]) -> Callable[[int], np.number]:
    return lambda address: np.frombuffer(ctypes.string_at(int(address), kind().nbytes), kind)[0]


def _count_trailing_zeros(word: int) -> np.uint64:
    return np.uint64((int(word) & -int(word)).bit_length() - 1)


def _find_ones(address: int) -> np.uint64:
    return np.uint64(sum(1 << n for n, byte in enumerate(ctypes.string_at(int(address), 32)) if byte == 0xFF))


def _copy_and_find_ones(source: int, target: int) -> np.uint64:
    ones = _find_ones(source)
    ctypes.memmove(int(target), int(source), 32)
    return ones


def _store_int16(value: np.int16, address: int) -> None:
    ctypes.memmove(int(address), np.int16(value).tobytes(), 2)


def _row(address: int, count: int = 16) -> np.ndarray:
    return np.frombuffer(ctypes.string_at(int(address), count), np.uint8).astype(np.int64)


def _double_sixteen(near: int, far: int, down: int, out: int) -> None:
    rows = _row(near - 1, 18)
    rows = 3 * rows + _row(far - 1, 18) if down == 2 else rows
    bits, even, odd = (4, 8, 7) if down == 2 else (2, 1, 2)
    pairs = (3 * rows[1:-1] + rows[:-2] + even) >> bits, (3 * rows[1:-1] + rows[2:] + odd) >> bits
    ctypes.memmove(int(out), np.stack(pairs, 1).astype(np.uint8).tobytes(), 32)


def _colour_sixteen(luma: int, blue: int, red: int, out: int) -> None:
    level, b, r = _row(luma), _row(blue) - 128, _row(red) - 128
    sums = 91881 * r, -22554 * b - 46802 * r, 116130 * b
    pixels = [np.clip(level + ((each + 32768) >> 16), 0, 255) for each in sums]
    ctypes.memmove(int(out), np.stack([*pixels, 0 * level], 1).astype(np.uint8).tobytes(), 64)


def _transform(s: np.ndarray, shift: int) -> np.ndarray:
    """One pass along the first axis, int64 (8, ...), as `transform_lines` has it."""
    half = 1 << (shift - 1)
    e0, e1 = ((s[0] + s[4]) << 13) + half, ((s[0] - s[4]) << 13) + half
    e2, e3 = 4433 * s[2] - 10704 * s[6], 10703 * s[2] + 4433 * s[6]
    even = np.stack([e0 + e3, e1 + e2, e1 - e2, e0 - e3])
    z3, z4 = -6436 * (s[7] + s[3]) + 9633 * (s[1] + s[5]), 9633 * (s[7] + s[3]) + 6437 * (s[1] + s[5])
    odd = np.stack(
        [
            -7373 * s[7] + 4926 * s[1] + z4,
            4177 * s[3] - 20995 * s[5] + z3,
            -20995 * s[3] - 4176 * s[5] + z4,
            -4927 * s[7] - 7373 * s[1] + z3,
        ]
    )
    return np.concatenate([even + odd, (even - odd)[::-1]]) >> shift


def _transform_eight(work: int, out: int, pitch: int) -> int:
    stored = np.frombuffer(ctypes.string_at(int(work), 1024), np.int16).reshape(8, 4, 8, 2).astype(np.int64)
    rows = np.empty((8, 8, 8), np.int64)  # by row, column and block
    for pair, both in enumerate(((0, 4), (2, 6), (7, 1), (3, 5))):
        for half, row in enumerate(both):
            rows[row] = stored[:, pair, :, half]
    first = _transform(rows, 11)
    levels = np.clip(_transform(first.transpose(1, 0, 2), 18) + 128, 0, 255)  # by column, row and block
    for row in range(8):
        ctypes.memmove(int(out) + row * int(pitch), levels[:, row].T.astype(np.uint8).tobytes(), 64)
    return int(np.abs(first).max() < 1 << 14)


_STAND_INS: dict[str, Callable[..., Any]] = {
    "load_big_endian": _load_big_endian,
    **{
        f"load_{kind.__name__}": _loader(kind) for kind in (np.uint8, np.uint16, np.int16, np.int32, np.int64)
    },
    "count_trailing_zeros": _count_trailing_zeros,
    "find_ones": _find_ones,
    "copy_and_find_ones": _copy_and_find_ones,
    "store_int16": _store_int16,
    "double_sixteen": _double_sixteen,
    "colour_sixteen": _colour_sixteen,
    "transform_eight": _transform_eight,
}
"""For the functions of `kernels.vectors`, which only compiled code can call."""


def _decode(data: np.ndarray, case: int) -> bool:
    """A window of a file, as `kernels.chain` decodes it."""
    from flowerfast.kernels import jpeg_blocks, jpeg_header, jpeg_planes, jpeg_rows, jpeg_tables

    tables, rng = jpeg_tables.make_tables(), np.random.default_rng([0xC0, case])
    frame = tables.frame[0]
    if not jpeg_header.read_header(data, tables) or max(frame.width, frame.height) > _LONGEST:
        return False
    shrink = int(rng.choice([1, 1, 1, 2, 4, 8])) if frame.across == frame.down else 1
    tall, wide = -(-int(frame.height) // shrink), -(-int(frame.width) // shrink)
    height, width = rng.integers(1, [tall + 1, wide + 1]).tolist()
    top, left = rng.integers(0, [tall - height + 1, wide - width + 1]).tolist()
    region = jpeg_blocks.region_of(frame, shrink, top, left, height, width)
    room, chroma = jpeg_planes.make_room(data, frame, region), np.zeros((3, width + 64), np.uint8)
    if not jpeg_planes.read_planes(data, tables, region, room):
        return False
    window, band = (top, left, height, width), np.empty((jpeg_rows.BAND, width), np.uint32)
    out = np.empty(height * width, np.uint32)
    jpeg_rows.turned_rows(room.planes, region, window, int(rng.integers(2, 9)), chroma, band, out)
    return True


def main() -> None:
    """Decode the first files of both trials."""
    numba.njit = _uncompiled
    names = ("blocks", "codes", "header", "markers", "planes", "progressive", "rows", "scan", "tables")
    modules = {name: import_module(f"flowerfast.kernels.jpeg_{name}") for name in (*names, "transform")}
    for module in modules.values():
        vars(module).update({name: _STAND_INS[name] for name in _STAND_INS.keys() & vars(module).keys()})
    record = np.dtype((np.record, modules["tables"].FRAME))  # fields as attributes
    modules["header"].FRAME = modules["tables"].FRAME = record
    warnings.simplefilter("ignore")  # numbers of fixed width run over, as they do when compiled
    for case in range(int(sys.argv[1])):
        file = (mutant, written, progression)[case % 3](case // 3)
        data = np.frombuffer(file, np.uint8)
        _decode(data, case)
        modules["header"].is_plain(data, 33, 24)


def _run(cases: range, folder: Path) -> Tally:
    tally = Tally(len(cases))
    if not cases:
        return tally
    coverage, data, report = (sys.executable, "-m", "coverage"), folder / "data", folder / "report.json"
    only = ("--branch", "--include=*/kernels/jpeg_*", f"--data-file={data}")
    subprocess.run([*coverage, "run", *only, "-m", __name__, str(len(cases))], check=True)
    subprocess.run([*coverage, "json", "-q", f"--data-file={data}", "-o", report], check=True)
    totals = json.loads(report.read_text(encoding="utf-8"))["totals"]
    for name in ("num_branches", "covered_branches", "num_statements", "covered_lines"):
        tally.count(f"{MOST}{name.replace('_', ' ')}", totals[name])
    if totals["percent_covered"] < _ENOUGH:
        tally.fail(0, f"{totals['percent_covered']:.1f} % of lines and branches")
    return tally


COVERAGE = Trial(
    "jpeg-coverage",
    f"the files of these trials reach {_ENOUGH:g} % of the lines and branches of the compiled decoder",
    "JPEGs decoded line by line",
    _run,
    full=900,
    quick=0,  # minutes
    chunk=900,
)

if __name__ == "__main__":
    main()
