"""Damaged and odd JPEGs: what the reference refuses is bad, what it accepts has the reference's pixels.

The reference is Pillow alone. Each file goes the way of a photo: its header is read as the scan reads it,
then it is decoded by `decode` and by the compiled loops, whole and in a window that is turned.
"""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.torture.jpeg_grammar import written
from benchmarks.torture.jpeg_mutants import mutant
from benchmarks.torture.trial import Tally, Trial
from flowerfast.kernels import End
from flowerfast.kernels.chain import Need, Steps, make_scratch, need_of, run
from flowerfast.machine import ignore_warnings
from flowerfast.photos.decode import DecodeError, decode
from flowerfast.photos.formats import FORMATS, PILLOW
from flowerfast.photos.header import Header, read_header
from flowerfast.photos.orientation import turn

MAX_PIXELS = 1 << 18
"""As in the settings: what says that it has more is refused by its header."""
_SIDE, _LONGEST = 128, 2048
_TOGETHER = 64  # files in one call of the compiled loops
_HANG = 2.0  # seconds

Make = Callable[[int], bytes]
_Window = tuple[tuple[int, int], int, int, int, int]
_Row = tuple[int, np.ndarray, int, _Window]  # the case, its file, orientation and window


def reference(data: bytes) -> np.ndarray | None:
    """Pillow's pixels, uint8 (h, w, 3); None: it refuses the file."""
    ignore_warnings(module=PILLOW)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return np.array(image.convert("RGB"))
    except Exception:
        return None


def header_of(data: bytes) -> Header | None:
    """What the scan of a folder finds; None: it calls the file bad."""
    try:
        return read_header(io.BytesIO(data), MAX_PIXELS)
    except (OSError, ValueError):
        return None


def judge(cases: range, make: Make) -> Tally:
    """What comes of the files `make` makes of numbers."""
    tally = Tally()
    _run_compiled([])  # compiles them
    for start in range(cases.start, cases.stop, _TOGETHER):
        some = range(start, min(start + _TOGETHER, cases.stop))
        files = {case: make(case) for case in some}
        expected = dict(_expected(files, tally))
        if expected:
            _check_compiled(files, expected, tally)
        tally.tried += len(some)
    return tally


def _expected(
    files: dict[int, bytes], tally: Tally
) -> Iterator[tuple[int, tuple[Header, np.ndarray | None]]]:
    """The reference's pixels of the files that pass the scan; `decode` must have the same."""
    for case, data in files.items():
        header = header_of(data)
        if header is None or max(header.width, header.height) > _LONGEST:
            tally.count("refused by their header")
            continue
        pixels, since = reference(data), time.thread_time()
        try:
            found = decode(np.frombuffer(data, np.uint8), header.width, header.height)
        except DecodeError:
            found = None
        if time.thread_time() - since > _HANG:
            tally.fail(case, "decode hung")
        tally.count("refused" if pixels is None else "accepted")
        if problem := _difference(found, pixels):
            tally.fail(case, f"decode: {problem}")
        yield case, (header, pixels)


def _difference(found: np.ndarray | None, expected: np.ndarray | None) -> str | None:
    if expected is None:
        return None if found is None else "accepts what the reference refuses"
    if found is None:
        return "refuses what the reference accepts"
    if found.shape != expected.shape:
        return f"is {found.shape}, not {expected.shape}"
    wrong = int((found != expected).any(2).sum())
    return f"{wrong} pixels differ" if wrong else None


def _check_compiled(
    files: dict[int, bytes],
    expected: dict[int, tuple[Header, np.ndarray | None]],
    tally: Tally,
) -> None:
    """The compiled loops on each file as a whole and in a turned window."""
    rows: list[_Row] = []
    for case, (header, _) in expected.items():
        for turned in (False, True):
            rows.append((case, np.frombuffer(files[case], np.uint8), *_window(case, header, turned)))
    since = time.thread_time()
    done, out = _run_compiled(rows)
    if time.thread_time() - since > _HANG:
        tally.fail(rows[0][0], "the compiled loops hung, in this file or one of those tried with it")
    for (case, _, turned, (_, top, left, height, width)), good, found in zip(
        rows, done.tolist(), out, strict=True
    ):
        tally.count("windows decoded by the compiled loops" if good else "windows left by them")
        _, pixels = expected[case]
        if pixels is not None:
            pixels = turn(pixels, turned)[top : top + height, left : left + width]
        if not good:
            continue
        if problem := _difference(found[:height, :width], pixels):
            tally.fail(case, f"compiled, {(turned, top, left, height, width)}: {problem}")


def _window(case: int, header: Header, turned: bool) -> tuple[int, _Window]:
    """Orientation, then the upright photo's (height, width) and a window of it that fits the square."""
    rng = np.random.default_rng([0x57, case])
    orientation = int(rng.integers(1, 9)) if turned else 1
    tall, wide = header.height, header.width
    if orientation > 4:
        tall, wide = wide, tall
    height, width = min(tall, _SIDE), min(wide, _SIDE)
    if turned:
        height, width = rng.integers(1, [height + 1, width + 1]).tolist()
    top, left = rng.integers(0, [tall - height + 1, wide - width + 1]).tolist()
    return orientation, ((tall, wide), top, left, height, width)


def _run_compiled(rows: list[_Row]) -> tuple[np.ndarray, np.ndarray]:
    """Which windows were decoded, bool (n,), and squares that begin with them, uint8 (n, S, S, 3)."""
    n = len(rows)
    address = np.array([row[1].ctypes.data for row in rows], np.int64)
    length = np.array([len(row[1]) for row in rows], np.int64)
    orientation = np.array([row[2] for row in rows], np.int64)
    numbers = np.array([(*row[3][0], *row[3][1:], *row[3][3:]) for row in rows], np.int64).reshape(n, 8)
    none, one, same = np.zeros(n, np.int64), np.ones(n, np.int64), np.ones(n, np.float32)
    off, level, columns = np.zeros(n, np.bool_), np.zeros(n, np.float32), list(numbers.T.copy())
    steps = Steps(one, *columns, none, none, off, level, same, same, off, none, none)
    out = np.empty((n, _SIDE, _SIDE, 3), np.uint8)
    scratch = make_scratch(
        need_of(steps, length, orientation, _SIDE) if rows else Need(*[_SIDE] * len(Need._fields))
    )
    return run(address, length, orientation, np.arange(n), steps, scratch, out, int(End.all)), out


def _mutants(cases: range, _folder: Path) -> Tally:
    return judge(cases, mutant)


MUTANTS = Trial(
    "jpeg-mutants",
    "a damaged JPEG has the reference's pixels, or is refused as the reference refuses it",
    "damaged JPEGs",
    _mutants,
    full=500_000,
    quick=10_000,
    chunk=25_000,
)


def _written(cases: range, _folder: Path) -> Tally:
    return judge(cases, written)


WRITTEN = Trial(
    "jpeg-grammar",
    "a JPEG of the grammar, with or without a fault, has the reference's pixels, or is refused as there",
    "JPEGs",
    _written,
    full=50_000,
    quick=1_000,
    chunk=5_000,
)
