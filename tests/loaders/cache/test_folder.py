"""The folder of the decoded caches on disk: what makes room, what is not ours and stays, and its budget."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.errors import UserError
from flowerfast.loaders.cache.file import cache_key, held_bytes, pixels_start
from flowerfast.loaders.cache.store import cache_bytes
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.loaders.cache.disk import cache_files, cached, disk_cache, fill, go_on

pytest.importorskip("fcntl")

Open = Callable[..., Loader]
Process = Callable[..., subprocess.Popen[str]]
Drawn = Callable[..., dict[int, bytes]]


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("side", [40, 320])
def test_photos_beyond_the_budget_are_decoded_each_epoch(
    photos: Path,
    open_: Open,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
    backend_name: str,
    cache: str,
    side: int,
) -> None:
    whole = open_(photos, "ram", backend_name, cache_side=side)
    expected = [drawn(whole.epoch(epoch)) for epoch in range(3)]
    assert not whole.notes
    budget = cache_bytes(Photos(photos), np.arange(5), side)  # of 11
    room = -(-(budget + pixels_start(11)) // 4096) * 4096 if cache == "disk" else budget
    loader = open_(photos, cache, backend_name, cache_side=side, cache_gb=room / 1e9)
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
    photos: Path, open_: Open, drawn: Drawn, monkeypatch: pytest.MonkeyPatch, backend_name: str
) -> None:
    expected = [drawn(open_(photos, "none", backend_name).epoch(epoch)) for epoch in range(2)]
    loader, write, left = open_(photos, "disk", backend_name), os.pwrite, [8]

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
