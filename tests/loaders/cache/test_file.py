"""A decoded cache on disk: the same pixels, reused by later processes, whatever is killed or damaged."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.loaders.cache.file import cache_key, pixels_start
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.loaders.cache.disk import SIZES, cache_files, cached, disk_cache, fill, go_on

pytest.importorskip("fcntl")

Open = Callable[..., Loader]
Process = Callable[..., subprocess.Popen[str]]
Drawn = Callable[..., dict[int, bytes]]


def decoded(root: Path) -> dict[int, np.ndarray]:
    photos = Photos(root)
    return {i: photos.decode(i) for i in photos.indices.tolist()}


def refuse_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    for name in ("read", "read_one", "decode"):
        monkeypatch.setattr(Photos, name, refuse)


@pytest.mark.parametrize("side", [40, 320])
def test_pixels_are_those_of_the_cache_in_ram(
    photos: Path, open_: Open, drawn: Drawn, backend_name: str, side: int
) -> None:
    ram = open_(photos, "ram", backend_name, cache_side=side)
    expected = [drawn(ram.epoch(epoch)) for epoch in range(3)]
    loader = open_(photos, "disk", backend_name, cache_side=side)
    assert [drawn(loader.epoch(epoch)) for epoch in range(3)] == expected
    if side == 320:
        plain = open_(photos, "none", backend_name)
        assert [drawn(plain.epoch(epoch)) for epoch in range(3)] == expected


def test_what_another_process_decoded_is_not_decoded_again(
    photos: Path,
    open_: Open,
    other_process: Process,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
    backend_name: str,
) -> None:
    expected = drawn(open_(photos, "none", backend_name).epoch(1))
    process = other_process()
    loader = open_(photos, "disk", backend_name)
    go_on(process, "filled")  # both have it open: what one writes, the other sees
    refuse_reading(monkeypatch)
    assert drawn(loader.epoch(1)) == expected
    process.kill()
    process.wait()
    assert drawn(open_(photos, "disk", backend_name).epoch(1)) == expected


def test_another_split_of_the_same_photos_uses_the_file(
    photos: Path, open_: Open, drawn: Drawn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Photos(photos)
    expected = drawn(open_(whole.subset([2, 3, 4, 9]), "none").epoch(0))
    drawn(open_(whole.subset([0, 1, 2, 3, 4])).epoch(0))
    drawn(open_(whole.subset([8, 9, 10])).epoch(0))
    refuse_reading(monkeypatch)
    assert drawn(open_(whole.subset([2, 3, 4, 9])).epoch(0)) == expected
    assert len(cache_files(folder)) == 1


def test_processes_that_fill_it_at_once_leave_right_pixels(
    photos: Path, folder: Path, other_process: Process
) -> None:
    processes = [other_process(seed) for seed in range(3)]
    for process in processes:
        go_on(process)
    for process in processes:
        assert process.stdout.readline() == "filled\n"
    right = decoded(photos)
    assert cached(disk_cache(photos, folder), right) == set(right)


def test_a_process_killed_while_it_writes_leaves_no_wrong_pixels(
    photos: Path, folder: Path, other_process: Process
) -> None:
    process = other_process(epochs=10_000)
    go_on(process)
    threading.Event().wait(0.05)
    process.kill()
    process.wait()
    cached(disk_cache(photos, folder), decoded(photos))


def test_photos_whose_pixels_did_not_reach_the_disk_are_missing(photos: Path, folder: Path) -> None:
    """As after a loss of power: the check values are there, some pixels are not."""
    cache = disk_cache(photos, folder)
    pixels = fill(cache)
    start = pixels_start(11) + int(cache.starts(np.array([4]))[0])
    del cache
    (file,) = cache_files(folder)
    with file.open("r+b") as opened:
        opened.seek(start + 50)
        opened.write(bytes(200))
    again = disk_cache(photos, folder)
    assert again.missing(np.arange(11)).tolist() == list(range(11))  # nothing is believed unseen
    assert cached(again, pixels) == set(range(11)) - {4}
    again.put(4, pixels[4])
    assert cached(disk_cache(photos, folder), pixels) == set(range(11))


@pytest.mark.parametrize("cut", [26, 4096, 4100, 8192, 20_000, -1])
def test_a_shortened_file_is_made_anew(photos: Path, folder: Path, cut: int) -> None:
    pixels = fill(disk_cache(photos, folder))
    (file,) = cache_files(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    cache = disk_cache(photos, folder)
    assert any("is damaged; made anew" in note for note in cache.notes)
    assert not cached(cache, pixels)
    fill(cache)
    assert file.read_bytes() == whole


def test_damage_anywhere_gives_no_wrong_pixels(photos: Path, folder: Path) -> None:
    pixels = fill(disk_cache(photos, folder))
    (file,) = cache_files(folder)
    whole, lost = file.read_bytes(), 0
    rng = np.random.default_rng(0)
    for at in [0, 20, 4096, 4100, *rng.integers(0, len(whole), 60).tolist()]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        lost += len(cached(disk_cache(photos, folder), pixels)) < 11
    assert lost > 40  # the rest lay between the parts
    file.write_bytes(os.urandom(len(whole)))
    assert not cached(disk_cache(photos, folder), pixels)


def test_other_photos_sizes_or_settings_have_a_file_of_their_own(
    photos: Path, folder: Path, write_photo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(side: int = 320) -> str:
        return cache_key(Photos(photos), side)

    first, file = key(), photos / "a/a_003.jpg"
    assert key() == first
    assert key(64) != first
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    touched = key()
    assert touched != first
    write_photo(file, (40, 40))
    assert key() not in (first, touched)
    before = key()
    monkeypatch.setattr("flowerfast.loaders.cache.file.PIXELS_VERSION", 99)
    assert key() != before


def test_a_changed_photo_is_decoded_anew(
    photos: Path, open_: Open, drawn: Drawn, write_photo: Callable[..., Path]
) -> None:
    drawn(open_(photos).epoch(0))
    write_photo(photos / "a/a_003.jpg", SIZES[3], seed=99)
    assert drawn(open_(photos).epoch(0)) == drawn(open_(photos, "none").epoch(0))


def test_photos_turned_otherwise_have_a_file_of_their_own(turned: tuple[Path, Path], photos: Path) -> None:
    keys = {exif: cache_key(Photos(turned[0], exif=exif), 320) for exif in ("apply", "ignore")}
    assert len({*keys.values()}) == 2
    same = {cache_key(Photos(photos, exif=exif), 320) for exif in ("apply", "ignore")}
    assert len(same) == 1  # none is turned
