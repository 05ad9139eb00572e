"""Where decoded photos are kept, how much room they may take, and the cache that follows."""

from pathlib import Path

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError, WriteFailed
from flowerfast.files import writing
from flowerfast.loaders.cache.file import cache_key, disk_problem, held_bytes, open_cache_file, pixels_start
from flowerfast.loaders.cache.store import PhotoCache, cache_bytes
from flowerfast.machine import free_disk, free_memory, user_cache_dir
from flowerfast.photos.photos import Photos
from flowerfast.ranks.who import current

_OTHER = "set data.cache_dir, or use ram or none"
_SHARE = 3
"""Without data.cache_gb a cache takes at most one part in so many of what is free."""


def choose_cache(data: DataConfig, backend: str, device: torch.device, photos: Photos) -> tuple[str, str]:
    """Cache of decoded photos for a set: (none, ram, vram or disk; why).

    `auto` takes the memory where all photos fit into the budget, else the disk where they fit, else none.
    Raises UserError when the executor has no such cache, or the folder cannot be used; RunFailed where
    its disk is why.
    """
    if data.cache == "none":
        return "none", "data.cache=none"
    places = cache_places(backend, device)
    if data.cache != "auto":
        if data.cache == "ram" and current().local_size > 1:
            raise UserError(
                "data.cache=ram: each epoch gives a rank other photos, so each of the "
                f"{current().local_size} ranks of this machine would come to keep all of them; use disk, "
                "which they share, or none"
            )
        if data.cache not in places:
            raise UserError(
                f"data.cache={data.cache}: the {backend} backend keeps photos in {' or on '.join(places)}; "
                "use that or auto"
            )
        if data.cache == "disk":
            _check_disk(cache_folder(data))
        return data.cache, f"data.cache={data.cache}"
    reasons = []
    for place in places:
        if place == "vram" and backend == "cpu":
            continue  # only when told to
        if place == "disk" and (problem := why_no_disk(cache_folder(data))) is not None:
            reasons.append(f"disk: {problem}")
            continue
        needed = _needed(place, photos, data.cache_side)
        budget = cache_budget(data, place, device)
        fits = needed <= budget
        sign = "fits" if fits else "does not fit"
        reasons.append(f"{place}: {needed / 1e9:.2f} GB {sign} in the budget of {budget / 1e9:.2f} GB")
        if fits:
            return place, "; ".join(reasons)
    return "none", "; ".join(reasons)


def cache_places(backend: str, device: torch.device) -> tuple[str, ...]:
    """Where a backend can keep photos whose batches are wanted on `device`.

    Not in memory where several ranks are on this machine: each would keep all photos there.
    """
    if backend == "dali":
        return ("vram",)
    places = ("ram", "disk", "vram") if backend == "cpu" and device.type == "cuda" else ("ram", "disk")
    return places[1:] if current().local_size > 1 else places


def why_no_disk(folder: Path) -> str | None:
    """See `disk_problem`, of a full, broken or read-only disk too."""
    try:
        return disk_problem(folder)
    except WriteFailed as error:
        return error.what


def _check_disk(folder: Path) -> None:
    """Raise UserError when no cache file can be kept in a folder, RunFailed where its disk is why."""
    try:
        problem = disk_problem(folder)
    except WriteFailed as error:
        raise _failed(error) from error
    if problem is not None:
        raise UserError(_no_file(problem))


def _no_file(problem: str) -> str:
    return f"data.cache=disk: {problem}; {_OTHER}"


def _failed(error: WriteFailed) -> RunFailed:
    return RunFailed(f"data.cache=disk: {error.line(f'try again, or {_OTHER}')}")


def _needed(place: str, photos: Photos, side: int) -> int:
    if place != "disk":
        return cache_bytes(photos, photos.indices, side)
    count = len(photos.table)
    return pixels_start(count) + cache_bytes(photos, np.arange(count), side)


def cache_budget(data: DataConfig, place: str, device: torch.device) -> int:
    """Most bytes that the cache may take in `place`: ram, vram or disk.

    On disk that is what all cache files of the folder take together, and what they hold counts as free.
    """
    if data.cache_gb is not None:
        return int(data.cache_gb * 1e9)
    if place == "disk":
        folder = cache_folder(data)
        return (free_disk(folder) + held_bytes(folder)) // _SHARE
    return device_memory(device if place == "vram" else None) // _SHARE


def cache_folder(data: DataConfig) -> Path:
    """Folder of the cache files, and of nothing else: one in data.cache_dir, which may hold all sorts."""
    return (
        Path(data.cache_dir, "flowerfast-photos")
        if data.cache_dir is not None
        else user_cache_dir() / "photos"
    )


def open_cache(place: str, data: DataConfig, photos: Photos, device: torch.device) -> PhotoCache | None:
    """The chosen cache for a graph or workers on `device`; None for none.

    Raises UserError when the cache file cannot be opened, RunFailed where its disk is why.
    """
    if place == "none":
        return None
    if place != "disk":
        return PhotoCache(photos, data.cache_side, device, cache_budget(data, place, device))
    folder, count = cache_folder(data), len(photos.table)
    total = cache_bytes(photos, np.arange(count), data.cache_side)
    _check_disk(folder)
    try:
        key, budget = cache_key(photos, data.cache_side), cache_budget(data, place, device)
        with writing(folder):
            file = open_cache_file(folder, key, count, total, budget)
    except WriteFailed as error:
        raise _failed(error) from error
    except OSError as error:
        raise UserError(_no_file(f"{error.filename or folder}: {error.strerror}")) from error
    if data.cache_dir is not None and (taken := held_bytes(Path(data.cache_dir))):
        earlier = f"disk cache: *.photos in {data.cache_dir} are of an earlier version and no longer used"
        file.notes.append(f"{earlier}: delete them to free {taken / 1e9:.2f} GB")
    return PhotoCache(photos, data.cache_side, file=file)


def device_memory(device: torch.device | None = None) -> int:
    """Bytes free on a CUDA device, or in the memory that this process may use."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()
