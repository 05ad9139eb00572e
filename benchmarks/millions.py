"""What packing, merging and opening take of memory at ten million photos: made rows, no photos.

    python benchmarks/millions.py [--rows N] [--files N] [--out benchmarks/results/millions-NAME.json]

The rows of finished shards are written down as `pack` writes them, the shards themselves are sparse files.
Each figure is of a process of its own: the highest memory that no file backs, looked at every few
milliseconds, less what Python and its libraries had taken before, and seconds. Listing files and reading
their headers needs files: two folders of tiny photos are made, one of half of `--files`. Ten million rows
take half an hour, and 10 GB of disk for a while.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.growth import make_folder
from flowerfast.bench.child import Child, Variant
from flowerfast.bench.environment import SCHEMA, environment, write_results
from flowerfast.packing.pack import shard_order
from flowerfast.packing.parts import merge, part_name, rows_of
from flowerfast.packing.shard_writer import PackSettings, ShardWriter, open_writer
from flowerfast.packing.target import Folder
from flowerfast.photos.arrays import save_arrays
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import PARTS, SHARD_NAME
from flowerfast.photos.table import Table

_HOURS = 4 * 3600.0
_PER_SHARD = 10_000  # photos: of 50 kB, shards of the usual 500 MB
_BYTES = 50_000  # of a photo
_CLASSES = 1000
_JOBS = 64
_LOOK = 0.005  # seconds
_MODULE = "benchmarks.millions"


class Memory:
    """Highest memory of this process that no file backs, beyond what it had when this was made: `peak`."""

    def __init__(self) -> None:
        self._first = self.peak = _anonymous()

    def __enter__(self) -> "Memory":
        self._over, self._began = threading.Event(), time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._over.set()
        self._thread.join()
        self.peak = max(self.peak, _anonymous()) - self._first

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            self.peak = max(self.peak, _anonymous())

    def figures(self) -> dict[str, float]:
        """MB (1e6 bytes) beyond `before`, and seconds."""
        return {
            "mb": round(self.peak / 1e6, 1),
            "before_mb": round(self._first / 1e6, 1),
            "seconds": round(self.seconds, 2),
        }


def _anonymous() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def made_table(rows: int) -> Table:
    """A table of photos that are nowhere: 30 bytes of path each, in a thousand classes."""
    label = np.repeat(np.arange(_CLASSES, dtype=np.int32), -(-rows // _CLASSES))[:rows]
    path = np.frombuffer(b"class_000/6000000_8576bf_n.jpg", np.uint8)
    paths = np.tile(path, rows).reshape(rows, len(path))
    number = np.arange(rows)
    for place, value in ((16, number), (8, label)):
        left = value
        for digit in range(7 if place == 16 else 3):
            paths[:, place - digit] = 48 + left % 10
            left = left // 10
    return Table(
        root=Path("/nowhere"),
        classes=tuple(f"class_{number:03d}" for number in range(_CLASSES)),
        label=label,
        width=np.full(rows, 500, np.int32),
        height=np.full(rows, 400, np.int32),
        orientation=np.ones(rows, np.uint8),
        size=np.full(rows, _BYTES, np.int64),
        fold=np.zeros(rows, np.uint8),
        path_bytes=paths.reshape(-1),
        path_ends=np.arange(1, rows + 1) * len(path),
        fingerprint="made",
    )


def written(folder: str, rows: int, jobs: int) -> dict[str, Any]:
    """Memory of the end of packing: the table, the order and all rows are there, the index is made."""
    memory = Memory()
    table = made_table(rows)
    part = None if jobs == 1 else (1, jobs)
    with memory:
        indices, order = np.arange(rows), rows_of(shard_order(table.fold), part)  # as `pack` has them
        writer = open_writer(Path(folder), table, PackSettings(), part)
        assert writer is not None
        index = writer.finish()
    assert len(indices) >= len(order) == len(index.columns["label"])
    return {**memory.figures(), "rows": len(order)}


def make_shards(folder: Path, table: Table, part: tuple[int, int] | None) -> None:
    """What packing leaves before the index: the rows of each shard, and shards, which are sparse."""
    writer = open_writer(folder, table, PackSettings(), part)
    assert writer is not None
    order, rng = rows_of(shard_order(table.fold), part), np.random.default_rng(1)
    for number, at in enumerate(range(0, len(order), _PER_SHARD)):
        rows = order[at : at + _PER_SHARD]
        member = _BYTES + 2048
        shard = folder / f"shard-{number:06d}.tar"
        assert SHARD_NAME.fullmatch(shard.name)
        with shard.open("wb") as file:
            file.truncate(len(rows) * member + 1024)
        columns = {
            "row": rows,
            "width": table.width[rows],
            "height": table.height[rows],
            "orientation": table.orientation[rows],
            "size": table.size[rows],
            "offset": 1536 + np.arange(len(rows)) * member,
            "crc32": rng.integers(0, 1 << 32, len(rows), np.uint32),
        }
        about = {
            "shard": [shard.name, shard.stat().st_size],
            "fold": 0,
            "done": at + len(rows),
            "bad": [],
            "suffixes": {"jpg": len(rows)},
            "recoded": 0,
            "seekable": 0,
        }
        save_arrays(folder / PARTS / f"{number:06d}.npz", about, columns)


def merged(folder: str, jobs: int) -> dict[str, Any]:
    """Memory of writing the index over all parts."""
    with Memory() as memory:
        absent = merge(Folder(Path(folder)), jobs)
    assert not absent
    return memory.figures()


def opened(folder: str) -> dict[str, Any]:
    """Memory of opening shards, and of reading rows."""
    with Memory() as memory:
        photos = Photos(folder)
    return {**memory.figures(), "rows": len(photos)}


def scanned(folder: str) -> dict[str, Any]:
    """Memory of the first look at a folder of files: listing, headers, the cache of both."""
    with Memory() as memory:
        photos = Photos(folder)
    return {**memory.figures(), "files": len(photos)}


def prepared(folder: str, rows: int, jobs: int) -> dict[str, Any]:
    """Shards to measure on, packed whole or by many jobs, of which all but the first have their index."""
    table = made_table(rows)
    if jobs == 1:
        make_shards(Path(folder), table, None)
        return {}
    for number in range(1, jobs + 1):
        place = Path(folder, part_name((number, jobs)))
        make_shards(place, table, (number, jobs))
        if number > 1:
            writer: ShardWriter | None = open_writer(place, table, PackSettings(), (number, jobs))
            assert writer is not None
            writer.finish()
    return {}


def measure(rows: int, files: int, folder: Path) -> dict[str, Any]:
    """All figures, each in a process of its own."""
    whole, parts, photos = (str(folder / name) for name in ("whole", "parts", "photos"))
    cache = {"FLOWERFAST_CACHE": str(folder / "cache")}
    figures: dict[str, Any] = {}

    def call(what: str, function: Callable[..., Any], **options: Any) -> None:
        with Child(Variant(what, f"{_MODULE}:{function.__name__}", options), cache) as child:
            found = child.call(_HOURS)
        if found:
            figures[what] = found
            print(what, json.dumps(found), flush=True)

    call("", prepared, folder=whole, rows=rows, jobs=1)
    call("the index, at the end of packing", written, folder=whole, rows=rows, jobs=1)
    call("opening it", opened, folder=whole)
    call("", prepared, folder=parts, rows=rows, jobs=_JOBS)
    first = str(Path(parts, part_name((1, _JOBS))))
    call(f"one job of {_JOBS}, at its end", written, folder=first, rows=rows, jobs=_JOBS)
    call(f"merging {_JOBS} parts", merged, folder=parts, jobs=_JOBS)
    call("opening what was merged", opened, folder=parts)
    for count in (files // 2, files):
        make_folder(Path(photos, str(count)), count)
        call(f"the first look at {count:,} files", scanned, folder=str(Path(photos, str(count))))
    return figures


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument(
        "--files", type=int, default=300_000, help="photos that are made, listed and looked at"
    )
    parser.add_argument("--folder", type=Path, help="where all of it is made; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="millions-") as place:
        figures = measure(args.rows, args.files, Path(place))
    if args.out:
        result = {
            "kind": "millions",
            "schema": SCHEMA,
            "environment": environment(torch.device("cpu")),
            "rows": args.rows,
            "jobs": _JOBS,
            "figures": figures,
        }
        write_results(args.out, result)


if __name__ == "__main__":
    main()
