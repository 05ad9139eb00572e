"""The decoded cache on disk: the same pixels, reused by later processes, never above its budget."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.cache.choice import open_cache
from flowerfast.loaders.cache.file import cache_key, held_bytes, pixels_start
from flowerfast.loaders.cache.store import PhotoCache, cache_bytes
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

pytest.importorskip("fcntl")

CPU = torch.device("cpu")
SIZES = ((90, 64), (64, 97), (131, 60), (64, 64), (50, 120))
Open = Callable[..., Loader]
Process = Callable[..., subprocess.Popen[str]]
Drawn = Callable[..., dict[int, bytes]]

OTHER_PROCESS = """
import sys
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

photos = Photos(sys.argv[1], on_bad="fail")
options = DataConfig(workers=2, backend="cpu", cache="disk", cache_dir=sys.argv[2])
given = {"size": 32, "batch_size": 4, "seed": int(sys.argv[3]), "augment": Augment(), "device": "cpu"}
loader = Loader(photos, **given, options=options)
print("open", flush=True)
sys.stdin.readline()
for epoch in range(int(sys.argv[4])):
    for _ in loader.epoch(epoch):
        pass
print("filled", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Path:
    return photo_folder({"a": 6, "b": 5}, sizes=SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the cache files lie."""
    return tmp_path / "store/flowerfast-photos"


@pytest.fixture(params=["cpu", "dali-cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "dali-cpu":
        pytest.importorskip("nvidia.dali")
    name: str = request.param
    return name


@pytest.fixture
def open_(folder: Path, open_loader: Open) -> Open:
    """Function (photos, cache, backend, **settings) → training loader."""

    def make(root: Path | Photos, cache: str = "disk", backend: str = "cpu", **settings: object) -> Loader:
        given = {"augment": Augment(), "seed": 3, "cache_dir": str(folder.parent), **settings}
        return open_loader(root, cache=cache, backend=backend, **given)

    return make


@pytest.fixture
def other_process(photos: Path, folder: Path) -> Iterator[Process]:
    """Function (seed, epochs) → a process that has opened the cache; a line on stdin lets it go on."""
    started = []

    def start(seed: int = 0, epochs: int = 1) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            OTHER_PROCESS,
            str(photos),
            str(folder.parent),
            str(seed),
            str(epochs),
        ]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=env, **pipes))
        assert started[-1].stdout.readline() == "open\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[str], answer: str = "") -> None:
    process.stdin.write("\n")
    process.stdin.flush()
    if answer:
        assert process.stdout.readline() == answer + "\n"


def disk_cache(root: Path, folder: Path, side: int = 320, **settings: object) -> PhotoCache:
    data = DataConfig.model_validate({"cache_side": side, "cache_dir": str(folder.parent), **settings})
    cache = open_cache("disk", data, Photos(root).subset(range(3)), CPU)
    assert cache is not None
    return cache


def fill(cache: PhotoCache, count: int = 11) -> dict[int, np.ndarray]:
    """Put random pixels in the cache."""
    rng = np.random.default_rng(0)
    pixels = {}
    for i in range(count):
        pixels[i] = rng.integers(0, 256, (*cache.shape(i), 3), dtype=np.uint8)
        assert np.array_equal(cache.put(i, pixels[i]).numpy(), pixels[i])
    return pixels


def decoded(root: Path) -> dict[int, np.ndarray]:
    photos = Photos(root)
    return {i: photos.decode(i) for i in photos.indices.tolist()}


def cached(cache: PhotoCache, pixels: dict[int, np.ndarray]) -> set[int]:
    """Photos that are there; fails on wrong pixels."""
    found = {i: cache.get(i) for i in pixels}
    assert all(np.array_equal(found[i].numpy(), pixels[i]) for i in found if found[i] is not None)
    return {i for i in found if found[i] is not None}


def cache_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.photos"))


def refuse_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    for name in ("read", "read_one", "decode"):
        monkeypatch.setattr(Photos, name, refuse)


@pytest.mark.parametrize("side", [40, 320])
def test_pixels_are_those_of_the_cache_in_ram(
    photos: Path, open_: Open, drawn: Drawn, backend: str, side: int
) -> None:
    ram = open_(photos, "ram", backend, cache_side=side)
    expected = [drawn(ram.epoch(epoch)) for epoch in range(3)]
    loader = open_(photos, "disk", backend, cache_side=side)
    assert [drawn(loader.epoch(epoch)) for epoch in range(3)] == expected
    if side == 320:
        plain = open_(photos, "none", backend)
        assert [drawn(plain.epoch(epoch)) for epoch in range(3)] == expected


def test_what_another_process_decoded_is_not_decoded_again(
    photos: Path,
    open_: Open,
    other_process: Process,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    expected = drawn(open_(photos, "none", backend).epoch(1))
    process = other_process()
    loader = open_(photos, "disk", backend)
    go_on(process, "filled")  # both have it open: what one writes, the other sees
    refuse_reading(monkeypatch)
    assert drawn(loader.epoch(1)) == expected
    process.kill()
    process.wait()
    assert drawn(open_(photos, "disk", backend).epoch(1)) == expected


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


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("side", [40, 320])
def test_photos_beyond_the_budget_are_decoded_each_epoch(
    photos: Path,
    open_: Open,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    cache: str,
    side: int,
) -> None:
    whole = open_(photos, "ram", backend, cache_side=side)
    expected = [drawn(whole.epoch(epoch)) for epoch in range(3)]
    assert not whole.notes
    budget = cache_bytes(Photos(photos), np.arange(5), side)  # of 11
    room = -(-(budget + pixels_start(11)) // 4096) * 4096 if cache == "disk" else budget
    loader = open_(photos, cache, backend, cache_side=side, cache_gb=room / 1e9)
    assert any("5 of 11 photos have a place" in note for note in loader.notes)
    drawn(loader.epoch(0))
    decode, asked = Photos.decode, []
    monkeypatch.setattr(Photos, "decode", lambda self, i, *more: asked.append(i) or decode(self, i, *more))
    assert [drawn(loader.epoch(epoch)) for epoch in range(3)] == expected
    assert sorted(asked) == sorted(3 * [5, 6, 7, 8, 9, 10])


def test_a_budget_for_no_photo_at_all(photos: Path, open_: Open, drawn: Drawn) -> None:
    expected = drawn(open_(photos, "none").epoch(0))
    for cache in ("ram", "disk"):
        loader = open_(photos, cache, cache_gb=1e-9)
        assert drawn(loader.epoch(0)) == expected
        assert "0 of 11 photos" in loader.notes[-1]


def test_the_file_takes_no_more_than_the_budget(photo_folder: Callable[..., Path], folder: Path) -> None:
    root = photo_folder({"a": 20, "b": 20}, sizes=[(120, 100)])
    for budget in (300_000, 500_000, 10**9):
        cache = disk_cache(root, folder, cache_gb=budget / 1e9)
        fill(cache, 40)
        assert cache_bytes(Photos(root), np.arange(40), 320) > 1_200_000
        del cache
        assert 0.8 * min(budget, 1_400_000) < held_bytes(folder) <= budget


def test_a_file_above_a_smaller_budget_is_made_anew(photo_folder: Callable[..., Path], folder: Path) -> None:
    root = photo_folder({"a": 20, "b": 20}, sizes=[(120, 100)])
    pixels = fill(disk_cache(root, folder), 40)
    small = disk_cache(root, folder, cache_gb=3e-4)
    assert any("over the budget; made anew" in note for note in small.notes)
    assert held_bytes(folder) < 20_000
    assert not cached(small, pixels)


def test_photos_turned_otherwise_have_a_file_of_their_own(turned: tuple[Path, Path], photos: Path) -> None:
    keys = {exif: cache_key(Photos(turned[0], exif=exif), 320) for exif in ("apply", "ignore")}
    assert len({*keys.values()}) == 2
    same = {cache_key(Photos(photos, exif=exif), 320) for exif in ("apply", "ignore")}
    assert len(same) == 1  # none is turned


def test_files_used_longest_ago_make_room(photo_folder: Callable[..., Path], folder: Path) -> None:
    roots = [photo_folder({"a": 10, "b": 10}, sizes=[(120, 100)], name=f"set{i}") for i in range(4)]
    budget = {"cache_gb": 1.6e-3}  # for two of about 730 kB
    for n, root in enumerate(roots[:2]):
        fill(disk_cache(root, folder, **budget), 20)
        (file,) = (f for f in cache_files(folder) if f.stat().st_mtime > 10**9)
        os.utime(file, (n, n))
    first, second = (folder / f"{cache_key(Photos(r), 320)}.photos" for r in roots[:2])
    del file
    opened = disk_cache(roots[2], folder, **budget)
    assert any("deleted 1 file" in note for note in opened.notes)
    assert not first.exists()
    assert second.exists()
    kept = disk_cache(roots[1], folder, **budget)
    assert kept.get(0) is not None
    crowded = disk_cache(roots[3], folder, **budget)  # the two others are in use
    assert crowded.places < 20
    assert second.exists()
    fill(crowded, 20)
    fill(opened, 20)
    assert held_bytes(folder) <= 1_600_000 + 3 * 8192


def test_a_file_that_another_process_uses_is_kept(
    photos: Path, photo_folder: Callable[..., Path], folder: Path, other_process: Process
) -> None:
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


def test_leftovers_of_a_killed_start_are_removed(photos: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "1.photos.partial").write_bytes(b"flowerfast decoded photos 1\n")
    disk_cache(photos, folder)
    assert not list(folder.glob("*.partial"))


def test_nothing_is_deleted_that_is_not_ours(
    photos: Path, photo_folder: Callable[..., Path], folder: Path
) -> None:
    """Neither in data.cache_dir, which a config from elsewhere may name, nor in the folder in it."""
    elsewhere = folder.parent.parent / "elsewhere/flowerfast-photos"
    disk_cache(photo_folder({"a": 9, "b": 9}, name="other"), elsewhere)
    (other,) = cache_files(elsewhere)
    theirs = dict.fromkeys(("film.partial", "x.photos", "x.photos.partial", "lock"), b"theirs")
    theirs |= dict.fromkeys(
        ("empty.photos", "empty.photos.partial"), b""
    )  # without our mark, or a part of it
    theirs |= {"begun.photos": b"flower", "begun.photos.partial": b"flower"}
    for place in (folder, folder.parent):
        place.mkdir(parents=True, exist_ok=True)
        for name, content in theirs.items():
            (place / name).write_bytes(content)
        (place / "folder.photos").mkdir()
        (place / "folder.photos.partial").mkdir()
        (place / "linked.photos").symlink_to(other)
        (place / "linked.photos.partial").symlink_to(other)
    disk_cache(photos, folder, cache_gb=1e-6)
    for place in (folder, folder.parent):
        assert all((place / name).read_bytes() == content for name, content in theirs.items())
        assert (place / "linked.photos").is_symlink()
        assert (place / "folder.photos").is_dir()
        assert (place / "folder.photos.partial").is_dir()
    assert other.is_file()


@pytest.mark.parametrize("content", [b"theirs", b"", b"flower"])
def test_a_foreign_file_of_the_name_is_kept_under_another(photos: Path, folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    mine = folder / f"{cache_key(Photos(photos), 320)}.photos"
    mine.write_bytes(content)
    notes = disk_cache(photos, folder).notes
    (kept,) = folder.glob("*.not-ours-*")
    assert kept.read_bytes() == content
    assert f"disk cache: {mine.name} was no cache file, and is {kept.name} now" in notes


def test_files_of_earlier_versions_are_named(photos: Path, folder: Path) -> None:
    disk_cache(photos, folder)
    (file,) = cache_files(folder)
    file.rename(folder.parent / file.name)
    assert any(
        "of an earlier version and no longer used" in note for note in disk_cache(photos, folder).notes
    )


def test_a_full_disk_ends_caching_not_the_run(
    photos: Path, open_: Open, drawn: Drawn, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
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


def test_untouched_photos_take_no_room(photo_folder: Callable[..., Path], folder: Path) -> None:
    root = photo_folder({"a": 20, "b": 20}, sizes=[(120, 100)])
    cache = disk_cache(root, folder)
    assert len(cache.store) > 1_200_000
    cache.put(30, np.ones((100, 120, 3), np.uint8))
    assert held_bytes(folder) < 60_000


def test_a_folder_that_cannot_be_used_is_named(photos: Path, tmp_path: Path, open_: Open) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        UserError, match=r"^cache=disk: .*file/x/flowerfast-photos cannot be made .*; set data\.cache_dir"
    ):
        open_(photos, cache_dir=str(tmp_path / "file/x"))
