"""The decoded cache on disk: the same pixels, reused by later processes, never above its budget."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.errors import UserError
from flowerfast.loaders import BadFiles, Choice, Loader, Recipe, make_loader
from flowerfast.loaders.cache import PhotoCache, cache_bytes
from flowerfast.loaders.cache_choice import open_cache
from flowerfast.loaders.cache_file import cache_key, held_bytes, pixels_start
from flowerfast.loaders.decode import decode

pytest.importorskip("fcntl")

CPU = torch.device("cpu")
RECIPE = Recipe(32, 4, seed=3, augment=AugmentConfig(), shuffle=True)
SIZES = ((90, 64), (64, 97), (131, 60), (64, 64), (50, 120))
Opener = Callable[..., Loader]

OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np, torch
from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders import BadFiles, Choice, Recipe, make_loader

manifest = load_manifest(sys.argv[1])
recipe = Recipe(32, 4, seed=int(sys.argv[3]), augment=AugmentConfig(), shuffle=True)
data = DataConfig(workers=2, cache_dir=sys.argv[2])
loader = make_loader(Choice("torchvision", "", "disk"), manifest, np.arange(len(manifest)), recipe, data,
                     torch.device("cpu"), BadFiles(manifest, "fail", 0))
print("open", flush=True)
sys.stdin.readline()
for epoch in range(int(sys.argv[4])):
    for _ in loader.epoch(epoch):
        pass
print("filled", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def photos(photo_folder) -> Path:
    return photo_folder({"a": 6, "b": 5}, sizes=SIZES)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the cache files lie."""
    return tmp_path / "store"


@pytest.fixture
def open_(folder):
    """Function (photos, cache, backend, indices, cache_side, **DataConfig fields) → loader."""
    opened = []

    def make(
        root: Path, cache: str = "disk", backend: str = "torchvision", indices=None, **settings: object
    ) -> Loader:
        if backend != "torchvision":
            pytest.importorskip("nvidia.dali")
        manifest = load_manifest(root)
        members = np.arange(len(manifest)) if indices is None else np.array(indices)
        data = DataConfig.model_validate({"workers": 2, "cache_dir": str(folder), **settings})
        bad, choice = BadFiles(manifest, "skip", 1.0), Choice(backend, "", cache)
        opened.append(make_loader(choice, manifest, members, RECIPE, data, CPU, bad))
        return opened[-1]

    yield make
    for loader in opened:
        loader.close()


@pytest.fixture
def other_process(photos, folder):
    """Function (seed, epochs) → a process that has opened the cache; a line on stdin lets it go on."""
    started = []

    def start(seed: int = 0, epochs: int = 1) -> subprocess.Popen:
        command = [sys.executable, "-c", OTHER_PROCESS, str(photos), str(folder), str(seed), str(epochs)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=env, **pipes))
        assert started[-1].stdout.readline() == "open\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen, answer: str = "") -> None:
    process.stdin.write("\n")
    process.stdin.flush()
    if answer:
        assert process.stdout.readline() == answer + "\n"


def disk_cache(root: Path, folder: Path, side: int = 320, **settings: object) -> PhotoCache:
    manifest = load_manifest(root)
    data = DataConfig.model_validate({"cache_side": side, "cache_dir": str(folder), **settings})
    cache = open_cache("disk", data, manifest, np.arange(3), CPU)
    assert cache is not None
    return cache


def fill(cache: PhotoCache, manifest: Manifest) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = {}
    for i in range(len(manifest)):
        pixels[i] = rng.integers(0, 256, (*cache.shape(i), 3), dtype=np.uint8)
        assert np.array_equal(cache.put(i, pixels[i]).numpy(), pixels[i])
    return pixels


def decoded(manifest: Manifest) -> dict[int, np.ndarray]:
    sizes = zip(manifest.width.tolist(), manifest.height.tolist(), strict=True)
    return {i: decode(manifest.read(i), *size) for i, size in enumerate(sizes)}


def cached(cache: PhotoCache, pixels: dict[int, np.ndarray]) -> set[int]:
    """Photos that are there; fails on wrong pixels."""
    found = {i: cache.get(i) for i in pixels}
    assert all(np.array_equal(found[i].numpy(), pixels[i]) for i in found if found[i] is not None)
    return {i for i in found if found[i] is not None}


def cache_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.photos"))


def refuse(*_: object) -> None:
    raise AssertionError("read again")


@pytest.mark.parametrize("backend", ["torchvision", "dali-cpu"])
@pytest.mark.parametrize("side", [40, 320])
def test_pixels_are_those_of_the_cache_in_ram(photos, open_: Opener, drawn, backend, side):
    ram = open_(photos, "ram", backend, cache_side=side)
    expected = [drawn(ram.epoch(epoch)) for epoch in range(3)]
    loader = open_(photos, "disk", backend, cache_side=side)
    assert [drawn(loader.epoch(epoch)) for epoch in range(3)] == expected
    if side == 320:
        plain = open_(photos, "none", backend)
        assert [drawn(plain.epoch(epoch)) for epoch in range(3)] == expected


