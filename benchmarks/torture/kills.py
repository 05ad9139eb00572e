"""Commands that are killed or stopped at any moment, and several that want one folder at once.

They run in children of a process that has imported everything already (multiprocessing's forkserver), for
importing takes longer than their work: what is tried is the command from its first line to its last.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture.small import SHORT, history, options, paint
from benchmarks.torture.trial import Tally, Trial
from flowerfast.augment import Augment
from flowerfast.commands.cli import main
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.packing import pack
from flowerfast.photos.photos import Photos
from flowerfast.training import report, run

_LOADED = pack, report, run  # by the children's parent: commands import them when they are called

_TRAINING = options({**SHORT, "data.workers": 2})
_PATIENCE = 600.0  # seconds: a command that takes longer hangs; the first on a machine compiles the loops
_WRITERS = 4
_KILL = signal.SIGKILL
_SIGNALS = (_KILL, signal.SIGTERM, _KILL, signal.SIGINT, _KILL, signal.SIGHUP)
_SERVER = get_context("forkserver")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it), what it said, its seconds."""

    code: int
    said: str
    seconds: float


class _Place:
    """Generated photos, and commands about them whose working folder, cache and output lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.photos = folder, paint(folder / "photos", 12, (112, 96), classes=3)

    def start(self, work: Callable[..., object], *given: Any) -> tuple[ForkServerProcess, Path]:
        """Begin a piece of work in a child: (its process, what it says); returns once it has begun."""
        log = self.folder / f"{time.monotonic_ns()}.log"
        child = _SERVER.Process(target=_child, args=(self.folder, log, work, given))
        child.start()
        while not log.exists():
            if child.exitcode is not None:
                raise RuntimeError(f"a child ended with {child.exitcode} before it began")
            time.sleep(0.001)
        return child, log

    def end(self, child: ForkServerProcess, log: Path, since: float) -> Ended:
        """Wait for a child."""
        child.join(_PATIENCE)
        if child.exitcode is None:
            child.kill()
            child.join()
            return Ended(999, "hung", _PATIENCE)
        said = log.read_text(encoding="utf-8", errors="replace")
        log.unlink()
        return Ended(child.exitcode, said, time.monotonic() - since)

    def do(
        self, work: Callable[..., object], *given: Any, after: float = 0, send: int | None = None
    ) -> Ended:
        """Do a piece of work, `after` seconds of which a signal is sent, if any."""
        child, log = self.start(work, *given)
        since = time.monotonic()
        if send is not None:
            child.join(after)
            if child.exitcode is None and child.pid is not None:
                os.kill(child.pid, send)
        return self.end(child, log, since)

    def train(self, out: str, **how: Any) -> Ended:
        """`flowerfast train`."""
        return self.do(_command, "train", str(self.photos), "--out", out, *_TRAINING, **how)

    def pack(self, out: str, **how: Any) -> Ended:
        """`flowerfast pack`, into about ten shards."""
        return self.do(_command, "pack", str(self.photos), out, *_PACKING, **how)


_PACKING = ("--max-side", "64", "--shard-size", "0.02")


def _child(folder: Path, log: Path, work: Callable[..., object], given: tuple[Any, ...]) -> None:
    os.chdir(folder)
    os.environ["FLOWERFAST_CACHE"] = str(folder / "cache")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fresh = log.with_suffix(".new")
    stream = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    fresh.rename(log)
    work(*given)


def _command(*arguments: str) -> None:
    sys.argv = ["flowerfast", *arguments]
    main()


def _draw(photos: Path, store: Path, seed: int) -> None:
    """Draw two epochs from a cache on the disk, filling it, and say what came."""
    pixels = hashlib.sha256()
    read = DataConfig(workers=2, backend="cpu", cache="disk", cache_dir=str(store))
    given = {"size": 32, "batch_size": 4, "seed": seed, "augment": Augment(), "device": "cpu"}
    with Loader(Photos(photos), **given, options=read) as loader:
        for epoch in range(2):
            for batch in loader.epoch(epoch):
                pixels.update(np.ascontiguousarray(batch.images.numpy()).data)
    print(f"drawn {pixels.hexdigest()}", flush=True)


def _content(folder: Path, *patterns: str) -> dict[str, str]:
    """Digests of the files that match, by name; of metrics without what is timed."""
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return {str(f.relative_to(folder)): hashlib.sha256(_untimed(f)).hexdigest() for f in files}


def _untimed(file: Path) -> bytes:
    if file.name != "metrics.jsonl":
        return file.read_bytes()
    return json.dumps(history(file.parent)).encode()


def _run_content(folder: Path) -> dict[str, str]:
    return _content(folder, "best/*", "checkpoints/*.safetensors", "metrics.jsonl", "split.json")


def _shards(folder: Path) -> dict[str, str]:
    return _content(folder, "**/*", ".packing/*")


def _moment(case: int, seconds: float) -> float:
    """When a command of so many seconds is struck: anywhere, or, each third time, right at its beginning."""
    when = float(np.random.default_rng([8, case]).random())
    return when * (0.1 if case % 3 == 2 else 1.0) * seconds


def _taken_up(place: _Place, out: str, expected: dict[str, str]) -> str | None:
    """What is wrong with a run that was struck once it has been resumed, or begun again where nothing is."""
    ended = place.do(_command, "train", "--resume", "--out", out)
    if ended.code == 2 and "drop --resume to start" in ended.said:
        ended = place.train(out)
    if ended.code:
        return f"exit code {ended.code}: {ended.said[-300:]}"
    return None if _run_content(place.folder / out) == expected else "other files than undisturbed"


def train_strikes(cases: range, folder: Path) -> Tally:
    """Training is killed or stopped at any moment."""
    tally, place = Tally(len(cases)), _Place(folder)
    place.train("warm")  # what the first ever run prepares is no part of the time that counts
    seconds = place.train("whole").seconds
    expected = _run_content(folder / "whole")
    for case in cases:
        out, signum = f"run-{case}", _SIGNALS[case % len(_SIGNALS)]
        ended = place.train(out, after=_moment(case, seconds), send=signum)
        tally.count(f"by {signum.name}")
        tally.count("had a save", (folder / out / "checkpoints/last.pt").exists())
        tally.count("ended before", ended.code == 0)
        if ended.code not in (0, -signum, 128 + signum) or "Traceback" in ended.said:
            tally.fail(case, f"{signum.name}: exit code {ended.code}: {ended.said[-300:]}")
        elif ended.code == 128 + signum and f"stopped by {signum.name}" not in ended.said.splitlines()[-1]:
            tally.fail(case, f"{signum.name}: said {ended.said[-300:]}")
        elif (wrong := _taken_up(place, out, expected)) is not None:
            tally.fail(case, f"{signum.name}: {wrong}")
        shutil.rmtree(folder / out, ignore_errors=True)
    return tally


def pack_kills(cases: range, folder: Path) -> Tally:
    """Packing is killed at any moment."""
    tally, place = Tally(len(cases)), _Place(folder)
    place.pack("warm")
    seconds = place.pack("whole").seconds
    expected = _shards(folder / "whole")
    for case in cases:
        out = f"out-{case}"
        ended = place.pack(out, after=_moment(case, seconds), send=_KILL)
        tally.count("had shards", len([*(folder / out).glob("*.tar")]) > 0)
        tally.count("ended before", ended.code == 0)
        again = place.pack(out)
        if again.code:
            tally.fail(case, f"exit code {again.code}: {again.said[-300:]}")
        elif _shards(folder / out) != expected:
            tally.fail(case, "other bytes than undisturbed")
        shutil.rmtree(folder / out)
    return tally


def cache_kills(cases: range, folder: Path) -> Tally:
    """A process that fills the cache on the disk is killed, and two others go on with it at once."""
    tally, place = Tally(len(cases)), _Place(folder)
    place.do(_draw, place.photos, folder / "warm", 0)
    whole = place.do(_draw, place.photos, folder / "whole", 0)
    for case in cases:
        store = folder / f"cache-{case}"
        place.do(_draw, place.photos, store, 1, after=_moment(case, whole.seconds), send=_KILL)
        tally.count("had a file", any(store.rglob("*.photos")))
        since = time.monotonic()
        both = [place.start(_draw, place.photos, store, 0) for _ in range(2)]
        for ended in [place.end(*each, since) for each in both]:
            if ended.code or ended.said != whole.said:
                tally.fail(case, f"exit code {ended.code}, other pixels: {ended.said[-300:]}")
        shutil.rmtree(store)
    return tally


def writers(cases: range, folder: Path) -> Tally:
    """Trainings, or packings in odd cases, that begin at once on one folder."""
    tally, place = Tally(len(cases)), _Place(folder)
    commands = ("train", str(place.photos), *_TRAINING, "--out"), ("pack", str(place.photos), *_PACKING)
    contents, expected = (_run_content, _shards), list[dict[str, str]]()
    for kind in range(2):
        place.do(_command, *commands[kind], f"whole-{kind}")
        expected.append(contents[kind](folder / f"whole-{kind}"))
    for case in cases:
        kind, out = case % 2, f"out-{case}"
        since = time.monotonic()
        children = [place.start(_command, *commands[kind], out) for _ in range(_WRITERS)]
        ended = [place.end(*child, since) for child in children]
        won = [each for each in ended if each.code == 0 and "packed already" not in each.said]
        refused = [each for each in ended if "another process" in each.said and each.code == 2]
        late = [each for each in ended if "exists already" in each.said or "packed already" in each.said]
        tally.count("refused beside a writer", len(refused))
        if len(won) != 1 or len(won) + len(refused) + len(late) != _WRITERS:
            tally.fail(case, f"{len(won)} won: {[(each.code, each.said[-200:]) for each in ended]}")
        elif contents[kind](folder / out) != expected[kind]:
            tally.fail(case, "other files than of one alone")
        shutil.rmtree(folder / out, ignore_errors=True)
    return tally


_SERVER.set_forkserver_preload([__name__])

TRAIN_STRIKES = Trial(
    "train-strikes",
    "A training that is killed at any moment, or stopped by SIGTERM, SIGINT or SIGHUP, which it says, is "
    "resumed or begun again, and ends bit by bit as undisturbed.",
    "trainings struck",
    train_strikes,
    full=48,
    quick=2,
    chunk=24,
)
PACK_KILLS = Trial(
    "pack-kills",
    "A packing that is killed at any moment goes on, and its shards are byte by byte as undisturbed.",
    "kills of packing",
    pack_kills,
    full=50,
    quick=2,
    chunk=25,
)
CACHE_KILLS = Trial(
    "cache-kills",
    "A cache on the disk whose writer is killed gives right pixels to two that share it then.",
    "kills while filling the cache",
    cache_kills,
    full=20,
    quick=1,
    chunk=10,
)
WRITERS = Trial(
    "writers",
    "Of four commands that begin at once on one folder one does its work, and the others are told.",
    "races for a folder",
    writers,
    full=20,
    quick=1,
    chunk=10,
)
