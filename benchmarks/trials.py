"""Do the figures of `flowerfast bench` hold? Two trials of the measurement itself, on this machine.

    python benchmarks/trials.py repeat DATA [--alone] [--out benchmarks/results/trials-repeat-NAME.json]
    python benchmarks/trials.py cores DATA [--out benchmarks/results/trials-cores-NAME.json]

repeat: the same loaders are measured again and again, in fresh processes each time. By how much do the
medians of two such runs differ, and is it less than the larger of the two printed spreads? In a run the
loaders take turns, as in `flowerfast bench`; with --alone there is only the first, so that its rounds follow
one another. Shares are given for the first 5, 7, ... rounds of each run, beside what independent normal
rounds would give.

cores: the loader is measured with one worker on one core and with two workers on two cores, in turns;
`what_if` is given the first figure, with the costs of the stages on one core, and predicts the second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.child import Variant
from flowerfast.bench.measure import Pace, Row, measure, summary
from flowerfast.bench.rounds import Source

NAME = "flowerfast folder"
HIDE_GPU = {"CUDA_VISIBLE_DEVICES": ""}
BOUND = 0.15
"""Error of a prediction for twice the cores that is still called good."""
QUIET = 0.1
"""Cores that other processes may keep busy; a pair with more is told of and left out of the shares."""


def pinned(data: str, cores: int, settings: list[str]) -> Source:
    """The loader with one worker a core, on the first so many cores that this process may use."""
    os.sched_setaffinity(
        0, sorted(os.sched_getaffinity(0))[:cores]
    )  # threads started from here on inherit it
    from flowerfast.bench.sources import loader

    return loader(data, [*settings, "data.backend=torchvision", f"data.workers={cores}"])


def variant(data: Path, cores: int, args: argparse.Namespace, *more: str) -> Variant:
    """The loader of a folder on so many cores; `more` are settings that differ from its own."""
    settings = [f"data.image_size={args.image_size}", f"train.batch_size={args.batch_size}", *more]
    options = {"data": str(data), "cores": cores, "settings": settings}
    return Variant(", ".join([NAME, f"{cores} cores", *more]), "benchmarks.trials:pinned", options)


def figures(rows: dict[str, Row]) -> list[Row]:
    """The rows; ends the program when one has none."""
    for name, row in rows.items():
        if "error" in row:
            raise SystemExit(f"trials.py: {name}: {row['error']}")
    return [*rows.values()]


# -------------------------------------------------------------------------------------------------- repeat


def repeat(data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Runs of the same thing, one after the other: the first two are the first pair."""
    cores, runs = len(os.sched_getaffinity(0)), []
    loaders = [variant(data, cores, args)]
    if not args.alone:
        loaders += [variant(data, 1, args), variant(data, cores, args, "data.cache=ram")]
    for number in range(2 * args.pairs):
        rows = measure(loaders, Pace(args.rounds, args.seconds), environment=HIDE_GPU)
        runs.append(dict(zip(rows, figures(rows), strict=True)))
        told = (f"{row['images_per_sec']:,.0f} ± {row['spread']:.0f}" for row in rows.values())
        print(f"run {number + 1}: {', '.join(told)} images/s", flush=True)
    return {"runs": runs, "shares": shares(runs)}


def shares(runs: list[dict[str, Row]]) -> list[dict[str, Any]]:
    """How often two runs agree, by the number of rounds that each of them has."""
    most = min(len(row["rounds"]) for run in runs for row in run.values())
    pairs = [(one[name], two[name]) for one, two in zip(runs[::2], runs[1::2], strict=True) for name in one]
    quiet = [pair for pair in pairs if max(row["foreign_cores"] or 0.0 for row in pair) <= QUIET]
    found = [{"rounds": n, **share(quiet, n)} for n in range(min(5, most), most + 1, 2)]
    return [{"disturbed_pairs": len(pairs) - len(quiet), **each} for each in found]


def share(pairs: list[tuple[Row, Row]], rounds: int) -> dict[str, Any]:
    """How many of the pairs agree when each side has so many rounds."""
    cut = [tuple(summary(row["rounds"][:rounds]) for row in pair) for pair in pairs]
    spreads = [row["spread"] / row["images_per_sec"] for pair in cut for row in pair]
    apart = [abs(one["images_per_sec"] / two["images_per_sec"] - 1) for one, two in cut]
    return {
        "pairs": len(cut),
        "agree": sum(agree(one, two) for one, two in cut),
        "agree_within_two": sum(agree(one, two, 2) for one, two in cut),
        "agree_within_three": sum(agree(one, two, 3) for one, two in cut),
        "expected_share": expected_share(rounds),
        "median_spread": statistics.median(spreads) if spreads else None,
        "median_difference": statistics.median(apart) if apart else None,
        "largest_difference": max(apart, default=None),
    }


