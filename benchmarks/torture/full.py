"""Full disks: every file that is written, with room for so many bytes and no more.

Odd cases run on a small disk in memory where this process may mount one (root on Linux), which is full for
all files together; else, and in even cases, no file may grow beyond a limit.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors.numpy import load_file

from benchmarks.torture.small import SHORT, history, paint
from benchmarks.torture.trial import Tally, Trial
from flowerfast.augment import Augment
from flowerfast.commands.answers import answers
from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, WriteFailed
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.verify import damaged
from flowerfast.photos.photos import Photos
from flowerfast.training import run as training
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.trained import Prediction

_TRAINING = 3_000_000
"""Bytes of what a training run of the tiny network leaves, about; other work leaves far less."""
_WHOLE = 64 << 20  # bytes of a disk with room


class Broken(Exception):
    """The promise did not hold."""


@dataclass(frozen=True)
class Disk:
    """A folder with little room.

    Attributes:
        folder: where to write.
        fill: leaves so little room from then on.
        make_room: lets all be written from then on.
    """

    folder: Path
    fill: Callable[[], None]
    make_room: Callable[[], None]


@contextmanager
def mounted(folder: Path, room: int) -> Iterator[Disk | None]:
    """A disk of so many bytes, in memory; None where this process may not mount one."""
    folder.mkdir(parents=True)
    kind = f"tmpfs -o size={_WHOLE},mode=700 tmpfs"
    if not sys.platform.startswith("linux") or not _done("mount", "-t", *kind.split(), str(folder)):
        yield None
        return
    try:
        yield Disk(folder, lambda: _resize(folder, room), lambda: _resize(folder, _WHOLE))
    finally:
        _done("umount", "-l", str(folder))


def _resize(folder: Path, room: int) -> None:
    if not _done("mount", "-o", f"remount,size={room}", str(folder)):
        raise Broken("the size of the disk in memory cannot be changed")


def _done(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def limited(folder: Path, room: int) -> Iterator[Disk]:
    """A folder in which, as anywhere, this process may write files of so many bytes at most."""
    import resource  # not on Windows

    folder.mkdir(parents=True, exist_ok=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        yield Disk(folder, lower, lift)
    finally:
        lift()


def outcome(run: Path) -> dict[str, Any]:
    """What a run has computed: metrics without timings, all weights."""
    last = RunFolder(run).load_last()["trainer"]["network"]
    weights = {f"last {name}": tensor.numpy().tobytes() for name, tensor in last.items()}
    for name, array in load_file(run / "best" / "model.safetensors").items():
        weights[f"best {name}"] = array.tobytes()
    return {"rows": history(run), **weights}


def _check_line(error: BaseException, tally: Tally) -> None:
    text = error.line("run it again") if isinstance(error, WriteFailed) else str(error)
    if not isinstance(error, RunFailed | WriteFailed):
        raise Broken(f"{type(error).__name__}: {text}")
    if "\n" in text or " free" not in text or "cannot be written" not in text:
        raise Broken(f"does not say what is needed: {text}")
    tally.count("refused in one line")


def _check_clean(folder: Path) -> None:
    left = [str(f.relative_to(folder)) for f in folder.rglob("*") if f.name.endswith((".partial", ".tmp"))]
    if left:
        raise Broken(f"left behind: {', '.join(left)}")


class _Work:
    """Photos, and what the work on them gives when nothing goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = paint(folder / "photos", 14, (56, 48))
        Photos(self.photos)  # its headers are kept
        self.whole = self.train(folder / "whole")
        self.expected = outcome(folder / "whole")
        pack(self.photos, folder / "whole-shards", PackSettings(shard_bytes=20_480), DataConfig(workers=1))

    def train(self, out: Path, plots: bool = False, **options: Any) -> Any:
        settings = {**SHORT, **options.pop("settings", {})}
        draw = training.draw if plots else lambda *_: None
        with patch.object(training, "draw", draw):
            data = None if options.get("resume") else self.photos
            given = {} if options.get("resume") else settings
            return training.train(data, out=out, settings=given, **options)


def _trained(work: _Work, disk: Disk, rng: np.random.Generator, tally: Tally) -> None:
    """A run that fills its disk, and goes on with room; in half of the cases it goes on without saves."""
    disk.fill()
    run, on_full = disk.folder / "run", ["stop", "continue"][int(rng.integers(2))]
    plots = bool(rng.random() < 0.15)
    try:
        work.train(run, plots, settings={"checkpoints.on_full": on_full})
        tally.count("runs that got through")
    except Exception as error:
        _check_line(error, tally)
    disk.make_room()
    _check_clean(disk.folder)
    folder = RunFolder(run)
    if folder.has_save:
        folder.load_last()
        work.train(run, resume=True)
    else:
        work.train(run)
    _check_clean(disk.folder)
    if outcome(run) != work.expected:
        raise Broken("not what an undisturbed run gives")


