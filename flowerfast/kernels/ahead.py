"""Every compiled function that Python calls, loaded or compiled before it is needed.

`python -m flowerfast.kernels.ahead` compiles them into the cache folder. It ends when its standard input
does, so with the process that started it, however that ends. What it has compiled by then is kept, one
function after the other, and the next such process goes on from there.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from flowerfast.errors import UserError
from flowerfast.kernels import End
from flowerfast.kernels.chain import Need, Steps, make_scratch, run
from flowerfast.kernels.files import read_files, read_pieces
from flowerfast.kernels.finish import FinishSteps, finish
from flowerfast.kernels.heads import read_heads
from flowerfast.kernels.place import CODE
from flowerfast.locks import only_writer

_LOOK = 0.5  # seconds between two looks whether another process still compiles
_MOST_LOOKS = 1200
_FLAGS, _REALS = ("flip", "contrast_first"), ("angle", "brightness", "contrast")  # columns of `Steps`
_FINISH = {  # dtypes and dimensions of `FinishSteps` that are not int64 (n,)
    "vflip": (np.bool_, 1),
    "saturation": (np.float32, 1),
    "grey": (np.bool_, 1),
    "operation": (np.int64, 2),
    "amount": (np.float64, 2),
    "path": (np.int64, 3),
    "taps": (np.int32, 2),
}


def calls() -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The functions, each with arguments of the types that it is called with, of no samples."""
    none, no_bytes = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    fixed, fixed_ends, sides = no_bytes.view(), none.view(), np.zeros(0, np.int32)
    fixed.flags.writeable = fixed_ends.flags.writeable = False
    at = np.zeros(1, np.int64)
    yield read_files, (fixed, fixed, fixed_ends, none, at, no_bytes, sides, sides)
    yield read_heads, (fixed, fixed, fixed_ends, none, none)
    yield read_pieces, (none, none, at, no_bytes, sides, sides)
    finishing = (_FINISH.get(name, (np.int64, 1)) for name in FinishSteps._fields)
    finish_steps = FinishSteps(*(np.zeros([0] * ndim, kind) for kind, ndim in finishing))
    yield finish, (np.zeros((0, 1, 1, 3), np.uint8), none, finish_steps)
    kinds = {**dict.fromkeys(_FLAGS, np.bool_), **dict.fromkeys(_REALS, np.float32)}
    steps = Steps(*(np.zeros(0, kinds.get(name, np.int64)) for name in Steps._fields))
    scratch = make_scratch(Need(*[1] * len(Need._fields)))
    yield run, (none, none, none, none, steps, scratch, np.zeros((0, 1, 1, 3), np.uint8), int(End.all))


def prepare() -> None:
    """Load them all, and compile what is not kept; within `machine_code.only_loading` Missing is raised."""
    for function, arguments in calls():
        function(*arguments)


def main() -> None:
    """Compile, behind everything else that the machine does, and after another process that does the same."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):  # Windows: the parent has seen to it
        os.nice(19)
    for _ in range(_MOST_LOOKS):
        try:
            with only_writer(CODE / "compiling", "wait"):
                return prepare()  # loads what the other one has left
        except UserError:
            time.sleep(_LOOK)
    return prepare()  # the other one hangs


def _end_with_parent() -> None:
    os.read(0, 1)  # of sys.stdin it would hold the lock, which Python asks for when it ends
    os._exit(1)


if __name__ == "__main__":
    main()
