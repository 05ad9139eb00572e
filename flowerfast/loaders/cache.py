"""Decoded photos kept as uint8, so that each is decoded once per run.

Storage is one flat buffer with an offset per sample: photos differ in size, and padding them to a common
size would waste a third or more; offsets cost 8 bytes a photo.
"""

from dataclasses import replace

import numpy as np
import torch

from flowerfast.data.manifest import Manifest
from flowerfast.data.plan import Plan
from flowerfast.loaders.cache_file import CacheFile

Sizes = tuple[np.ndarray, np.ndarray]
"""(width, height) of photos in pixels, each int (n,)."""
_CPU = torch.device("cpu")


def cached_size(width: np.ndarray, height: np.ndarray, side: int) -> Sizes:
    """(width, height) of photos in the cache: the short side at most `side` pixels, never enlarged."""
    short = np.minimum(width, height)
    scale = np.minimum(1.0, side / short)
    shrunk = [np.maximum(np.rint(edge * scale), 1).astype(np.int32) for edge in (width, height)]
    return shrunk[0], shrunk[1]


def cache_bytes(manifest: Manifest, indices: np.ndarray, side: int) -> int:
    """Bytes that the decoded photos `indices` take."""
    width, height = cached_size(manifest.width[indices], manifest.height[indices], side)
    return int((width.astype(np.int64) * height * 3).sum())


def scale_plan(plan: Plan, old: Sizes, new: Sizes) -> Plan:
    """Plan whose windows, in pixels of `old`-sized photos, are moved to `new`-sized ones.

    Edges are rounded to whole pixels; a window keeps at least one. Where the sizes are equal, so is the plan.
    """
    top, height = _scale(plan.top, plan.height, old[1], new[1])
    left, width = _scale(plan.left, plan.width, old[0], new[0])
    return replace(plan, top=top, left=left, height=height, width=width)


def _scale(start: np.ndarray, length: np.ndarray, old: np.ndarray, new: np.ndarray) -> Sizes:
    ratio = new / old
    first = np.minimum(np.rint(start * ratio), new - 1)
    last = np.maximum(np.rint((start + length) * ratio), first + 1)
    return first.astype(np.int32), (last - first).astype(np.int32)


def _partly(places: int, count: int, wanted: int, budget: int | None) -> str:
    rule = f"all take {wanted / 1e9:.2f} GB, the budget is {(budget or 0) / 1e9:.2f} GB (data.cache_gb)"
    return f"decoded cache: {places} of {count} photos have a place, others are decoded each epoch: {rule}"


class PhotoCache:
    """Decoded training photos on one device, filled as they are first used.

    Lazily, not up front: the first epoch then trains at once, and a run that resumes in mid-epoch, or meets a
    file that cannot be decoded, needs no case of its own. Safe for threads: each photo
    has its own place, and is marked as present only after it is written.

    Args:
        manifest: all photos.
        indices: int64 (n,), the samples that will be asked for. Of a file: all of the manifest's.
        side: short side of a cached photo at most, in pixels.
        device: where they are kept, the CPU or a CUDA device. There all memory is taken at once.
        budget: most bytes that `store` may take; None: no limit. The first of `indices` that fit have a
            place, the others are never cached: which ones hangs on nothing else.
        file: keeps them on disk instead of in memory, within its own budget; the device is the CPU then.

    Attributes:
        store: uint8 (bytes,), all photos one after another.
        places: how many photos have a place in it.
    """

    def __init__(
        self,
        manifest: Manifest,
        indices: np.ndarray,
        side: int,
        device: torch.device = _CPU,
        budget: int | None = None,
        file: CacheFile | None = None,
    ) -> None:
        self._old = manifest.width, manifest.height
        self._new = cached_size(manifest.width, manifest.height, side)
        ends = np.cumsum(self._new[0][indices].astype(np.int64) * self._new[1][indices] * 3)
        budget = file.budget if file is not None else budget
        places = len(indices) if budget is None else int(np.searchsorted(ends, budget, side="right"))
        self.places, self._file = places, file
        self._notes = [] if places == len(indices) else [_partly(places, len(indices), int(ends[-1]), budget)]
        self._slot = np.full(len(manifest), -1, np.int64)  # -1: no place
        self._slot[indices[:places]] = np.arange(places)
        total = int(ends[places - 1]) if places else 0
        self._starts = np.concatenate([[0], ends[:places]])
        self._starts[-1] = -1  # of slot -1
        self._present = np.zeros(places + 1, np.bool_)  # the last, of slot -1, stays False
        if file is not None:
            self.store = torch.from_numpy(file.pixels)
        elif device.type == "cpu":
            self.store = torch.from_numpy(np.zeros(total, np.uint8))  # untouched pages take no memory
        else:
            self.store = torch.empty(total, dtype=torch.uint8, device=device)
        self._upload: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._upload = torch.cuda.Stream(device)
            # The memory may have been another tensor's, with work on it still to come in this stream.
            self._upload.wait_stream(torch.cuda.current_stream(device))

    @property
    def notes(self) -> list[str]:
        """What whoever reports the run should know, one line each."""
        return self._notes + (self._file.notes if self._file is not None else [])

    def sizes(self, indices: np.ndarray) -> tuple[Sizes, Sizes]:
        """Sizes of photos as stored on disk and as cached, for `scale_plan`."""
        return (self._old[0][indices], self._old[1][indices]), (self._new[0][indices], self._new[1][indices])

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of a cached photo."""
        return int(self._new[1][index]), int(self._new[0][index])

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """Where photos begin in `store`: int64 (n,); -1 for one that has no place there."""
        found: np.ndarray = self._starts[self._slot[indices]]
        return found

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Those of the samples that are not known to be cached: int64 (m,).

        Photos that an earlier process left on disk are among them, until `get` has found them whole.
        """
        found: np.ndarray = indices[~self._present[self._slot[indices]]]
        return found

    def get(self, index: int) -> torch.Tensor | None:
        """Pixels of a photo on the device, uint8 (h, w, 3), or None when it is not cached (yet)."""
        slot = int(self._slot[index])
        if self._present[slot]:
            return self._view(index)
        if self._file is None or slot < 0:
            return None
        view = self._view(index)
        if not self._file.holds(slot, view.numpy()):
            return None
        self._present[slot] = True
        return view

    def put(self, index: int, pixels: np.ndarray) -> torch.Tensor:
        """Store pixels of the cached size; returns the stored view.

        A photo without a place, or for which the disk has no room, is not stored: then the result is the
        pixels that were given, on the device. On CUDA it returns when they have arrived, so that whoever sees
        a photo as present may read it on any stream.
        """
        slot, fresh = int(self._slot[index]), torch.from_numpy(pixels)
        if self._upload is not None:
            with torch.cuda.stream(self._upload):
                if slot < 0:
                    return fresh.to(self.store.device)
                self._view(index).copy_(fresh)
        elif slot < 0:
            return fresh
        elif self._file is None:
            self._view(index).copy_(fresh)
        elif not self._file.write(slot, int(self._starts[slot]), pixels):
            return fresh
        self._present[slot] = True
        return self._view(index)

    def _view(self, index: int) -> torch.Tensor:
        height, width = self.shape(index)
        start = int(self._starts[self._slot[index]])
        return self.store[start : start + height * width * 3].view(height, width, 3)
