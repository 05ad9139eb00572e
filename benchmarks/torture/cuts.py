"""Kills and losses of power at every step of a run, of packing and of filling a cache.

Each operation is recorded once by `recorder`; a case is what one of them may leave of its folder, and goes on
from there. Even numbers are kills, odd ones losses of power.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.torture.recorder import Look, leave, recording
from benchmarks.torture.small import begin, outcome, paint, quiet
from benchmarks.torture.trial import Tally, Trial
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import read_index
from flowerfast.training.run import train
from flowerfast.training.run_folder import RunFolder

_SEED = 20_260_101


def _try_all(
    cases: range, looks: list[Look], place: Path, recover: Callable[[Path, Look], str | None]
) -> Tally:
    """Leave each case's remains in `place` and recover: `recover` says what is wrong with the result."""
    tally = Tally()
    tally.count("most cut points", len(looks))
    for case in cases:
        rng = np.random.default_rng([_SEED, case])
        at, power = (case // 2) % len(looks), case % 2 == 1
        shutil.rmtree(place, ignore_errors=True)
        leave(looks, at, rng, power, place)
        tally.tried += 1
        tally.count("losses of power" if power else "kills")
        try:
            problem = recover(place, looks[at])
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            tally.fail(case, f"{'power' if power else 'kill'} at step {at}: {problem}")
    return tally


# -------------------------------------------------------------------------------------------------- training


@quiet()
def try_run(cases: range, folder: Path) -> Tally:
    """A run of two epochs that saves after each batch."""
    photos, place = paint(folder / "photos"), folder / "place"
    looks, saved = _record_run(photos, place)
    expected = outcome(place / "run")

    def recover(place: Path, look: Look) -> str | None:
        run = RunFolder(place / "run")
        least = saved[look.marks - 1] if look.marks else None
        if run.has_save:
            progress = run.load_last()["progress"]
            if least is not None and (progress["epoch"], progress["batch"]) < least:
                return f"a save of {least} was complete, and {progress['epoch'], progress['batch']} is left"
        elif least is not None:
            return f"a save of {least} was complete, and none is left"
        try:
            train(out=run.path, resume=True)
        except UserError as error:
            if "drop --resume to start" not in str(error):
                raise
            begin(photos, run.path)
        found = outcome(run.path)
        return None if found == expected else "its end is another"

    return _try_all(cases, looks, place, recover)


def _record_run(photos: Path, place: Path) -> tuple[list[Look], list[tuple[int, int]]]:
    """The looks, and the (epoch, batch) of the saves that were complete, in their order."""
    saved: list[tuple[int, int]] = []
    save = RunFolder.save_last
    place.mkdir()
    with recording(place) as recorder:

        def note(self: RunFolder, state: dict[str, Any]) -> None:
            save(self, state)
            saved.append((state["progress"]["epoch"], state["progress"]["batch"]))
            recorder.mark()

        with patch.object(RunFolder, "save_last", note):
            begin(photos, place / "run")
    return recorder.looks, saved


# --------------------------------------------------------------------------------------------------- packing


def try_pack(cases: range, folder: Path) -> Tally:
    """Photos packed into several shards."""
    photos, place = paint(folder / "photos"), folder / "place"
    settings, config = PackSettings(shard_bytes=15_000), DataConfig(workers=1)
    place.mkdir()
    with recording(place) as recorder:
        pack(photos, place / "shards", settings, config)
    expected = _files(place / "shards")
    assert len(expected) > 4

    def recover(place: Path, _: Look) -> str | None:
        pack(photos, place / "shards", settings, config)
        read_index(place / "shards")
        return None if _files(place / "shards") == expected else "other shards"

    return _try_all(cases, recorder.looks, place, recover)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --------------------------------------------------------------------------------------------------- caching


def try_cache(cases: range, folder: Path) -> Tally:
    """An epoch that fills the cache of decoded photos on disk, and the cache of headers."""
    os.environ["FLOWERFAST_CACHE"] = str(folder / "place" / "user")
    photos, place = paint(folder / "photos"), folder / "place"
    place.mkdir()
    with recording(place) as recorder:
        expected = _epoch(photos, place)

    def recover(place: Path, _: Look) -> str | None:
        return None if _epoch(photos, place) == expected else "other pixels"

    return _try_all(cases, recorder.looks, place, recover)


def _epoch(photos: Path, place: Path) -> list[tuple[bytes, bytes]]:
    options = DataConfig(
        cache="disk", cache_dir=str(place / "decoded"), workers=1, backend="cpu", kernels="numba"
    )

    with Loader(
        Photos(photos), size=32, batch_size=5, augment=Augment(), device="cpu", options=options
    ) as loader:
        assert loader.cache == "disk"
        return [(batch.images.numpy().tobytes(), batch.labels.numpy().tobytes()) for batch in loader.epoch(0)]


TRIALS = [
    Trial(
        "cut runs",
        "A run that was killed or lost power at any step goes on from its last whole save to the same end.",
        "cuts",
        try_run,
        full=600,
        quick=4,
        chunk=300,
    ),
    Trial(
        "cut packing",
        "Packing that was killed or lost power at any step leaves, run again, the same shards.",
        "cuts",
        try_pack,
        full=1_200,
        quick=10,
        chunk=600,
    ),
    Trial(
        "cut caches",
        "A cache whose filling was killed or lost power at any step gives the same pixels.",
        "cuts",
        try_cache,
        full=1_200,
        quick=10,
        chunk=600,
    ),
]
