"""What is kept here of shards at a URL: used as far as it is right, within its bounds."""

import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import remote, shard_cache
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_cache import Mirror, ShardCache
from flowerfast.photos.shard_index import INDEX, Shard
from tests.photos.packed import SMALL, contents
from tests.photos.store import Store

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("impatient")
Write = Callable[..., Path]


def taken(folder: Path) -> int:
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*"))


@pytest.mark.parametrize("left", ["zeros", "half", "nothing", "longer", "folder"])
def test_what_others_left_of_a_shard_is_used_as_far_as_it_is_right(
    store: Store, shards: Path, left: str
) -> None:
    """A process that was killed, one that writes at this moment, a disk that is damaged."""
    far = Photos(store.url)
    for shard in shards.glob("*.tar"):
        content, place = shard.read_bytes(), far.root / shard.name
        if left == "folder":
            place.mkdir()
        else:
            half = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
            forms = {"zeros": bytes(len(content)), "half": half, "nothing": b"", "longer": content + b"x"}
            place.write_bytes(forms[left])
    assert contents(far) == contents(Photos(shards))


def test_files_that_are_taken_away_meanwhile_are_fetched_again(store: Store, shards: Path) -> None:
    far, expected = Photos(store.url), contents(Photos(shards))
    assert contents(far) == expected
    files = [*far.root.glob("*.tar")]
    for tar in files:
        tar.unlink()
    assert contents(far) == expected  # of files still open
    for tar in files:
        tar.write_bytes(b"")
    assert contents(Photos(store.url)) == expected
    store.asked.clear()
    assert contents(Photos(store.url)) == expected
    assert store.of_shards() == 0


def test_the_cache_keeps_to_its_bounds(store: Store, shards: Path, tmp_path: Path) -> None:
    expected, cache = contents(Photos(shards)), tmp_path / "cache"
    far = Photos(store.url, cache_dir=cache, cache_gb=5e-5)
    for _ in range(3):
        assert contents(far) == expected
        # A file system may take a block more of each, to say where the pieces of a sparse file lie.
        assert taken(cache) <= 50_000 + 4096 * len([*cache.rglob("*")])
    store.asked.clear()
    assert contents(far) == expected
    assert 0 < store.of_shards() <= len(far)  # but those that are there are not fetched


def test_threads_that_write_at_once_keep_to_the_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, content = Shard("shard-000000.tar", 1 << 20), bytes(30_000)
    (tmp_path / "shards").mkdir()
    cache = ShardCache(Mirror("", tmp_path / "shards" / "one", 60_000))
    begun, go_on, opened = threading.Event(), threading.Event(), os.fdopen

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return opened(*args, **options)

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(os, "fdopen", slow)
        first = pool.submit(cache.keep, shard, 0, content)
        assert begun.wait(10)
        assert not cache.has_room(len(content))
        assert not cache.keep(shard, len(content), content)
        go_on.set()
        assert first.result()
    cache.look_again()
    assert cache.keep(shard, len(content), bytes(1_000))


def test_other_data_sets_make_room_unless_they_are_in_use(
    store: Store, photo_folder: Write, tmp_path: Path
) -> None:
    pytest.importorskip("fcntl")
    others = tmp_path / "others"
    pack(photo_folder({"a": 9, "b": 9}, name="other"), others, SMALL, DataConfig())
    code = (
        "import sys\nfrom flowerfast.photos.photos import Photos\n"
        "photos = Photos(sys.argv[1], cache_dir=sys.argv[2], cache_gb=1.2e-4)\n"
        "photos.read(photos.indices)\nprint(photos.root, flush=True)\nsys.stdin.read()\n"
    )
    with (
        Store(others) as second,
        subprocess.Popen(
            [sys.executable, "-c", code, second.url, str(tmp_path / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stdout is not None
        first = Path(child.stdout.readline().strip())
        contents(Photos(store.url, cache_dir=tmp_path / "cache", cache_gb=4e-5))
        assert taken(first) > 20_000
        child.communicate("")
        assert child.returncode == 0
        contents(Photos(store.url, cache_dir=tmp_path / "cache", cache_gb=4e-5))
    assert not first.exists()


def test_a_full_disk_is_told_once_and_photos_come_all_the_same(
    store: Store, shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    far = Photos(store.url)
    far.read_one(0)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", full)
        for _ in range(2):
            assert [far.read_one(i).nbytes for i in far.indices] == far.table.size.tolist()
    told = [record.getMessage() for record in caplog.records]
    assert sum("photos are kept there no more (No space left" in line for line in told) == 1


def test_shards_that_have_been_read_make_room_for_those_to_come(
    store: Store, shards: Path, tmp_path: Path
) -> None:
    budget, expected = 75_000, contents(Photos(shards))
    far = Photos(store.url, cache_dir=tmp_path / "cache", cache_gb=budget / 1e9)
    index = far.table.shards
    assert index is not None
    assert len(index.files) > 3
    order = np.argsort(index.shard, kind="stable")
    for _ in range(2):
        far.expect(iter(np.split(order, 15)), by_shard=True)
        for row in order.tolist():
            assert far.read(np.array([row]))[0][0].tobytes() == expected[row]
            assert taken(tmp_path / "cache") <= budget


def test_an_index_for_which_there_is_no_room_is_refused_before_it_is_copied(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "free_disk", lambda _: 1000)
    with pytest.raises(UserError, match=rf"{INDEX}: [\d,]+ bytes, but 1,000 are free in .*; see to the URL"):
        Photos(store.url)
    assert store.asked == []


def test_space_is_counted_while_others_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x", "b/y"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(bytes(5000))
    whole, look = shard_cache._taken(tmp_path), os.scandir

    def gone(folder: Path | str) -> object:
        if str(folder).endswith("b"):
            raise FileNotFoundError(2, "No such file or directory", folder)
        return look(folder)

    monkeypatch.setattr(os, "scandir", gone)
    assert 0 < shard_cache._taken(tmp_path) < whole


def test_a_cache_folder_that_cannot_be_is_one_line(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"flowerfast-shards: cannot be written .*; set data\.cache_dir"):
        Photos(store.url, cache_dir=tmp_path / "file/x")


def test_two_indexes_at_one_url_share_no_photos(store: Store, shards: Path, photo_folder: Write) -> None:
    """Packed anew in the same place, with shards of the same names."""
    before = Photos(store.url)
    contents(before)
    shutil.rmtree(shards)
    pack(photo_folder({"daisy": 16, "rose": 14}), shards, PackSettings(max_side=16), DataConfig())
    after = Photos(store.url)
    assert after.root != before.root
    assert contents(after) == contents(Photos(shards))
    assert zlib.crc32(contents(before)[0]) == zlib.crc32(before.read_one(0))
