"""What the parts of gpu.py share: a budget of time, the file of results, sets of photos, processes."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import paper
from flowerfast.bench.child import Variant
from flowerfast.bench.environment import write_results
from flowerfast.bench.measure import Pace, measure, measure_here
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, LEAST, SECONDS = 5, 3, 1.0
"""Rounds of each row at most and, while the budget lasts, at least; and how long one is at least."""


class OutOfTime(Exception):
    """What could not be measured before the time was over."""


@dataclass(frozen=True)
class TimedPace(Pace):
    """Ends with a round: from the third on when `until` (time.monotonic) has passed, with any at `end`."""

    until: float = 0.0
    end: float = 0.0

    def is_hopeless(self, rates: Iterable[Sequence[float]]) -> bool:
        """Whether to measure no more rounds."""
        enough = all(len(each) >= LEAST for each in rates)
        return time.monotonic() >= (self.until if enough else self.end)


@dataclass(frozen=True)
class PhotoSet:
    """A set of photos as given, and the folder in which it is listed often enough to be measured."""

    name: str
    given: Photos
    folder: Path


@dataclass
class Session:
    """One run."""

    args: argparse.Namespace
    sets: list[PhotoSet]
    result: dict[str, Any]  # content of the results file
    end: float  # of the budget (time.monotonic)
    until: float = 0.0  # end of the share of the part under way

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return bool(self.args.device == "cuda")

    @property
    def left(self) -> float:
        """Seconds left to the part under way."""
        return max(self.until - time.monotonic(), 1.0)

    def keep(self, place: str, found: Any) -> None:
        """Put what was found at its place in the result, keys separated by /, and write the file."""
        *branches, leaf = place.split("/")
        branch = self.result
        for name in branches:
            branch = branch.setdefault(name, {})
        branch[leaf] = found
        write_results(self.args.out, self.result)

    def measure(self, place: str, variants: Sequence[Variant], groups: int = 1) -> dict[str, Any]:
        """Measure variants in turns, print and keep their rows; `groups` have still to share the part's time.

        A rehearsal measures one round, in this process but for what has worker processes. Raises OutOfTime.
        """
        now, limit = time.monotonic(), self.left / groups
        if now >= self.until:
            raise OutOfTime(f"{place} was not begun")
        rounds, seconds = (ROUNDS, SECONDS) if self.cuda else (1, 0.0)
        openers, wait = min(6, max(self.args.cores // 2, 1)), self.left / 2
        end = self.until + (self.end - self.until) / 2  # the later parts keep half of what is theirs
        pace = TimedPace(rounds, seconds, wait, wait, openers, until=now + limit, end=end)

        def say(text: str) -> None:
            if time.monotonic() > end and ("ready after" in text or text.startswith("round 1 ")):
                raise OutOfTime(f"{place} came to no figures")
            print(f"  {text.replace('too noisy', 'no more time')}", flush=True)

        print(f"== {place}: {len(variants)} rows, {limit:.0f} s", flush=True)
        apart = [v for v in variants if self.cuda or paper.TARGET in repr(v)]
        here = [v for v in variants if v not in apart]
        found = measure(apart, pace, say) if apart else {}
        found |= measure_here(here, pace, say) if here else {}
        rows: dict[str, Any] = {v.name: found[v.name] for v in variants}
        for name, row in rows.items():
            print(f"  {name}: {as_words(row)}", flush=True)
        self.keep(place, rows)
        return rows


def as_words(row: dict[str, Any]) -> str:
    """A row in one line."""
    if "error" in row:
        return f"{'skipped' if row['skipped'] else 'failed'}: {row['error']}"
    waited, cores = row["counters"].get("waited"), row["cpu_cores"]
    more = [] if waited is None else [f"{min(waited, 1.0):.1%} waiting for data"]
    more += [] if cores is None else [f"{cores:.1f} cores"]
    return ", ".join([f"{row['images_per_sec']:,.0f} images/s ± {row['spread']:,.0f}", *more])


def run_python(
    arguments: Sequence[str], limit: float, more: dict[str, str] | None = None
) -> tuple[int | None, float, str]:
    """`python ARGUMENTS` in this checkout: exit code (None: not ended in time), seconds, what it printed.

    All that it started is gone afterwards. `more` are environment variables.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    variables = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(more or {})}
    started, command = time.monotonic(), [sys.executable, *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, **streams, env=variables, cwd=ROOT, start_new_session=True) as process:
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):  # all of them have ended already
                    os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        return code, time.monotonic() - started, said.read()


def find_photos(folders: Sequence[Path], least: int, scratch: Path) -> list[PhotoSet]:
    """The sets of photos by the names of their folders, each listed again until there are `least`.

    Few photos make short epochs, and then starting and ending them is most of what is measured. Links stand
    for the photos that are listed again: each is read, decoded and cached as one of its own.
    """
    found: dict[str, PhotoSet] = {}
    for folder in folders:
        photos, name = Photos(folder), folder.resolve().name
        if name in found:
            raise UserError(f"--data {folder}: a second folder of that name; rename it")
        times = -(-least // len(photos)) if photos.table.shards is None else 1
        for index, label in zip(photos.indices.tolist(), photos.labels.tolist(), strict=True):
            source = (photos.root / photos.path(index)).resolve()
            for number in range(times if times > 1 else 0):
                link = scratch / name / photos.classes[label] / f"{index:06d}-{number}{source.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
        found[name] = PhotoSet(name, photos, scratch / name if times > 1 else photos.root)
    return list(found.values())
