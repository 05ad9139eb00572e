"""Which cache a loader gets, and why."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.cache import choice as module
from flowerfast.loaders.cache.choice import choose_cache, device_memory, open_cache
from flowerfast.loaders.cache.store import cache_bytes
from flowerfast.photos.photos import Photos
from flowerfast.ranks.who import Ranks

CPU = torch.device("cpu")


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 3, "b": 2}))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Function (memory=0, disk=0) that sets how many bytes are free."""

    def set_room(memory: int = 0, disk: int = 0) -> None:
        monkeypatch.setattr(module, "device_memory", lambda device=None: memory)
        monkeypatch.setattr(module, "free_disk", lambda folder: disk)

    return set_room


@pytest.mark.parametrize(
    ("backend", "cache", "places"),
    [("cpu", "vram", "ram or on disk"), ("dali-cpu", "vram", "ram or on disk"),
     ("dali", "ram", "vram"), ("dali", "disk", "vram")],
)  # fmt: skip
def test_a_cache_that_the_backend_lacks_is_refused(
    photos: Photos, backend: str, cache: str, places: str
) -> None:
    said = rf"data\.cache={cache}: the {backend} backend .* {places}; use that or auto"
    with pytest.raises(UserError, match=said):
        choose_cache(DataConfig(cache=cache), backend, CPU, photos)


@pytest.mark.parametrize(
    ("backend", "cache"),
    [
        ("cpu", "none"),
        ("cpu", "ram"),
        ("cpu", "disk"),
        ("dali-cpu", "disk"),
        ("dali", "vram"),
        ("dali", "none"),
    ],
)
def test_the_cache_asked_for_is_taken(
    photos: Photos, room: Callable[..., None], backend: str, cache: str
) -> None:
    room()
    assert choose_cache(DataConfig(cache=cache), backend, CPU, photos) == (cache, f"data.cache={cache}")


@pytest.mark.parametrize(
    ("backend", "place", "next_best"),
    [("cpu", "ram", "disk"), ("dali-cpu", "ram", "disk"), ("dali", "vram", "none")],
)
def test_auto_takes_the_memory_when_all_fit_a_third(
    photos: Photos, room: Callable[..., None], backend: str, place: str, next_best: str
) -> None:
    part, data = photos.subset(range(4)), DataConfig(cache="auto")
    needed = cache_bytes(part, part.indices, data.cache_side)
    for free, expected in ((3 * needed, place), (3 * needed - 1, next_best)):
        room(free, 2**40)
        found, why = choose_cache(data, backend, CPU, part)
        assert found == expected
        assert f"{place}: " in why
    assert "does not fit" in why


def test_auto_takes_the_disk_only_where_all_photos_fit(photos: Photos, room: Callable[..., None]) -> None:
    needed = 2 * 4096 + cache_bytes(photos, np.arange(5), 320)  # header, check values; all, not a half
    for free, expected in ((3 * needed, "disk"), (3 * needed - 3, "none")):
        room(0, free)
        assert choose_cache(DataConfig(cache="auto"), "cpu", CPU, photos.subset(range(3)))[0] == expected


def test_auto_goes_past_a_disk_that_cannot_be_used(
    photos: Photos, room: Callable[..., None], tmp_path: Path
) -> None:
    room(0, 2**40)
    (tmp_path / "file").write_text("in the way")
    data = DataConfig(cache="auto", cache_dir=str(tmp_path / "file/photos"))
    found, why = choose_cache(data, "cpu", CPU, photos)
    assert found == "none"
    assert "file/photos/flowerfast-photos cannot be made (Not a directory)" in why
    with pytest.raises(UserError, match=r"data\.cache=disk: .* cannot be made .*; set data\.cache_dir"):
        choose_cache(data.model_copy(update={"cache": "disk"}), "cpu", CPU, photos)


def test_what_bears_the_name_of_the_caches_lock_is_named(photos: Photos, tmp_path: Path) -> None:
    lock = tmp_path / "flowerfast-photos" / "lock"
    lock.mkdir(parents=True)
    with pytest.raises(UserError, match=f"data.cache=disk: {lock}: Is a directory"):
        open_cache("disk", DataConfig(cache="disk", cache_dir=str(tmp_path)), photos, CPU)


def test_a_budget_of_the_users_own_takes_the_place_of_a_third(
    photos: Photos, room: Callable[..., None]
) -> None:
    needed = cache_bytes(photos, np.arange(5), 320)
    room(3 * needed, 2**40)
    for budget, expected in ((needed, "ram"), (needed - 1, "none")):
        data = DataConfig(cache="auto", cache_gb=budget / 1e9)
        assert choose_cache(data, "cpu", CPU, photos)[0] == expected


def test_the_gpus_memory_is_for_cpu_too_where_batches_are_wanted_there(
    photos: Photos, room: Callable[..., None]
) -> None:
    """When it is asked for: auto goes on to take the host's."""
    room(2**40, 2**40)
    cuda = torch.device("cuda")
    assert choose_cache(DataConfig(cache="vram"), "cpu", cuda, photos) == ("vram", "data.cache=vram")
    assert choose_cache(DataConfig(cache="auto"), "cpu", cuda, photos)[0] == "ram"
    with pytest.raises(UserError, match="the dali-cpu backend keeps photos in ram or on disk"):
        choose_cache(DataConfig(cache="vram"), "dali-cpu", cuda, photos)


def test_memory_of_the_host() -> None:
    assert device_memory() > 0
    assert device_memory(CPU) > 0


def test_ranks_of_one_machine_share_the_disk_and_keep_nothing_in_memory(
    photos: Photos, room: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    room(memory=1 << 40, disk=1 << 40)
    assert choose_cache(DataConfig(cache="auto"), "cpu", CPU, photos)[0] == "ram"
    monkeypatch.setattr(module, "current", lambda: Ranks(1, 4, 1, 2))
    assert choose_cache(DataConfig(cache="auto"), "cpu", CPU, photos)[0] == "disk"
    said = r"^data\.cache=ram: each epoch gives a rank other photos, so each of the 2 ranks .* use disk"
    with pytest.raises(UserError, match=said):
        choose_cache(DataConfig(cache="ram"), "cpu", CPU, photos)
    monkeypatch.setattr(module, "current", lambda: Ranks(1, 4, 0, 1))  # a machine each
    assert choose_cache(DataConfig(cache="ram"), "cpu", CPU, photos)[0] == "ram"
