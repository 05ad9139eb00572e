"""Shards at a URL: the photos of the local copy, whatever fails on the way, and nothing fetched twice."""

import os
import pickle
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.verify import damaged
from flowerfast.photos import remote, remote_shards, shard_cache
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_cache import Mirror, ShardCache
from flowerfast.photos.shard_index import INDEX, STATE, Shard
from tests.photos.store import Store

pytest.importorskip("aiohttp")
Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.4)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


@pytest.fixture
def shards(photo_folder: Write) -> Path:
    """30 photos of two classes in several shards."""
    folder = photo_folder({"daisy": 16, "rose": 14})
    pack(folder, folder.parent / "shards", SMALL, DataConfig())
    return folder.parent / "shards"


@pytest.fixture
def store(shards: Path) -> Iterator[Store]:
    with Store(shards) as served:
        yield served


def contents(photos: Photos) -> list[bytes]:
    found, _ = photos.read(photos.indices)
    assert all(isinstance(photo, np.ndarray) for photo in found), found
    return [photo.tobytes() for photo in found if isinstance(photo, np.ndarray)]


def test_photos_are_those_of_the_local_copy_and_fetched_once(store: Store, shards: Path) -> None:
    local, far = Photos(shards), Photos(store.url)
    assert [path for path, _ in store.asked] == [f"/shards/{INDEX}"]
    assert (far.source, far.classes, far.fingerprint) == (store.url, local.classes, local.fingerprint)
    assert contents(far) == contents(local)
    assert 0 < store.of_shards() <= len(local)
    store.asked.clear()
    assert contents(far) == contents(local)
    assert [far.read_one(i).tobytes() for i in far.indices] == contents(local)
    assert contents(Photos(store.url)) == contents(local)  # of another run
    assert store.of_shards() == 0


def test_photos_are_read_by_one_and_by_many_threads(store: Store, shards: Path) -> None:
    expected, far = contents(Photos(shards)), Photos(store.url)
    rows = np.random.default_rng(0).integers(0, len(far), 200).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda row: far.read_one(row).tobytes() == expected[row], rows))
    assert store.of_shards() <= len(far)


@pytest.mark.parametrize("fault", ["error", "drop", "cut", "short", "stall", "other"])
def test_a_request_that_fails_is_made_again(store: Store, shards: Path, fault: str) -> None:
    fails = {1} if fault == "other" else {1, 3, 5, 7}
    store.faults = lambda number, path: fault if number in fails else None
    assert contents(Photos(store.url)) == contents(Photos(shards))


def test_photos_are_right_where_one_request_of_twenty_fails(store: Store, shards: Path) -> None:
    kinds, rng = ("error", "drop", "cut", "short"), np.random.default_rng(0)
    fails = {int(n): kinds[n % 4] for n in np.flatnonzero(rng.random(10_000) < 0.05)}
    store.faults = lambda number, path: fails.get(number)
    expected = contents(Photos(shards))
    for n in range(8):
        assert contents(Photos(store.url, cache_dir=shards.parent / f"cache-{n}")) == expected
    assert any(number in fails for number in range(store.number()))


@pytest.mark.parametrize(("fault", "why"), [("error", "500"), ("stall", "no answer"), ("short", "where")])
def test_what_never_comes_ends_the_run_in_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, fault: str, why: str
) -> None:
    monkeypatch.setattr(remote, "TRIES", 3)
    far = Photos(store.url)
    store.faults = lambda number, path: fault
    with pytest.raises(RunFailed, match=rf"^{store.url}/shard-0+\d\.tar: tried 3 times \(.*{why}.*\); see"):
        far.read_one(0)
    store.faults = lambda number, path: None
    far.read_one(0)  # and goes on when it comes back