def agree(one: Row, other: Row, times: float = 1) -> bool:
    """Whether two medians differ by less than so many times the larger printed spread."""
    difference = abs(one["images_per_sec"] - other["images_per_sec"])
    return bool(difference < times * max(one["spread"], other["spread"]))


def expected_share(rounds: int, trials: int = 100_000) -> float:
    """Share of pairs that agree when all rounds of both are independent and of one normal distribution."""
    drawn = np.random.default_rng(0).normal(size=(2, trials, rounds))
    middle = np.median(drawn, axis=2, keepdims=True)
    spread = 1.4826 * np.median(np.abs(drawn - middle), axis=2)
    return float((np.abs(middle[0] - middle[1])[:, 0] < spread.max(axis=0)).mean())


# --------------------------------------------------------------------------------------------------- cores


def cores(data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One core and two, in turns; the prediction for two is made from the figures of one alone."""
    from flowerfast.bench.whatif import what_if

    pace = Pace(args.rounds, args.seconds)
    stages = stages_on_one_core(data, args)
    one, two = figures(measure([variant(data, n, args) for n in (1, 2)], pace, print, HIDE_GPU))
    facts = {"backend": "torchvision", "cache": "none", "batch_size": args.batch_size}
    known = {
        "schema": 2,
        "kind": "bench",
        "environment": {"cores": 1},
        "settings": {"batch_size": args.batch_size, "seconds": args.seconds},
        "stages": stages,
        "loader": {NAME: {**one, **facts, "workers": 1}},
    }
    found, staged = what_if(known, "cores=2"), what_if({**known, "loader": {}}, "cores=2")
    error = found.loader_images_per_sec / two["images_per_sec"] - 1
    measured = f"one core {one['images_per_sec']:,.0f}, two {two['images_per_sec']:,.0f} images/s"
    good = "good" if abs(error) <= BOUND else "too far off"
    print(f"{measured}; predicted {found.loader_images_per_sec:,.0f} ({error:+.1%}): {good}")
    return {
        "stages": stages,
        "one_core": one,
        "two_cores": two,
        "predicted": found.loader_images_per_sec,
        "predicted_interval": list(found.loader_interval),
        "error": error,
        "predicted_from_stages": staged.loader_images_per_sec,
        "error_from_stages": staged.loader_images_per_sec / two["images_per_sec"] - 1,
        "bound": BOUND,
    }


def stages_on_one_core(data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Part `stages` of a result, measured by a process that has one core."""
    settings = [f"data.image_size={args.image_size}", f"train.batch_size={args.batch_size}"]
    call = (
        "import json, os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]);"
        "from flowerfast.bench.suites import run_bench; from flowerfast.config import load_config;"
        "config = load_config(None, sys.argv[2:], {'data.path': sys.argv[1]});"
        "print(json.dumps(run_bench(config, ['stages'])['stages']))"
    )
    command = [
        sys.executable,
        "-c",
        call,
        str(data),
        *settings,
        "data.backend=torchvision",
        "data.cache=none",
    ]
    done = subprocess.run(
        command, env={**os.environ, **HIDE_GPU}, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=("repeat", "cores"))
    parser.add_argument("data", type=Path, help="folder of class folders of photos")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--alone", action="store_true", help="one loader, for repeat")
    parser.add_argument("--pairs", type=int, default=10, help="of runs, for repeat")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    args = parser.parse_args()
    if min(args.pairs, args.rounds, args.batch_size) < 1:
        parser.error("--pairs, --rounds and --batch-size must be at least 1")
    started, data = time.monotonic(), args.data.resolve()
    found = (repeat if args.trial == "repeat" else cores)(data, args)
    if args.out:
        # torch is imported here, not above: it would start threads before `pinned` has chosen their cores
        import torch

        from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
        from flowerfast.data.manifest import load_manifest

        result = {
            "schema": SCHEMA,
            "kind": f"trials-{args.trial}",
            "environment": environment(torch.device("cpu")),
            "data": describe_photos(load_manifest(data), data.name),
            "settings": {
                k: getattr(args, k) for k in ("image_size", "batch_size", "rounds", "seconds", "alone")
            },
            "seconds": time.monotonic() - started,
            **found,
        }
        write_results(args.out, result)


if __name__ == "__main__":
    main()
