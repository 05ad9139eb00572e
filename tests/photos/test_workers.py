"""Threads that read photos: what hangs is named, can be stopped, and holds nobody."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import packed_table, scan
from flowerfast.photos import workers as module
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import WaitStopped, Workers, in_order, iter_chunks, leave, results, stopping
from tests.photos.tables import without_orientations


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What a call waits for that hangs, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of parts of a second."""
    brief = {"TOLD_AFTER": 0.03, "GIVEN_UP_AFTER": 0.3, "LEFT_AFTER": 0.1}
    brief |= {"_ASKED_AFTER": 0.05, "LOOK": 0.01}
    for name, seconds in brief.items():
        monkeypatch.setattr(module, name, seconds)


def test_calls_are_made_in_order_and_their_errors_raised() -> None:
    with closing(Workers(2, "test")) as pool:
        tasks = [pool.submit(np.arange(1), lambda n=n: 10 // n) for n in (1, 2, 5)]
        assert results(tasks, str) == [10, 5, 2]
        with pytest.raises(ZeroDivisionError):
            results([pool.submit(np.arange(1), lambda: 10 // 0)], str)
    with pytest.raises(RuntimeError, match="have been stopped"):
        pool.submit(np.arange(1), int)
    pool.close()


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (6, 3), (7, 3), (2, 100)])
def test_chunks_put_together_are_the_whole(count: int, size: int) -> None:
    chunks = list(iter_chunks(np.arange(count), size))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert [i for chunk in chunks for i in chunk.tolist()] == list(range(count))


def test_results_come_in_order_and_few_are_under_way() -> None:
    started: list[int] = []
    taken = 0

    def work(samples: np.ndarray) -> int:
        item = int(samples[0])
        started.append(item)
        time.sleep(0.003 * (item % 3))
        return item * item

    with closing(Workers(3, "test")) as pool:
        for i, square in enumerate(in_order(pool, work, iter_chunks(np.arange(40), 1), 5, str)):
            assert square == i * i
            taken += 1
            assert len(started) <= taken + 5
    assert taken == 40


def test_what_waits_is_cancelled_at_the_end(hang: threading.Event) -> None:
    pool = Workers(1, "test")
    first, second = pool.submit(np.arange(1), hang.wait), pool.submit(np.arange(1), int)
    while not first.running():
        time.sleep(0.001)
    threading.Timer(0.05, hang.set).start()
    pool.close()
    assert first.result() is True
    with pytest.raises(CancelledError):
        results([second], str)


@pytest.mark.usefixtures("quick")
def test_what_hangs_is_named_again_and_again_until_it_ends_the_run(
    hang: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Workers(2, "test")
    tasks = [pool.submit(np.arange(3), int), pool.submit(np.array([4, 7, 9]), hang.wait)]
    assert tasks[0].result() == 0
    with pytest.raises(RunFailed, match=r"nothing made of .+ p4 to p9 for 0.3 s: .+; see to it, then"):
        results(tasks, lambda index: f"p{index}")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4  # after 0.03 s, 0.06, 0.12 and 0.24
    assert all("one or more of 3 photos, p4 to p9 for " in line for line in told)
    pool.close()  # with the call still hanging


@pytest.mark.usefixtures("quick")
def test_who_waits_can_be_asked_to_stop(hang: threading.Event) -> None:
    pool = Workers(1, "test")
    tasks = [pool.submit(np.arange(1), hang.wait)]
    with stopping(lambda: True), pytest.raises(WaitStopped):
        results(tasks, str)
    leave(tasks)
    pool.close()


_SCRIPT = """
import sys, threading
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.photos import workers
from flowerfast.photos.photos import Photos

OPTIONS = DataConfig(backend="cpu", kernels="torchvision")
workers.LEFT_AFTER = 0.1
begun = threading.Event()

def hang(*_):
    begun.set()
    threading.Event().wait()

Photos.read = hang
loader = Loader(Photos(sys.argv[1]), size=32, augment=Augment(), device="cpu", workers=1, options=OPTIONS)
batches = loader.epoch(0)
threading.Thread(target=next, args=(batches,), daemon=True).start()
begun.wait()
print("over")
"""


def test_a_hung_read_does_not_hold_the_process(photo_folder: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(photo_folder())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("cache", ["none", "ram"])
def test_a_loader_names_the_photos_of_a_hung_read(
    photo_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hang: threading.Event,
    cache: str,
) -> None:
    photos = Photos(photo_folder())
    name = "decode" if cache == "ram" else "read"
    monkeypatch.setattr(Photos, name, lambda *_, **__: hang.wait())
    options = DataConfig(workers=1, backend="cpu", cache=cache)
    with Loader(photos, size=32, augment=Augment(), device="cpu", options=options) as loader:
        batches = loader.epoch(0)
        with pytest.raises(RunFailed, match=r"nothing made of .+(daisy|rose|tulip)_\d+\.jpg.* for 0.3 s"):
            next(batches)
    assert "still waiting" in caplog.text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("packed", [False, True])
def test_the_first_look_at_headers_names_what_hangs_and_ends(
    photo_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hang: threading.Event,
    packed: bool,
) -> None:
    """Of a folder, and of shards of earlier versions, which do not say how photos are turned."""
    folder, told = photo_folder({"a": 20, "b": 20}), []
    if packed:
        pack(folder, tmp_path / "shards", PackSettings(), DataConfig())
        without_orientations(folder := tmp_path / "shards")
    monkeypatch.setattr("flowerfast.photos.workers.usable_cores", lambda: 1)  # so that they come in turn
    read, looked = scan.read_header, []

    def fake(*given: object) -> object:
        looked.append(given)
        return read(*given) if len(looked) < 30 else hang.wait()

    monkeypatch.setattr(packed_table if packed else scan, "read_header", fake)
    said = (
        r"nothing made of one or more of 16 photos, (\S+ \()?a/a_016\.jpg\)? to .+ for 0.3 s: .+; see to it"
    )
    with pytest.raises(RunFailed, match=said):
        Photos(folder, progress=lambda *done: told.append(done))
    assert "a_016.jpg" in caplog.text
    assert "still waiting" in caplog.text
    monkeypatch.setattr(packed_table if packed else scan, "read_header", read)
    assert len(Photos(folder)) == 40  # nothing of it was kept
