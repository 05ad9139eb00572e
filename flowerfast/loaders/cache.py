"""Decoded photos kept as uint8, so that each is decoded once per run.

Storage is one flat buffer with an offset per sample: photos differ in size, and padding them to a common
size would waste a third or more; offsets cost 8 bytes a photo.
"""

import mmap
from dataclasses import replace

import numpy as np
import torch

from flowerfast.data.manifest import Manifest
from flowerfast.data.plan import Plan

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


def _shared(size: int) -> np.ndarray:
    """Zeros that worker processes share with their parent: uint8 (size,). Untouched pages take no memory."""
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), np.uint8, size)


class PhotoCache:
    """Decoded training photos on one device, filled as they are first used.

    Lazily, not up front: the first epoch then trains at once, and a run that resumes in mid-epoch, or meets a
    file that cannot be decoded, needs no case of its own. Safe for threads and forked processes: each photo
    has its own place, and is marked as present only after it is written.

    Args:
        manifest: all photos.
        indices: int64 (n,), the samples that will be asked for.
        side: short side of a cached photo at most, in pixels.
        device: where they are kept, the CPU or a CUDA device. There all memory is taken at once.

    Attributes:
        store: uint8 (bytes,), all photos one after another.
    """

    def __init__(
        self, manifest: Manifest, indices: np.ndarray, side: int, device: torch.device = _CPU
    ) -> None:
        self._old = manifest.width, manifest.height
        self._new = cached_size(manifest.width, manifest.height, side)
        self._slot = np.full(len(manifest), -1, np.int64)
        self._slot[indices] = np.arange(len(indices))
        lengths = self._new[0][indices].astype(np.int64) * self._new[1][indices] * 3
        self._starts = np.cumsum(lengths) - lengths
        total = int(lengths.sum())
        if device.type == "cpu":
            self.store = torch.from_numpy(_shared(total))
        else:
            self.store = torch.empty(total, dtype=torch.uint8, device=device)
        self._present = _shared(len(indices)).view(np.bool_)
        self._upload: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._upload = torch.cuda.Stream(device)
            # The memory may have been another tensor's, with work on it still to come in this stream.
            self._upload.wait_stream(torch.cuda.current_stream(device))

    def sizes(self, indices: np.ndarray) -> tuple[Sizes, Sizes]:
        """Sizes of photos as stored on disk and as cached, for `scale_plan`."""
        return (self._old[0][indices], self._old[1][indices]), (self._new[0][indices], self._new[1][indices])

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of a cached photo."""
        return int(self._new[1][index]), int(self._new[0][index])

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """Where photos begin in `store`: int64 (n,)."""
        found: np.ndarray = self._starts[self._slot[indices]]
        return found

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Those of the samples that are not cached yet: int64 (m,)."""
        found: np.ndarray = indices[~self._present[self._slot[indices]]]
        return found

    def get(self, index: int) -> torch.Tensor | None:
        """Pixels of a photo on the device, uint8 (h, w, 3), or None when it is not cached yet."""
        return self._view(index) if self._present[self._slot[index]] else None

    def put(self, index: int, pixels: np.ndarray) -> torch.Tensor:
        """Store pixels of the cached size; returns the stored view.

        On CUDA it returns when they have arrived, so that whoever sees a photo as present may read it on
        any stream.
        """
        view, fresh = self._view(index), torch.from_numpy(pixels)
        if self._upload is None:
            view.copy_(fresh)
        else:
            with torch.cuda.stream(self._upload):
                view.copy_(fresh)
        self._present[self._slot[index]] = True
        return view

    def _view(self, index: int) -> torch.Tensor:
        height, width = self.shape(index)
        start = int(self._starts[self._slot[index]])
        return self.store[start : start + height * width * 3].view(height, width, 3)