def test_objects_that_changed_give_no_photo(store: Store, shards: Path) -> None:
    far = Photos(store.url, on_bad="fail")
    tar = shards / "shard-000000.tar"
    tar.write_bytes(bytes(byte ^ 1 for byte in tar.read_bytes()))
    index = far.table.shards
    assert index is not None
    rows = np.flatnonzero(index.shard == 0)
    for photo in far.read(rows)[0]:
        assert isinstance(photo, OSError)
        assert "its bytes are not those that were packed" in str(photo)
    with pytest.raises(OSError, match="not those that were packed"):
        far.read_one(int(rows[0]))
    assert damaged(Path(store.url)) == [far.where(row) for row in rows[np.argsort(index.offset[rows])]]
    tar.unlink()
    with pytest.raises(RunFailed, match=r"shard-000000\.tar: not served \(.*\); see to the URL"):
        far.read_one(int(rows[0]))


def test_what_is_kept_here_proves_nothing_of_what_is_there(store: Store, shards: Path) -> None:
    contents(Photos(store.url))
    for tar in shards.glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    assert len(damaged(Path(store.url))) == 30


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


def taken(folder: Path) -> int:
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*"))


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


def test_an_epoch_is_fetched_ahead_in_its_order(
    store: Store, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_shards, "_FIRST_WINDOW", 1)
    monkeypatch.setattr(remote_shards, "_WINDOW", 1)
    far, order = Photos(store.url), np.random.default_rng(1).permutation(30)
    store.asked.clear()
    far.expect(iter(np.split(order, 5)))
    for walk in [thread for thread in threading.enumerate() if thread.name == "flowerfast-walk"]:
        walk.join(20)
        assert not walk.is_alive()
    index = far.table.shards
    assert index is not None
    names = [path.rpartition("/")[2] for path, _ in store.asked]
    first = {index.files[shard].name for shard in index.shard[order[:6]]}
    assert {*names[: len(first)]} <= {index.files[shard].name for shard in index.shard[order[:12]]}
    store.asked.clear()
    assert contents(far) == contents(Photos(shards))
    assert store.of_shards() == 0


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_and_a_copy_fetch_themselves(store: Store, shards: Path) -> None:
    code = (
        "import os, sys\nfrom flowerfast.photos.photos import Photos\n"
        "local, far = Photos(sys.argv[1]), Photos(sys.argv[2])\n"
        "far.read_one(0)\n"
        "child = os.fork()\n"
        "same = all(far.read_one(i).tobytes() == local.read_one(i).tobytes() for i in far.indices)\n"
        "if not child: os._exit(not same)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not same)\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", code, str(shards), store.url]
    assert subprocess.run(run, timeout=100).returncode == 0
    far = Photos(store.url)
    far.read_one(1)
    assert contents(pickle.loads(pickle.dumps(far))) == contents(Photos(shards))


def test_an_index_that_is_not_there_is_one_line(store: Store, shards: Path) -> None:
    (shards / INDEX).rename(shards / "aside")
    with pytest.raises(UserError, match=rf"^{store.url}: packing was not finished; run the same"):
        Photos(store.url)
    (shards / STATE).unlink()
    with pytest.raises(
        UserError, match=rf"^{store.url}/{INDEX}: not served \(.*\); .*; give what `flowerfast"
    ):
        Photos(store.url)
    (shards / "aside").rename(shards / INDEX)
    content = bytearray((shards / INDEX).read_bytes())
    content[len(content) // 2] ^= 1
    (shards / INDEX).write_bytes(content)
    with pytest.raises(UserError, match=rf"^{store.url}/{INDEX}: no index of this flowerfast"):
        Photos(store.url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nothing://bucket/shards", "^nothing://bucket/shards: Protocol not known: .*give a folder, or"),
        ("http://127.0.0.1:9/shards", r"^http://127\.0\.0\.1:9/shards/flowerfast-index\.npz: .*see to the "),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TRIES", 2)
    with pytest.raises((UserError, RunFailed), match=said):
        Photos(url)


def test_of_an_endless_answer_no_more_is_taken_than_was_asked_for(store: Store, shards: Path) -> None:
    store.faults = lambda number, path: "endless" if number == 0 else None
    assert contents(Photos(store.url)) == contents(Photos(shards))
    assert store.sent < 20 << 20  # what lies in buffers of both ends


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


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r'^s3://b/shards: .*pip install "flowerfast\[remote\]"'):
        Photos("s3://b/shards")


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