@pytest.mark.parametrize("backend", ["torchvision", "dali-cpu"])
def test_what_another_process_decoded_is_not_decoded_again(
    photos, open_: Opener, other_process, drawn, monkeypatch, backend
):
    expected = drawn(open_(photos, "none", backend).epoch(1))
    process = other_process()
    loader = open_(photos, "disk", backend)
    go_on(process, "filled")  # both have it open: what one writes, the other sees
    monkeypatch.setattr(Manifest, "read", refuse)
    assert drawn(loader.epoch(1)) == expected
    process.kill()
    process.wait()
    assert drawn(open_(photos, "disk", backend).epoch(1)) == expected


def test_another_split_of_the_same_photos_uses_the_file(photos, open_: Opener, drawn, folder, monkeypatch):
    expected = drawn(open_(photos, "none", indices=[2, 3, 4, 9]).epoch(0))
    drawn(open_(photos, indices=[0, 1, 2, 3, 4]).epoch(0))
    drawn(open_(photos, indices=[8, 9, 10]).epoch(0))
    monkeypatch.setattr(Manifest, "read", refuse)
    assert drawn(open_(photos, indices=[2, 3, 4, 9]).epoch(0)) == expected
    assert len(cache_files(folder)) == 1


def test_processes_that_fill_it_at_once_leave_right_pixels(photos, folder, other_process):
    processes = [other_process(seed) for seed in range(3)]
    for process in processes:
        go_on(process)
    for process in processes:
        assert process.stdout.readline() == "filled\n"
    right = decoded(load_manifest(photos))
    assert cached(disk_cache(photos, folder), right) == set(right)


def test_a_process_killed_while_it_writes_leaves_no_wrong_pixels(photos, folder, other_process):
    process = other_process(epochs=10_000)
    go_on(process)
    threading.Event().wait(0.05)
    process.kill()
    process.wait()
    cached(disk_cache(photos, folder), decoded(load_manifest(photos)))


def test_photos_whose_pixels_did_not_reach_the_disk_are_missing(photos, folder):
    """As after a loss of power: the check values are there, some pixels are not."""
    manifest = load_manifest(photos)
    cache = disk_cache(photos, folder)
    pixels = fill(cache, manifest)
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


