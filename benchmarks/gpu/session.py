"""One run of gpu_speed.py: photos, results so far, and the groups of rows as they are measured."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import shares
from benchmarks.gpu.rows import Job
from benchmarks.gpu.show import lines
from flowerfast.bench.child import Variant
from flowerfast.bench.environment import describe_photos, write_results
from flowerfast.bench.measure import Pace, measure
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.errors import UserError

SCHEMA = 1
"""Version of the results file."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Photos:
    """A set of photos: the folder as given, the one that rows read, and its manifest."""

    name: str
    given: Path
    folder: Path
    manifest: Manifest


@dataclass
class Session:
    """What the parts of a run share.

    Attributes:
        job: with what is measured.
        pace: how much; memory of the GPU is asked for where a group wants it.
        sets: photos by their kind.
        result: content of the results file.
        out: the results file, written after each group; None: nowhere.
        only: words of which one must be in a row's name; none: all rows.
        say: prints a line.
        limit: seconds for a row to start, or to answer; then it has failed.
    """

    job: Job
    pace: Pace
    sets: list[Photos]
    result: dict[str, Any]
    out: Path | None
    only: Sequence[str] = ()
    say: Say = print
    limit: float = 180.0

    def chosen(self, variants: Sequence[Variant]) -> list[Variant]:
        """The rows that --only leaves."""
        return [v for v in variants if not self.only or any(word in v.name for word in self.only)]

    def group(self, place: Sequence[str], variants: Sequence[Variant], memory: bool = False) -> None:
        """Measure rows in turns, keep them at `place` in the result instead of what was there, print them.

        With `memory` they start one after another, so that what each takes of the GPU can be told apart.
        """
        chosen = self.chosen(variants)
        if not chosen:
            return
        title = " / ".join(place)
        self.say(f"== {title}: {len(chosen)} rows")
        cuda = self.job.device == "cuda"
        openers = min(4 if cuda else 2, max(self.job.cores // 4, 1)) if not (memory and cuda) else 1
        pace = Pace(self.pace.rounds, self.pace.seconds, self.limit, self.limit, openers, gpu=memory and cuda)
        self.keep(place, measure(chosen, pace, lambda text: self.say(f"  {text}")))

    def keep(self, place: Sequence[str], rows: dict[str, Any], shown: Sequence[str] | None = None) -> None:
        """Put rows in their place, work out shares and goals, print the rows (or some), write the file."""
        branch = self.result
        for key in place[:-1]:
            branch = branch.setdefault(key, {})
        branch[place[-1]] = rows
        shares.add_shares(self.result)
        self.result["goals"] = shares.goals(self.result)
        for line in lines(place, rows if shown is None else {name: rows[name] for name in shown}):
            self.say(line)
        if self.out is not None:
            write_results(self.out, self.result)

    def finish(self, part: str, started: float, environment: dict[str, Any]) -> None:
        """Note when, from which revision and in how many seconds a part was measured."""
        self.result["parts"][part] = {
            "seconds": time.monotonic() - started,
            "rounds": self.pace.rounds,
            "round_seconds": self.pace.seconds,
            "sets": [photos.name for photos in self.sets],
            **{key: environment[key] for key in ("date", "git", "git_changed")},
        }
        if self.out is not None:
            write_results(self.out, self.result)


def find_photos(folders: Sequence[Path], least: int, scratch: Path) -> list[Photos]:
    """The sets of photos by kind, each listed over and over until there are `least`.

    Few photos make short epochs, and then starting and ending them is most of what is measured. Links stand
    for the photos that are listed again: each is read, decoded and cached as one of its own.

    Raises UserError on a folder without photos, or two sets of one kind.
    """
    found: dict[str, Photos] = {}
    for folder in folders:
        manifest = load_manifest(folder)
        short = float(np.median(np.minimum(manifest.width, manifest.height)))
        name = shares.SMALL if short <= shares.SIDE else shares.CAMERA
        if name in found:
            raise UserError(
                f"--data {folder}: {found[name].given} is a set of {name} photos already (median short side "
                f"{'at most' if name == shares.SMALL else 'above'} {shares.SIDE} px); give one of each"
            )
        listed = _listed(manifest, least, scratch / name)
        found[name] = Photos(name, folder, listed or folder, load_manifest(listed) if listed else manifest)
    return [found[name] for name in shares.SETS if name in found]


def _listed(manifest: Manifest, least: int, folder: Path) -> Path | None:
    times = -(-least // len(manifest))
    if times < 2:
        return None
    for index in range(len(manifest)):
        source = (manifest.root / manifest.path(index)).resolve()
        if not source.is_file():
            raise UserError(f"{manifest.root}: {len(manifest)} photos in shards are too few; give a folder")
        for number in range(times):
            link = folder / manifest.classes[manifest.label[index]] / f"{index:06d}-{number}{source.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(source, link)
    return folder


def _link(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, link)


def about(photos: Photos) -> dict[str, Any]:
    """What the results file says of a set."""
    given = load_manifest(photos.given)
    described = describe_photos(given, photos.given.resolve().name)
    return {**described, "photos_per_epoch": len(photos.manifest)}
