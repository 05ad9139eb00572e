"""Shards at a URL: the photos of the local copy, whatever fails on the way, and nothing fetched twice."""

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.verify import damaged
from flowerfast.photos import remote, remote_shards
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, STATE
from tests.photos.packed import contents
from tests.photos.store import Store

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("impatient")


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


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r'^s3://b/shards: .*pip install "flowerfast\[remote\]"'):
        Photos("s3://b/shards")