@pytest.mark.parametrize("cut", [0, 10, 4096, 4100, 8192, 20_000, -1])
def test_a_shortened_file_is_made_anew(photos, folder, cut):
    manifest = load_manifest(photos)
    pixels = fill(disk_cache(photos, folder), manifest)
    (file,) = cache_files(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    cache = disk_cache(photos, folder)
    assert any("is damaged; made anew" in note for note in cache.notes)
    assert not cached(cache, pixels)
    fill(cache, manifest)
    assert file.read_bytes() == whole


def test_damage_anywhere_gives_no_wrong_pixels(photos, folder):
    manifest = load_manifest(photos)
    pixels = fill(disk_cache(photos, folder), manifest)
    (file,) = cache_files(folder)
    whole, lost = file.read_bytes(), 0
    rng = np.random.default_rng(0)
    for at in [0, 20, 4096, 4100, *rng.integers(0, len(whole), 60).tolist()]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        lost += len(cached(disk_cache(photos, folder), pixels)) < 11
    assert lost > 40  # the rest lay between the parts
    file.write_bytes(os.urandom(len(whole)))
    assert not cached(disk_cache(photos, folder), pixels)


def test_other_photos_sizes_or_settings_have_a_file_of_their_own(photos, folder, write_photo, monkeypatch):
    def key(side: int = 320) -> str:
        return cache_key(load_manifest(photos), side)

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
    monkeypatch.setattr("flowerfast.loaders.cache_file.PIXELS_VERSION", 99)
    assert key() != before


def test_a_changed_photo_is_decoded_anew(photos, open_: Opener, drawn, write_photo):
    drawn(open_(photos).epoch(0))
    write_photo(photos / "a/a_003.jpg", SIZES[3], seed=99)
    assert drawn(open_(photos).epoch(0)) == drawn(open_(photos, "none").epoch(0))


@pytest.mark.parametrize("backend", ["torchvision", "dali-cpu"])
@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("side", [40, 320])
def test_photos_beyond_the_budget_are_decoded_each_epoch(
    photos, open_: Opener, drawn, monkeypatch, backend, cache, side
):
    whole = open_(photos, "ram", backend, cache_side=side)
    expected = [drawn(whole.epoch(epoch)) for epoch in range(3)]
    assert not whole.notes
    manifest = load_manifest(photos)
    budget = cache_bytes(manifest, np.arange(5), side)  # of 11
    room = -(-(budget + pixels_start(11)) // 4096) * 4096 if cache == "disk" else budget
    loader = open_(photos, cache, backend, cache_side=side, cache_gb=room / 1e9)
    assert any("5 of 11 photos have a place" in note for note in loader.notes)
    drawn(loader.epoch(0))
    read, reads = Manifest.read, []
    monkeypatch.setattr(Manifest, "read", lambda self, i: reads.append(i) or read(self, i))
    assert [drawn(loader.epoch(epoch)) for epoch in range(3)] == expected
    assert sorted(reads) == sorted(3 * [5, 6, 7, 8, 9, 10])


def test_a_budget_for_no_photo_at_all(photos, open_: Opener, drawn):
    expected = drawn(open_(photos, "none").epoch(0))
    for cache in ("ram", "disk"):
        loader = open_(photos, cache, cache_gb=1e-9)
        assert drawn(loader.epoch(0)) == expected
        assert "0 of 11 photos" in loader.notes[-1]


def test_the_file_takes_no_more_than_the_budget(photo_folder, folder):
    root = photo_folder({"a": 20, "b": 20}, sizes=[(120, 100)])
    manifest = load_manifest(root)
    for budget in (300_000, 500_000, 10**9):
        cache = disk_cache(root, folder, cache_gb=budget / 1e9)
        fill(cache, manifest)
        assert cache_bytes(manifest, np.arange(40), 320) > 1_200_000
        del cache
        assert 0.8 * min(budget, 1_400_000) < held_bytes(folder) <= budget


def test_a_file_above_a_smaller_budget_is_made_anew(photo_folder, folder):
    root = photo_folder({"a": 20, "b": 20}, sizes=[(120, 100)])
    manifest = load_manifest(root)
    big = disk_cache(root, folder)
    pixels = fill(big, manifest)
    del big
    small = disk_cache(root, folder, cache_gb=3e-4)
    assert any("over the budget; made anew" in note for note in small.notes)
    assert held_bytes(folder) < 20_000
    assert not cached(small, pixels)


def test_files_used_longest_ago_make_room(photo_folder, folder):
    roots = [photo_folder({"a": 10, "b": 10}, sizes=[(120, 100)], name=f"set{i}") for i in range(4)]
    budget = {"cache_gb": 1.6e-3}  # for two of about 730 kB
    for n, root in enumerate(roots[:2]):
        fill(disk_cache(root, folder, **budget), load_manifest(root))
        (file,) = (f for f in cache_files(folder) if f.stat().st_mtime > 10**9)
        os.utime(file, (n, n))
    first, second = (folder / f"{cache_key(load_manifest(r), 320)}.photos" for r in roots[:2])
    del file
    opened = disk_cache(roots[2], folder, **budget)
    assert any("deleted 1 file" in note for note in opened.notes)
    assert not first.exists()
    assert second.exists()
    kept = disk_cache(roots[1], folder, **budget)
    assert kept.get(0) is not None
    crowded = disk_cache(roots[3], folder, **budget)  # the two others are in use
    assert crowded.places == 0 or crowded.places < 20
    assert second.exists()
    fill(crowded, load_manifest(roots[3]))
    fill(opened, load_manifest(roots[2]))
    assert held_bytes(folder) <= 1_600_000 + 3 * 8192


def test_a_file_that_another_process_uses_is_kept(photos, photo_folder, folder, other_process):
    process = other_process()
    go_on(process, "filled")
    (used,) = cache_files(folder)
    other = photo_folder({"a": 5, "b": 5}, name="other")
    disk_cache(other, folder, cache_gb=2e-5)
    assert used.exists()
    process.kill()
    process.wait()
    disk_cache(other, folder, cache_gb=2e-5)
    assert not used.exists()


def test_leftovers_of_a_killed_start_are_removed(photos, folder):
    folder.mkdir()
    (folder / "0123.partial").write_bytes(b"x")
    disk_cache(photos, folder)
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("backend", ["torchvision", "dali-cpu"])
def test_a_full_disk_ends_caching_not_the_run(photos, open_: Opener, drawn, monkeypatch, backend):
    expected = [drawn(open_(photos, "none", backend).epoch(epoch)) for epoch in range(2)]
    loader, write, left = open_(photos, "disk", backend), os.pwrite, [8]

    def full(file: int, data: memoryview, at: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    assert [drawn(loader.epoch(epoch)) for epoch in range(2)] == expected
    assert loader.notes == ["disk cache: no more photos are added (No space left on device)"]


def test_untouched_photos_take_no_room(photo_folder, folder):
    root = photo_folder({"a": 20, "b": 20}, sizes=[(120, 100)])
    cache = disk_cache(root, folder)
    assert len(cache.store) > 1_200_000
    cache.put(30, np.ones((100, 120, 3), np.uint8))
    assert held_bytes(folder) < 60_000


def test_a_folder_that_cannot_be_used_is_named(photos, tmp_path, open_: Opener):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"data\.cache=disk: .*file/x cannot be made .*; set data\.cache_dir"):
        open_(photos, cache_dir=str(tmp_path / "file/x"))
