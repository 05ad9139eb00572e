"""When the cache of a folder's headers may be believed, and what it costs when it may not."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowerfast.photos import formats
from flowerfast.photos import kept_tables as module
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos
from tests.photos.tables import read_table, same

Write = Callable[..., Path]


def test_a_cache_of_earlier_versions_lacks_orientations_and_is_made_anew(
    photo_folder: Write, scans: list[Path], own_cache: Path
) -> None:
    root = photo_folder({"a": 1, "b": 1})
    before = read_table(root)
    (cache,) = (own_cache / "manifests").iterdir()
    with np.load(cache) as stored:
        older = {name: stored[name] for name in stored.files if name != "orientation"}
    np.savez(cache, **older)
    scans.clear()
    assert same(read_table(root), before)
    assert len(scans) == 2


def test_the_cache_saves_the_second_scan(
    photo_folder: Write, scans: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photo_folder({"daisy": 3, "rose": 2})
    (root / "rose/garbage.jpg").write_bytes(b"no")
    first = read_table(root)
    assert len(scans) == 6
    assert len(list((own_cache / "manifests").iterdir())) == 1  # and no temporary file
    second = read_table(root)
    monkeypatch.chdir(root.parent)
    third = read_table(Path(root.name))
    assert len(scans) == 6
    assert same(first, second)
    assert same(first, third)
    assert third.root == Path(root.name)


def test_each_folder_has_a_cache_of_its_own(photo_folder: Write, scans: list[Path]) -> None:
    one, other = photo_folder({"a": 1, "b": 1}), photo_folder({"a": 1, "b": 1}, name="other")
    for root in (one, other, one, other):
        assert read_table(root).root == root
    assert len(scans) == 4


def _add(root: Path) -> None:
    (root / "a/new.jpg").write_bytes((root / "a/a_000.jpg").read_bytes())


def _remove(root: Path) -> None:
    (root / "a/a_001.jpg").unlink()


def _rename(root: Path) -> None:
    (root / "a/a_001.jpg").rename(root / "a/a_009.jpg")


def _move_to_another_class(root: Path) -> None:
    (root / "a/a_001.jpg").rename(root / "b/a_001.jpg")


def _rewrite_at_the_same_length(root: Path) -> None:
    file = root / "a/a_001.jpg"
    before = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def _rewrite_at_the_same_time(root: Path) -> None:
    file = root / "a/a_001.jpg"
    before = file.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [_add, _remove, _rename, _move_to_another_class, _rewrite_at_the_same_length, _rewrite_at_the_same_time],
)
def test_the_cache_is_invalid_once_files_change(
    photo_folder: Write, scans: list[Path], change: Callable[[Path], None]
) -> None:
    root = photo_folder({"a": 3, "b": 2})
    before = read_table(root)
    scans.clear()
    change(root)
    after = read_table(root)
    assert len(scans) == len(after)
    assert after.fingerprint != before.fingerprint
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}
    assert set(after.paths()) == found
    scans.clear()
    assert same(read_table(root), after)
    assert not scans


def test_a_photo_that_may_be_read_at_last_is_seen(
    photo_folder: Write, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time of the file tells it: what the system refused is tried again at each start."""
    root, opened, refused = photo_folder({"a": 2, "b": 2}), module.open_regular, [True]

    def refuse(path: Path | str) -> int:
        if refused[0] and str(path).endswith("a_000.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    for where in (module, formats):
        monkeypatch.setattr(where, "open_regular", refuse)
    bad = read_table(root).bad
    assert [(file.path, file.error) for file in bad] == [("a/a_000.jpg", "Permission denied")]
    scans.clear()
    assert read_table(root).bad == bad
    assert not scans  # nothing has changed
    refused[0] = False
    assert not read_table(root).bad
    assert len(scans) == 4
    scans.clear()
    assert not read_table(root).bad
    assert not scans


def test_a_damaged_cache_is_scanned_anew(photo_folder: Write, own_cache: Path, scans: list[Path]) -> None:
    root = photo_folder({"a": 2, "b": 2})
    expected = read_table(root)
    (cache,) = (own_cache / "manifests").iterdir()
    whole = cache.read_bytes()
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    damaged = [b"", b"garbage", b"PK\x03\x04", whole[:-30], whole[: len(whole) // 2], plain.getvalue()]
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 200):
        damaged.append(whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))]) + whole[at + 1 :])
    rescanned = 0
    for content in damaged:
        cache.write_bytes(content)
        scans.clear()
        assert same(read_table(root), expected)
        rescanned += bool(scans)
    assert rescanned > len(damaged) / 2


def test_a_full_disk_costs_a_scan_not_the_run(
    photo_folder: Write,
    own_cache: Path,
    scans: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fill_up(file: Any, **_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    root = photo_folder({"a": 1, "b": 1})
    monkeypatch.setattr(np, "savez", fill_up)
    for _ in range(2):
        assert len(read_table(root)) == 2
    assert len(scans) == 4
    assert not list((own_cache / "manifests").iterdir())
    assert "sizes of photos are not kept (No space left on device" in caplog.text


@pytest.mark.parametrize("at", ["manifests", "entry"])
def test_a_cache_that_cannot_be_used_costs_a_scan_not_the_run(
    photo_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scans: list[Path], at: str
) -> None:
    root = photo_folder({"a": 1, "b": 1})
    folder = tmp_path / "cache"
    monkeypatch.setenv("FLOWERFAST_CACHE", str(folder))
    if at == "manifests":
        folder.mkdir()
        (folder / "manifests").write_text("a file in the way")
    else:
        read_table(root)
        (entry,) = (folder / "manifests").iterdir()
        entry.unlink()
        entry.mkdir()
        scans.clear()
    for _ in range(2):
        assert len(read_table(root)) == 2
    assert len(scans) == 4
    if at == "entry":
        assert [p.is_dir() for p in (folder / "manifests").iterdir()] == [True]  # no litter


def test_a_photo_of_other_dimensions_with_the_size_and_time_of_the_file_before_heals_itself(
    photo_folder: Write,
) -> None:
    root = photo_folder({"a": 2, "b": 2}, sizes=[(40, 30)])
    file, photos = root / "a/a_001.jpg", Photos(root)
    before = file.stat()
    other = io.BytesIO()
    Image.new("RGB", (30, 20)).save(other, "JPEG")
    assert len(other.getvalue()) < before.st_size
    file.write_bytes(other.getvalue() + bytes(before.st_size - len(other.getvalue())))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = Photos(root)
    assert again.table.fingerprint == photos.table.fingerprint
    assert (again.table.width[1], again.table.height[1]) == (40, 30)  # nothing tells yet
    with pytest.raises(DecodeError, match="is 30x20 now, was 40x30 when scanned"):
        again.decode(1)
    healed = Photos(root)
    assert (healed.table.width[1], healed.table.height[1]) == (30, 20)
    assert healed.decode(1).shape == (20, 30, 3)
