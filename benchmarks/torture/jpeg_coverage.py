"""Which branches of the JPEG decoder the files of the trials take: its loops run by Python, line by line.

pip install coverage
coverage run --branch --include='*/kernels/jpeg_*' -m benchmarks.torture.jpeg_coverage [FILES]
coverage report -m
"""

import ctypes
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np

from benchmarks.torture.jpeg_grammar import written
from benchmarks.torture.jpeg_mutants import mutant

_LONGEST = 40  # pixels a side: Python takes its time


def _uncompiled(**_: object) -> Callable[[Any], Any]:
    """What `numba.njit` gives, without compiling anything."""

    def leave(function: Any) -> Any:
        function._cache = SimpleNamespace()
        return function

    return leave


def _load_big_endian(address: int) -> np.uint64:
    return np.uint64(int.from_bytes(ctypes.string_at(int(address), 8), "big"))


def _store_transposed(source: int, out: int) -> None:
    square = np.frombuffer(ctypes.string_at(int(source), 64), np.uint8).reshape(8, 8)
    ctypes.memmove(int(out), square.T.tobytes(), 64)


def _decode(data: np.ndarray, case: int) -> bool:
    """A window of a file, as `kernels.chain` decodes it."""
    from flowerfast.kernels import jpeg_header, jpeg_rows, jpeg_scan, jpeg_tables

    tables, rng = jpeg_tables.make_tables(), np.random.default_rng([0xC0, case])
    frame = tables.frame[0]
    if not jpeg_header.read_header(data, tables) or max(frame.width, frame.height) > _LONGEST:
        return False
    shrink = int(rng.choice([1, 1, 1, 2, 4, 8])) if frame.across == frame.down else 1
    tall, wide = -(-int(frame.height) // shrink), -(-int(frame.width) // shrink)
    height, width = rng.integers(1, [tall + 1, wide + 1]).tolist()
    top, left = rng.integers(0, [tall - height + 1, wide - width + 1]).tolist()
    region = jpeg_scan.region_of(frame, shrink, top, left, height, width)
    coefficients = np.empty(jpeg_scan.coefficient_count(frame, region), np.int32)
    planes, chroma = np.empty(region.size, np.uint8), np.zeros((4, width + 16), np.int32)
    if not jpeg_scan.read_planes(data, tables, region, coefficients, planes):
        return False
    window, band = (top, left, height, width), np.empty((jpeg_rows.BAND, width), np.uint32)
    out = np.empty(height * width, np.uint32)
    jpeg_rows.turned_rows(planes, region, window, int(rng.integers(2, 9)), chroma, band, out)
    return True


def main() -> None:
    """Decode the first files of both trials."""
    numba.njit = _uncompiled
    from flowerfast.kernels import jpeg_header, jpeg_markers, jpeg_scan, jpeg_tables, jpeg_transform

    jpeg_header.FRAME = jpeg_tables.FRAME = np.dtype((np.record, jpeg_tables.FRAME))  # fields as attributes
    jpeg_markers.load_big_endian = jpeg_scan.load_big_endian = _load_big_endian
    jpeg_transform.store_transposed = _store_transposed
    warnings.simplefilter("ignore")  # numbers of fixed width run over, as they do when compiled
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    decoded = 0
    for case in range(count):
        file = written(case // 2) if case % 2 else mutant(case // 2)
        data = np.frombuffer(file, np.uint8)
        decoded += _decode(data, case)
        jpeg_header.is_plain(data, 33, 24)
    print(f"{count} files, {decoded} of them decoded")


if __name__ == "__main__":
    main()
