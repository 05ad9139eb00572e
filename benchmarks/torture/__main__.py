"""The command: chunks of cases in processes of their own, one per core, written down as they end."""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from grimp import ImportGraph, build_graph

from benchmarks.torture.parts import all_trials
from benchmarks.torture.trial import Tally, Trial
from flowerfast.bench.environment import SCHEMA, environment, write_results
from flowerfast.machine import usable_cores, user_cache_dir

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
MARK = "tally: "
QUIET = {
    "OMP_NUM_THREADS": "1",  # networks here are tiny
    "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(user_cache_dir() / "kernels")),
}
"""Of the environment of a chunk; beside it a cache folder of its own."""


_running: set[int] = set()
"""Sessions of chunks."""


def _end(session: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def try_chunk(trial: Trial, start: int, stop: int) -> Tally:
    """A chunk in a session of its own: a crash or a hang fails all its cases, and nothing outlives it."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    command = [sys.executable, "-m", __package__, "--chunk", trial.name, f"{start}:{stop}", str(folder)]
    env = {**os.environ, **QUIET, "FLOWERFAST_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    _running.add(process.pid)
    try:
        out, err = process.communicate(timeout=trial.seconds)
    except subprocess.TimeoutExpired:
        return Tally(stop - start, [f"{start}:{stop}: hung for over {trial.seconds:.0f} s"])
    finally:
        _running.discard(process.pid)
        _end(process.pid)
        shutil.rmtree(folder, ignore_errors=True)
    last = (out.decode(errors="replace").splitlines() or [""])[-1]
    if process.returncode or not last.startswith(MARK):
        said = (err.decode(errors="replace").strip().splitlines() or ["nothing said"])[-1]
        return Tally(stop - start, [f"{start}:{stop}: ended with exit code {process.returncode}: {said}"])
    return Tally(**json.loads(last.removeprefix(MARK)))


def run_chunk(name: str, cases: str, folder: str) -> None:
    """What the process of a chunk does: the tally is its last line."""
    trial = next(trial for trial in all_trials() if trial.name == name)
    start, stop = map(int, cases.split(":"))
    tally = trial.run(range(start, stop), Path(folder))
    print(MARK + json.dumps(asdict(tally)))


@cache
def _imports() -> ImportGraph:
    return build_graph("flowerfast", "benchmarks", cache_dir=None)


def modules_of(trial: Trial) -> set[str]:
    """The modules of this project whose code a trial runs: all that its own module imports, and so on."""
    own = trial.run.__module__
    found = _imports().find_upstream_modules(own) | {own}
    packages = {name.rsplit(".", up)[0] for name in found for up in range(1, name.count(".") + 1)}
    return found | packages


def _digest(trial: Trial) -> str:
    """Of the code that a trial runs."""
    digest = hashlib.sha256()
    for module in sorted(modules_of(trial)):
        place = ROOT / module.replace(".", "/")
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        digest.update(module.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _begin(out: Path, quick: bool) -> dict[str, Any]:
    """A results file, with the trials that one which is there has."""
    fresh = {"schema": SCHEMA, "kind": "torture", "quick": quick}
    try:
        there = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = {}
    trials = there["trials"] if fresh.items() <= there.items() else {}
    return {**fresh, "environment": environment(torch.device("cpu")), "trials": trials}


def torture(trials: list[Trial], out: Path, quick: bool) -> int:
    """Try all, write down what came of it, and return how many cases failed.

    What was tried before counts while the code that it ran is the same.
    """
    results = _begin(out, quick)
    for trial in trials:
        about = {
            "promise": trial.promise,
            "unit": trial.unit,
            "of": trial.quick if quick else trial.full,
            "code": _digest(trial),
        }
        row = results["trials"].get(trial.name, {})
        if not about.items() <= row.items():
            row = {**about, "git": results["environment"]["git"], "seconds": 0.0, **asdict(Tally())}
        rows = results["trials"] | {trial.name: row}
        results["trials"] = {each.name: rows[each.name] for each in all_trials() if each.name in rows}
        count = row["of"]
        _try(trial, row, count, lambda: write_results(out, results))
        print(f"{trial.name}: {row['tried']:,} {trial.unit}, {len(row['failures'])} failures", flush=True)
    return sum(len(row["failures"]) for row in results["trials"].values())


def _try(trial: Trial, row: dict[str, Any], count: int, keep: Any) -> None:
    total = Tally(row["tried"], row["failures"], row["figures"])
    starts = range(total.tried, count, trial.chunk)
    since, before = time.monotonic(), row["seconds"]
    waiting: dict[int, Tally] = {}
    pool = ThreadPoolExecutor(usable_cores())
    chunks = {pool.submit(try_chunk, trial, n, min(n + trial.chunk, count)): n for n in starts}
    try:
        for done in as_completed(chunks):
            waiting[chunks[done]] = done.result()
            while total.tried in waiting:  # in order, so that what is written down is a beginning
                total.add(waiting.pop(total.tried))
            row |= asdict(total) | {"seconds": round(before + time.monotonic() - since, 1)}
            keep()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for session in [*_running]:  # of a run that is stopped
            _end(session)


def main() -> int:
    """Exit code 1: something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the few cases of the tests")
    parser.add_argument("--only", help="names of trials, separated by commas")
    parser.add_argument(
        "--out", type=Path, help="results file, one that is there goes on; of all: the docs' own"
    )
    parser.add_argument("--list", action="store_true", help="name the trials and their promises")
    parser.add_argument("--chunk", nargs=3, metavar=("NAME", "START:STOP", "FOLDER"), help="one chunk, here")
    given = parser.parse_args()
    if given.chunk:
        run_chunk(*given.chunk)
        return 0
    trials = all_trials()
    if given.only:
        names = given.only.split(",")
        unknown = set(names) - {trial.name for trial in trials}
        if unknown:
            parser.error(f"--only: no trial {sorted(unknown)[0]}; --list names them")
        trials = [trial for trial in trials if trial.name in names]
    if given.list:
        for trial in trials:
            print(f"{trial.name}: {trial.promise} ({trial.full:,} {trial.unit})")
        return 0
    if given.out is None:  # a part does not take the place of the whole
        part = given.quick or given.only
        given.out = Path(tempfile.gettempdir(), "torture.json") if part else RESULTS
    failed = torture(trials, given.out, given.quick)
    print(given.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
