"""Shards at a URL, of which requests fail and what is kept here is damaged: right bytes, or none."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.torture.caches import paint
from benchmarks.torture.trial import Tally, Trial
from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos

_FAULTS = ("error", "short", "long", "other", "none")
_BATCH = 5


def _spoilt(content: bytes, fault: str, rng: np.random.Generator) -> bytes:
    if fault == "error":
        raise OSError("the connection was lost")
    if fault == "short":
        return content[: int(rng.integers(len(content)))]
    if fault == "long":
        return content + b"x"
    if fault == "none":
        return b""
    changed = bytearray(content)
    changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@contextmanager
def shaky(rng: np.random.Generator, share: float, tally: Tally) -> Iterator[None]:
    """Within, so large a share of the requests for shards fails, in one of the ways of _FAULTS."""
    call, lock = remote.Remote._call, threading.Lock()

    def shake(self: remote.Remote, method: str, *given: Any, **options: Any) -> Any:
        content = call(self, method, *given, **options)
        if method != "cat_file" or not given[0].endswith(".tar"):
            return content
        with lock:  # of many threads
            tally.count("requests")
            if rng.random() >= share:
                return content
            tally.count("failed requests")
            return _spoilt(content, _FAULTS[int(rng.integers(len(_FAULTS)))], rng)

    with patch.object(remote.Remote, "_call", shake), patch.object(remote, "FIRST_WAIT", 0.0):
        yield


def damage(folder: Path, rng: np.random.Generator) -> None:
    """What a kill, a full disk or somebody else may have made of the files that are kept."""
    for file in sorted(folder.glob("*.tar")):
        kind = int(rng.integers(6))
        if kind == 0:
            file.unlink()
        elif kind == 1:
            os.truncate(file, int(rng.integers(file.stat().st_size + 1)))
        elif kind < 4:
            with file.open("r+b") as stream:
                stream.seek(int(rng.integers(file.stat().st_size + 1)))
                stream.write(bytes(int(rng.integers(4096))))


def survive(cases: range, folder: Path) -> Tally:
    """See `REMOTE`."""
    tally, url = Tally(), f"memory://{folder.name}"
    source = paint(folder / "photos")
    pack(source, folder / "shards", PackSettings(shard_bytes=20_480), DataConfig(workers=1))
    pack(source, Path(url), PackSettings(shard_bytes=20_480), DataConfig(workers=1))
    local = Photos(folder / "shards")
    truth = [local.read_one(row).tobytes() for row in local.indices.tolist()]
    for case in cases:
        rng, faults = (np.random.default_rng([17, case, part]) for part in (0, 1))
        cache = folder / "cache"
        far = Photos(url, cache_dir=cache, cache_gb=float(rng.choice([1e-8, 4e-5, 1.0])))
        with shaky(faults, float(rng.choice([0.0, 0.05, 0.3])), tally):
            for _ in range(2):
                _read(far, truth, rng, tally, case)
                damage(far.root, rng)
        tally.tried += 1
        if rng.random() < 0.5:
            shutil.rmtree(cache)
    return tally


def _read(far: Photos, truth: list[bytes], rng: np.random.Generator, tally: Tally, case: int) -> None:
    """One epoch; what does not come is counted, what is wrong fails the case."""
    shards = far.table.shards
    assert shards is not None
    order, in_blocks = rng.permutation(len(truth)), bool(rng.integers(2))
    if in_blocks:
        order = order[np.argsort(shards.shard[order], kind="stable")]
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    if rng.integers(2):
        far.expect(iter(batches), in_blocks)
    for rows in batches:
        try:
            found, _ = far.read(rows)
        except RunFailed:
            tally.count("given up")
            continue
        for row, photo in zip(rows.tolist(), found, strict=True):
            if isinstance(photo, OSError):
                tally.count("photos refused")
            elif photo.tobytes() != truth[row]:
                tally.fail(case, f"photo {row} is another")
    far.expect(iter(()))


REMOTE = Trial(
    "remote",
    "Of shards at a URL every photo has the bytes that were packed, or is refused, whatever fails.",
    "runs of two epochs",
    survive,
    full=2_000,
    quick=25,
    chunk=250,
)
