"""Damaged JPEGs in compiled loops that check every access to an array, in memory that ends where it ends.

numba checks the bounds of arrays when it is told so before it compiles: in a process of its own. What reads
and writes by addresses (`kernels/vectors.py`) it cannot check: so the file and every array of scratch lie
against a page that nobody may touch, and scratch is no larger than the photo needs. An access beyond either
ends the process.
"""

import ctypes
import json
import mmap
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture.jpeg import header_of
from benchmarks.torture.jpeg_grammar import written
from benchmarks.torture.jpeg_mutants import mutant
from benchmarks.torture.trial import Tally, Trial

_NO_ACCESS = 0
_LONGEST = 512


def _run(cases: range, folder: Path) -> Tally:
    if not cases:
        return Tally()
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-m", __name__, f"{cases.start}:{cases.stop}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return Tally(len(cases), [f"{cases.start}: ended with exit code {done.returncode}: {said}"])
    return Tally(**json.loads(done.stdout.splitlines()[-1]))


def _guarded(array: np.ndarray) -> np.ndarray:
    """A copy whose last byte is the last before a page that nobody may touch."""
    page, size = mmap.PAGESIZE, array.nbytes
    room = -(-size // page) * page
    memory = np.frombuffer(mmap.mmap(-1, room + page), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(memory.ctypes.data + room), ctypes.c_size_t(page), _NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = memory[room - size : room].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _all_guarded(scratch: Any) -> Any:
    """A named tuple of arrays, and of such tuples, with each of them guarded."""
    parts = (_guarded(part) if isinstance(part, np.ndarray) else _all_guarded(part) for part in scratch)
    return type(scratch)(*parts)


def _checked(cases: range) -> Tally:
    """All steps on each file, from a window of it to a square of few pixels."""
    from flowerfast.kernels import End
    from flowerfast.kernels.chain import Steps, make_scratch, need_of, run

    tally = Tally()
    for case in cases:
        tally.tried += 1
        data = written(case) if case % 3 == 0 else mutant(case)
        header = header_of(data)
        if header is None or max(header.width, header.height) > _LONGEST:
            tally.count("refused by their header")
            continue
        rng = np.random.default_rng([0xB0, case])
        orientation, side = int(rng.integers(1, 9)), int(rng.choice([1, 7, 32, 61]))
        tall, wide = header.height, header.width
        if orientation > 4:
            tall, wide = wide, tall
        height, width = rng.integers(1, [tall + 1, wide + 1]).tolist()
        top, left = rng.integers(0, [tall - height + 1, wide - width + 1]).tolist()
        flip, first, angle = bool(rng.integers(2)), bool(rng.integers(2)), float(rng.choice([0, 9.5, -15]))
        window = (1, tall, wide, top, left, height, width, side, side, 0, 0)
        numbers = (*window, flip, angle, 1.2, 0.8, first, 1, -1)
        steps = Steps(*(np.array([n], np.float32 if isinstance(n, float) else None) for n in numbers))
        file, out = _guarded(np.frombuffer(data, np.uint8)), _guarded(np.zeros((1, side, side, 3), np.uint8))
        where = np.array([file.ctypes.data]), np.array([len(file)]), np.array([orientation])
        scratch = _all_guarded(make_scratch(need_of(steps, *where[1:], side)))
        try:
            done = run(*where, np.zeros(1, np.int64), steps, scratch, out, int(End.all))
        except IndexError as error:
            tally.fail(case, f"an access beyond an array: {error}")
        else:
            tally.count("decoded" if done[0] else "left to another decoder")
    return tally


BOUNDS = Trial(
    "jpeg-bounds",
    "no JPEG makes the compiled loops reach beyond an array or a file",
    "JPEGs with checks of bounds",
    _run,
    full=12_000,
    quick=0,  # compiled anew, which takes a minute; tests/kernels/test_jpeg.py tries the decoder alone so
    chunk=6_000,
    seconds=1200.0,
)

if __name__ == "__main__":
    first, last = map(int, sys.argv[1].split(":"))
    print(json.dumps(asdict(_checked(range(first, last)))))
