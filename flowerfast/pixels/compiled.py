"""CPU executor in compiled loops: the pixels of the reference, in less than half its time.

Several samples go through in one call that does not hold the interpreter lock, so threads are enough on any
number of cores. JPEGs of the usual kinds, which nearly all photos are, are decoded on the way, and only what
the crop needs of them; everything else is decoded as the reference does.
"""

import threading
from typing import Protocol

import numpy as np

from flowerfast.kernels import End
from flowerfast.kernels.chain import Need, Scratch, Steps, make_scratch, need_of, run
from flowerfast.photos.decode import DecodeError
from flowerfast.pixels.finish import finish_rows
from flowerfast.pixels.reference import resize
from flowerfast.pixels.source import Source
from flowerfast.plans.plan import Plan


class Origin(Protocol):
    """What the executor asks of the set of photos that plans speak of; see `Photos`."""

    def orientations(self, indices: np.ndarray) -> np.ndarray:
        """How photos are turned: int64 (m,)."""
        ...

    def decode(self, index: int, encoded: np.ndarray, *, shrink: int) -> np.ndarray:
        """Pixels of a photo from its bytes: uint8 (h, w, 3). Raises DecodeError."""
        ...


class CompiledExecutor:
    """Executes plans in compiled loops on the calling thread. See `Executor` for the contract.

    Args:
        photos: the set that plans speak of.
        source: gives the photos.
    """

    def __init__(self, photos: Origin, source: Source) -> None:
        self.source, self._photos = source, photos
        self._local = threading.local()

    def fill(self, plan: Plan, rows: np.ndarray, span: range, until: End = End.all) -> dict[int, str]:
        """Pixels of some samples into `rows`, uint8 (n, S, S, 3); why rows failed."""
        failed: dict[int, str] = {}
        if until is End.read and self.source.is_decoded:
            return failed
        files: dict[int, np.ndarray] = {}
        pixels: dict[int, np.ndarray] = {}
        for row, photo in zip(span, self.source.fetch(plan.indices[span.start : span.stop]), strict=True):
            if isinstance(photo, str):
                failed[row] = photo
            else:
                (files if photo.ndim == 1 else pixels)[row] = photo
        if until is End.read:
            return failed
        steps = Steps(*(getattr(plan, name) for name in Steps._fields))
        for row in self._run(steps, files, rows, plan.indices, until):
            try:
                pixels[row] = self._decode(plan, row, files[row])
            except DecodeError as error:
                failed[row] = str(error)
        self._run(steps, pixels, rows, None, until)
        if until is End.all and plan.finish is not None:
            finish_rows(rows, plan.finish, np.array([row for row in span if row not in failed], np.int64))
        return failed

    def _run(
        self,
        steps: Steps,
        photos: dict[int, np.ndarray],
        out: np.ndarray,
        samples: np.ndarray | None,
        until: End,
    ) -> list[int]:
        """Execute steps on the files of `samples`, or on pixels (None); the rows for another decoder."""
        if not photos:
            return []
        which = np.fromiter(photos, np.int64, len(photos))
        address = np.array([photo.ctypes.data for photo in photos.values()], np.int64)
        length, orientation = np.full(len(which), -1), np.ones(len(which), np.int64)
        if samples is not None:
            length = np.array([len(photo) for photo in photos.values()], np.int64)
            orientation = self._photos.orientations(samples[which])
        chosen = Steps(*(column[which] for column in steps))
        scratch = self._scratch(need_of(chosen, length, orientation, out.shape[1]))
        done = run(address, length, orientation, which, steps, scratch, out, int(until))
        left: list[int] = which[~done].tolist()
        return left

    def _scratch(self, need: Need) -> Scratch:
        """This thread's scratch, grown to what is needed."""
        had, scratch = getattr(self._local, "scratch", (need, None))
        most = Need(*map(max, need, had)) if had.side == need.side else need
        if scratch is None or most != had:
            scratch = make_scratch(most)
            self._local.scratch = most, scratch
        return scratch

    def _decode(self, plan: Plan, row: int, encoded: np.ndarray) -> np.ndarray:
        """Pixels of a photo in the size that the plan expects."""
        photo = self._photos.decode(int(plan.indices[row]), encoded, shrink=int(plan.shrink[row]))
        return np.ascontiguousarray(resize(photo, int(plan.photo_height[row]), int(plan.photo_width[row])))