def _packed(work: _Work, disk: Disk, _: np.random.Generator, tally: Tally) -> None:
    """Shards that fill their disk, and go on with room: the bytes of an undisturbed run."""
    disk.fill()
    out = disk.folder / "shards"
    settings, config = PackSettings(shard_bytes=20_480), DataConfig(workers=1)
    try:
        pack(work.photos, out, settings, config)
        tally.count("packed at once")
    except Exception as error:
        _check_line(error, tally)
    disk.make_room()
    _check_clean(disk.folder)
    pack(work.photos, out, settings, config)
    whole = work.folder / "whole-shards"
    for file in whole.iterdir():
        if (out / file.name).read_bytes() != file.read_bytes():
            raise Broken(f"{file.name} has other bytes")
    if damaged(out, threads=1):
        raise Broken("damaged shards")


def _answered(work: _Work, disk: Disk, rng: np.random.Generator, tally: Tally) -> None:
    """Answers of `predict` in a file: whole lines, and a JSON file whole or not at all."""
    disk.fill()
    form = ["json", "jsonl", "csv"][int(rng.integers(3))]
    file = disk.folder / f"answers.{form}"
    try:
        with answers({form: file}, 2) as tell, patch("flowerfast.commands.answers.out"):
            for number in range(2000):
                tell(Prediction(f"photo {number}.jpg", (("blue", 0.75), ("red", 0.25))))
        tally.count("answers that got through")
    except Exception as error:
        _check_line(error, tally)
    disk.make_room()
    _check_clean(disk.folder)
    if form == "json" and file.exists():
        json.loads(file.read_text(encoding="utf-8"))
    elif file.exists() and file.stat().st_size and not file.read_bytes().endswith(b"\n"):
        raise Broken("half a line is left")


def _cached(work: _Work, disk: Disk, _: np.random.Generator, tally: Tally) -> None:
    """The decoded cache, whose disk fills up while it does: the pixels of a loader without one."""
    without = DataConfig(workers=1, backend="cpu", kernels="numba")
    kept = without.model_copy(update={"cache": "disk", "cache_dir": str(disk.folder / "cache")})

    def drawn(options: DataConfig) -> list[bytes]:
        photos = Photos(work.photos)
        with Loader(photos, size=32, augment=Augment(), device="cpu", options=options) as loader:
            if options is kept:
                disk.fill()
            found = [batch.images.numpy().tobytes() for batch in loader.epoch(0)]
            tally.count("caches that filled up", any("no more photos" in note for note in loader.notes))
        disk.make_room()
        return found

    expected = drawn(without)
    for _ in range(2):
        if drawn(kept) != expected:
            raise Broken("other pixels")
        _check_clean(disk.folder)


_KINDS = {
    "train": (_trained, _TRAINING),
    "pack": (_packed, 80_000),
    "predict": (_answered, 150_000),
    "cache": (_cached, 260_000),
}
_TURNS = ("train", "pack", "predict", "cache", "train", "train")


def run(cases: range, folder: Path) -> Tally:
    """Try the cases: each fills up after another number of bytes."""
    tally = Tally()
    with patch.dict("os.environ", {"FLOWERFAST_CACHE": str(folder / "kept")}):
        work = _Work(folder)
        for case in cases:
            rng = np.random.default_rng([9, case])
            name = _TURNS[(case // 2) % len(_TURNS)]
            tries, most = _KINDS[name]
            room = int(most * rng.random() ** 2)  # small files fill up too
            place = folder / f"case-{case}"
            try:
                with ExitStack() as stack:
                    disk = stack.enter_context(mounted(place, max(room, 4096))) if case % 2 else None
                    disk = disk or stack.enter_context(limited(place, room))
                    tries(work, disk, rng, tally)
            except Exception as error:
                tally.fail(case, f"{name}, room for {room} bytes: {type(error).__name__}: {error}")
            shutil.rmtree(place, ignore_errors=True)
            tally.tried += 1
            tally.count(name)
    return tally


FULL_DISKS = Trial(
    "full-disk",
    "A full disk costs one line and what did not fit; with room again all goes on as if it never was full.",
    "full disks",
    run,
    full=240,
    quick=8,
    chunk=120,
)
