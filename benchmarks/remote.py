"""What reading shards from a URL costs: requests and bytes per epoch, from a cold and a warm cache, one JSON.

    python benchmarks/remote.py DATA [--shard-mb 4] [--out benchmarks/results/remote.json]

The store is fsspec's own in memory: what is counted hangs on no network, and no time is measured.
"""

import argparse
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.augment import Augment
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.photos.remote import Remote

ROOT = Path(__file__).resolve().parents[1]
URL = "memory://bucket/shards"
ORDERS = ("random", "blocks", "blocks-first")
ROOM = {"for all": 1.5, "for half": 0.5}
"""How much the cache may hold, in times the bytes of the shards."""
EPOCHS = 3


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Within, requests and bytes that `Remote.read` gives are counted."""
    counts, lock, read = {"requests": 0, "bytes": 0}, threading.Lock(), Remote.read

    def noted(remote: Remote, name: str, start: int, end: int) -> bytes:
        with lock:  # of many threads
            counts["requests"] += 1
            counts["bytes"] += end - start
        return read(remote, name, start, end)

    with patch.object(Remote, "read", noted):
        yield counts


def epochs(order: str, room: int, cache: Path) -> list[dict[str, int]]:
    """Requests and bytes of each epoch of the training half."""
    data = DataConfig.model_validate({"order": order, "workers": 2})
    train, _ = Photos(URL, cache_dir=cache, cache_gb=room / 1e9).split()
    rows = []
    with Loader(train, size=64, batch_size=32, augment=Augment(), device="cpu", options=data) as loader:
        for epoch in range(EPOCHS):
            with counted() as counts:
                samples = sum(len(batch.labels) for batch in loader.epoch(epoch))
            rows.append({"samples": samples, **counts})
    return rows


def measure(data: Path, shard_mb: float) -> dict[str, Any]:
    """All orders and sizes of the cache."""
    packed = pack(data, Path(URL), PackSettings(shard_bytes=round(shard_mb * 1e6)), DataConfig())
    rows: dict[str, Any] = {}
    for room, times in ROOM.items():
        for order in ORDERS:
            cache = Path(tempfile.mkdtemp(prefix="remote-"))
            rows[f"{order}, room {room}"] = epochs(order, round(times * packed.bytes_after), cache)
            shutil.rmtree(cache)
            print(order, room, rows[f"{order}, room {room}"], flush=True)
    return {
        "schema": SCHEMA,
        "kind": "remote",
        "environment": environment(torch.device("cpu")),
        "data": describe_photos(Photos(URL), data.name),
        "shards": packed.shards,
        "bytes": packed.bytes_after,
        "epochs": rows,
    }


def main() -> int:
    """Count and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photos")
    parser.add_argument("--shard-mb", type=float, default=4.0, help="size of a shard at most")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "remote.json")
    args = parser.parse_args()
    write_results(args.out, measure(args.data, args.shard_mb))
    return 0


if __name__ == "__main__":
    sys.exit(main())
