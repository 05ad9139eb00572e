"""Decoded photos kept as uint8, so that each is decoded once.

Storage is one flat buffer with an offset per sample: photos differ in size, and padding them to a common
size would waste a third or more; offsets cost 8 bytes a photo.
"""

import numpy as np
import torch

from flowerfast.loaders.cache.file import CacheFile
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos
from flowerfast.pixels.reference import resize
from flowerfast.plans.geometry import Sizes, limited
from flowerfast.plans.plan import Plan

_CPU = torch.device("cpu")


def cache_bytes(photos: Photos, indices: np.ndarray, side: int) -> int:
    """Bytes that decoded photos take, the short side of each at most `side` pixels."""
    width, height = limited(photos.sizes(indices), side)
    return int((width * height * 3).sum())


def _partly(places: int, count: int, wanted: int, budget: int | None) -> str:
    rule = f"all take {wanted / 1e9:.2f} GB, the budget is {(budget or 0) / 1e9:.2f} GB (data.cache_gb)"
    return f"decoded cache: {places} of {count} photos have a place, others are decoded each epoch: {rule}"


class PhotoCache:
    """Decoded training photos on one device, filled as they are first used.

    Lazily, not up front: the first epoch then trains at once, and a run that resumes in mid-epoch, or meets a
    file that cannot be decoded, needs no case of its own. Safe for threads: each photo
    has its own place, and is marked as present only after it is written.

    Args:
        photos: the set that will be asked for; of a file all samples of its folder are kept.
        side: short side of a cached photo at most, in pixels.
        device: where they are kept, the CPU or a CUDA device. There all memory is taken at once.
        budget: most bytes that `store` may take; None: no limit. The first of the set that fit have a
            place, the others are never cached: which ones hangs on nothing else.
        file: keeps them on disk instead of in memory, within its own budget; the device is the CPU then.

    Attributes:
        photos: as given.
        store: uint8 (bytes,), all photos one after another.
        places: how many photos have a place in it.
    """

    def __init__(
        self,
        photos: Photos,
        side: int,
        device: torch.device = _CPU,
        budget: int | None = None,
        file: CacheFile | None = None,
    ) -> None:
        self.photos, count = photos, len(photos.table)
        indices = photos.indices if file is None else np.arange(count)
        self._sizes = limited(photos.sizes(np.arange(count)), side)
        ends = np.cumsum(self._sizes[0][indices] * self._sizes[1][indices] * 3)
        budget = file.budget if file is not None else budget
        places = len(indices) if budget is None else int(np.searchsorted(ends, budget, side="right"))
        self.places, self._file = places, file
        self._notes = [] if places == len(indices) else [_partly(places, len(indices), int(ends[-1]), budget)]
        self._slot = np.full(count, -1, np.int64)  # -1: no place
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

    def sizes(self, indices: np.ndarray) -> Sizes:
        """(width, height) of photos as they are cached, each int64 (m,)."""
        return self._sizes[0][indices], self._sizes[1][indices]

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of a cached photo."""
        return int(self._sizes[1][index]), int(self._sizes[0][index])

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """Where photos begin in `store`: int64 (n,); -1 for one that has no place there."""
        starts: np.ndarray = self._starts[self._slot[indices]]
        return starts

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Those of the samples that are not known to be cached: int64 (m,).

        Photos that an earlier process left on disk are among them, until `get` has found them whole.
        """
        absent: np.ndarray = indices[~self._present[self._slot[indices]]]
        return absent

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

    def fill(self, index: int) -> torch.Tensor:
        """Pixels of a photo on the device, uint8 (h, w, 3), decoded when it was not cached.

        Raises OSError or DecodeError.
        """
        kept = self.get(index)
        if kept is None:
            kept = self.put(index, resize(self.photos.decode(index), *self.shape(index)))
        return kept

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


class Cached:
    """Photos out of a cache, which they fill when they are first asked for: a `Source`.

    Args:
        cache: on the CPU.
    """

    is_decoded = True

    def __init__(self, cache: PhotoCache) -> None:
        self._cache = cache

    def prepare(self, plan: Plan) -> Plan:
        """The plan for photos of the size in which they are cached."""
        return plan.at(self._cache.sizes(plan.indices))

    def fetch(self, indices: np.ndarray) -> list[np.ndarray | str]:
        """The photos' pixels."""
        return [self._pixels(index) for index in indices.tolist()]

    def _pixels(self, index: int) -> np.ndarray | str:
        try:
            return self._cache.fill(index).numpy()
        except (OSError, DecodeError) as error:
            return str(error)
