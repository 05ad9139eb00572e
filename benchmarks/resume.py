"""Loaders killed in the middle of an epoch and resumed, with as many and other workers and ranks: one JSON.

    python benchmarks/resume.py DATA [--photos 384] [--only NAME[,NAME]] [--out FILE]

Each rank is a process. After batch AT of the second epoch each writes what its loader's documentation says to
keep, goes on for two batches, and is killed by SIGKILL with all its workers. New processes load that and draw
the rest of the epoch and the one after it. Beside them stands a run that nobody disturbed. Peers that are not
installed are named as such.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loaders import PEERS, Job, Peer, processes
from benchmarks.loaders.judging import Drawn, done_again, judged
from benchmarks.loaders.processes import Lines
from benchmarks.photos import numbered
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results

ROOT = Path(__file__).resolve().parents[1]
Grid = tuple[int, int]
"""Ranks, and workers of each."""
GRID: Grid = (2, 2)
CASES: dict[str, Grid] = {
    "same": GRID,
    "3 workers": (2, 3),
    "1 rank": (1, 2),
    "4 ranks": (4, 2),
}
BATCH, EPOCHS, EPOCH, AT = 16, 3, 1, 10
SHARD = 1 << 20
"""Bytes of the peers' own files at most, so that there are some for each worker."""


class Place:
    """Where the runs of one peer work."""

    def __init__(self, peer: str, photos: Path, folder: Path) -> None:
        self.peer, self._photos, self._folder = peer, photos, folder
        self._made, self._runs = folder / "made", 0
        processes.prepare(peer, photos, self._made, SHARD)

    def run(
        self, grid: Grid, *, save: Path | None = None, load: Path | None = None, epochs: int = EPOCHS
    ) -> list[Lines]:
        """Logs of all ranks of a run, which is killed when all have saved, where it is to save."""
        self._runs += 1
        (ranks, workers), folder = grid, self._folder / f"run-{self._runs}"
        folder.mkdir()
        made, port = self._folder / "used", processes.free_port()
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(self._made, made)  # at one path, which LitData's states hold
        started = []
        for rank in range(ranks):
            job = Job(str(self._photos), str(made), rank, ranks, workers, BATCH)
            orders = {
                "epochs": epochs, "epoch": EPOCH, "at": AT, "state": str(save / str(rank)) if save else None,
                "load": str(self._kept(load, rank)) if load else None,
            }  # fmt: skip
            started.append(processes.start("rank", self.peer, job, folder, port, **orders))
        end = time.monotonic() + processes.LIMIT
        while time.monotonic() < end:
            logs = [processes.read(log) for _, log in started]
            failed = any("error" in line for lines in logs for line in lines)
            if failed or all(
                processes.is_over(lines) or process.poll() is not None
                for lines, (process, _) in zip(logs, started, strict=True)
            ):
                break
            time.sleep(0.05)
        for process, _ in started:
            processes.kill(process)
        return [processes.read(log) for _, log in started]

    def _kept(self, load: Path, rank: int) -> Path:
        """The state that a rank loads."""
        own = load / str(rank)
        return load / "0" if PEERS[self.peer].shared or not own.exists() else own


def measure(peer: str, photos: Path, folder: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All cases of a peer."""
    place, state = Place(peer, photos, folder), folder / "state"
    state.mkdir()
    whole = place.run(GRID)
    if trouble := processes.error(whole):
        return {"error": trouble}
    undisturbed = Drawn.of(whole)
    if not undisturbed.ids(EPOCH, AT):
        return {"error": "too few batches"}
    killed = place.run(GRID, save=state)
    if trouble := processes.error(killed):
        return {"error": trouble}
    before, seen = Drawn.of(killed), undisturbed.ids(EPOCH, end=AT)
    found: dict[str, Any] = {
        "drawn": undisturbed.ids(EPOCH).total(),
        "repeats": all(undisturbed.batches.get(at) == ids for at, ids in before.batches.items()),
        "state_bytes": {
            "of a rank": (state / "0").stat().st_size,
            "of all": sum(file.stat().st_size for file in state.iterdir()),
        },
        "cases": {},
    }
    for case, grid in CASES.items():
        ranks = place.run(grid, load=state)
        if trouble := processes.error(ranks):
            result: dict[str, Any] = {"error": trouble}
        else:
            result = judged(undisturbed, Drawn.of(ranks), EPOCH, AT)
            result["decoded_again"] = sum(done_again(lines, seen) for lines in ranks)
        found["cases"][case] = result
        say(f"{peer}, {case}: {result}")
    found["seconds"] = _seconds(place, state, rounds)
    say(f"{peer}: {found['seconds']}")
    return found


def _seconds(place: Place, state: Path, rounds: int) -> dict[str, Any]:
    """Seconds from after the imports until all ranks have their first batch, of new and of resumed runs."""
    taken: dict[str, list[float]] = {"new": [], "resumed": []}
    for _ in range(rounds):
        for name, options in (("new", {"epochs": 1}), ("resumed", {"load": state, "epochs": EPOCH + 1})):
            ranks = place.run(GRID, **options)
            if trouble := processes.error(ranks):
                return {"error": trouble}
            taken[name].append(max(line["seconds"] for lines in ranks for line in lines if "seconds" in line))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    return {"rounds": taken, **medians, "ratio": medians["resumed"] / medians["new"]}


def _versions(peer: Peer) -> dict[str, str] | None:
    """Versions of what a peer needs; None: something is not installed."""
    try:
        return {name: version(name) for name in peer.packages}
    except PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Kill, resume and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photos")
    parser.add_argument("--photos", type=int, default=384, help="how many of them")
    parser.add_argument("--rounds", type=int, default=3, help="of the seconds to the first batch")
    parser.add_argument("--only", help="files of benchmarks/loaders, separated by commas; other rows stay")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "resume.json")
    given = parser.parse_args(arguments)
    chosen = {name: peer for name, peer in PEERS.items() if not given.only or name in given.only.split(",")}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "resume",
        "environment": environment(torch.device("cpu")),
        "grid": {"ranks": GRID[0], "workers": GRID[1], "batch": BATCH, "epoch": EPOCH, "after_batches": AT},
        "cases": {case: {"ranks": ranks, "workers": workers} for case, (ranks, workers) in CASES.items()},
        "peers": {},
    }
    if given.only and given.out.exists():  # the other rows stay
        result["peers"] = json.loads(given.out.read_text(encoding="utf-8"))["peers"]
    with tempfile.TemporaryDirectory(prefix="resume-") as scratch:
        photos = Path(scratch) / "photos"
        result["data"] = describe_photos(numbered(given.data, given.photos, photos), given.data.name)
        for name, peer in chosen.items():
            row: dict[str, Any] = {"name": peer.name, "way": peer.way, "augments": peer.augments}
            row["versions"] = _versions(peer)
            if row["versions"] is None:
                row["error"] = "not installed"
            else:
                row |= measure(name, photos, Path(scratch) / name, given.rounds, print)
                shutil.rmtree(Path(scratch) / name)
            result["peers"][name] = row
            result["peers"] = {each: result["peers"][each] for each in PEERS if each in result["peers"]}
            write_results(given.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
