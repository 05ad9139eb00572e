"""one_bucket.py: the bucket answers as S3 does and counts; rounds become medians, and these a table."""

import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from benchmarks import one_bucket, resume_tables
from benchmarks.bucket import Bucket
from benchmarks.loaders import timed


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket `flowers` with two objects; beside the bucket's folder lies a file that is not in it."""
    folder = tmp_path / "served"
    (folder / "flowers" / "set").mkdir(parents=True)
    (folder / "flowers" / "set" / "a.bin").write_bytes(bytes(range(100)))
    (folder / "flowers" / "set" / "b&c.bin").write_bytes(b"b")
    (tmp_path / "secret").write_bytes(b"s")
    server = Bucket(folder, 0.0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asked(bucket: Bucket, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    """Status, body and headers of an answer."""
    try:
        with urlopen(Request(bucket.url + path, method=method, headers=headers)) as answer:
            return answer.status, answer.read(), answer.headers
    except HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


@pytest.mark.parametrize(
    ("span", "expected", "said"),
    [
        ("bytes=10-19", bytes(range(10, 20)), "bytes 10-19/100"),
        ("bytes=90-", bytes(range(90, 100)), "bytes 90-99/100"),
        ("bytes=90-500", bytes(range(90, 100)), "bytes 90-99/100"),
        ("bytes=-5", bytes(range(95, 100)), "bytes 95-99/100"),
    ],
)
def test_ranges(bucket: Bucket, span: str, expected: bytes, said: str) -> None:
    status, content, headers = asked(bucket, "/flowers/set/a.bin", Range=span)
    assert (status, content, headers["Content-Range"]) == (206, expected, said)
    assert bucket.counts == {"requests": 1, "bytes": len(expected)}


def test_whole_objects_sizes_lists_and_what_is_not_there(bucket: Bucket) -> None:
    assert asked(bucket, "/flowers/set/a.bin")[:2] == (200, bytes(range(100)))
    status, content, headers = asked(bucket, "/flowers/set/a.bin", "HEAD")
    assert (status, content, headers["Content-Length"]) == (200, b"", "100")
    listed = asked(bucket, "/flowers?list-type=2&prefix=set/b")[1]
    assert b"<Key>set/b&amp;c.bin</Key><Size>1</Size>" in listed
    assert b"a.bin" not in listed
    for path in ("/flowers/set/none", "/flowers", "/../secret", "/%2e%2e/secret"):
        assert asked(bucket, path)[0] == 404
    counts = json.loads(asked(bucket, "/counts")[1])
    assert counts == bucket.counts
    assert counts["requests"] == 7


class Asking:
    """A loader that asks the bucket for an object per batch, in the first epoch alone."""

    bucket: Bucket

    def __init__(self, job: Any) -> None:
        self.asks = True

    def epoch(self, number: int) -> Iterator[Any]:
        for _ in range(4):
            if self.asks:
                asked(self.bucket, "/flowers/set/a.bin")
            yield [1, 2, 3], None
        self.asks = False

    def save(self) -> Any:
        return {"asks": self.asks}

    def load(self, state: Any, epoch: int, batch: int) -> None:
        self.asks = state["asks"]


def test_epochs_are_timed_and_counted(bucket: Bucket, tmp_path: Path) -> None:
    Asking.bucket = bucket
    job = {"photos": "", "made": "", "rank": 0, "world": 1, "workers": 1, "batch": 4}
    orders = {"job": job, "counts": f"{bucket.url}/counts", "epochs": 2, "state": str(tmp_path / "state")}
    said: list[dict[str, Any]] = []
    timed._draw(Asking, {**orders, "load": None}, lambda **facts: said.append(facts))
    first, cold, warm = said
    assert first["first"] <= cold["seconds"]
    assert (cold["images"], cold["requests"], cold["bytes"]) == (12, 4, 400)
    assert (warm["images"], warm["requests"]) == (12, 0)
    kept = pickle.loads((tmp_path / "state").read_bytes())
    assert kept == {"epoch": 2, "batch": 2, "state": {"asks": False}}
    said.clear()
    timed._draw(Asking, {**orders, "load": str(tmp_path / "state")}, lambda **facts: said.append(facts))
    assert [*said[0]] == ["first", "requests", "bytes"]
    assert said[0]["requests"] == 0


def one_round(rate: float) -> dict[str, Any]:
    """A round as `one_bucket.one_round` gives it."""
    epoch = {"images": 100, "requests": 7, "bytes": 2_000_000}
    resumed = {"seconds": 1.5, "requests": 1, "bytes": 10_000}
    return {
        "first_batch": 2.0,
        "memory_bytes": 300_000_000,
        "cold": {"images_per_sec": rate, **epoch},
        "warm": {"images_per_sec": 2 * rate, **epoch, "requests": 0, "bytes": 0},
        "resume_warm": resumed,
        "resume_cold": resumed,
    }


def test_rounds_become_medians_and_a_table() -> None:
    rounds = [one_round(rate) for rate in (100, 130, 110)]
    median = one_bucket.summed(rounds)
    assert median["cold"]["images_per_sec"] == 110
    assert median["cold"]["spread"] == pytest.approx(1.4826 * 10)
    assert median["memory_bytes"] == 300_000_000
    stored = {"objects": 5, "bytes": 2_000_000}
    peers = {
        "litdata_streaming": {"name": "LitData", "error": "not installed: litdata"},
        "ours_blocks": {"name": "ours", "versions": {"a": "1"}, "stored": stored, "median": median},
    }
    settings = {
        "rounds": 3,
        "latency_ms": 20.0,
        "shard_bytes": 2e6,
        "batch_size": 64,
        "image_size": 224,
        "workers": 2,
    }
    result = {
        "environment": {"cpu": "X", "cores": 2, "date": "2026-01-01"},
        "data": {"photos": 100, "mean_pixels": 5e5},
        "settings": settings,
        "peers": peers,
    }
    case = {"sequence": "same", "next": "same", "lost": 0, "repeated": 0, "pixels": 1.0}
    resumed = {"peers": {"ours": {"cases": {"3 workers": case, "1 rank": {**case, "sequence": "batches"}}}}}
    made = resume_tables.streaming("x.json", result, resumed)
    assert "Not measured: LitData (not installed: litdata)." in made
    row = "| ours | 110 ± 15 | 220 ± 30 | 300 | 2.00 | 1.50 | 1.50 | workers: same; ranks: same batches |"
    assert row in made
    assert "| ours | 2.0 MB in 5 | 7 / 2.0 MB | 0 / 0.0 MB | 1 / 0.0 MB | 1 / 0.0 MB |" in made
