"""What each step made of the speed of the CPU loader: builds of this repository in turns, one run, one JSON.

    python benchmarks/steps.py DATA [--rounds N] [--out benchmarks/results/steps-NAME.json]

All builds run with the packages of this environment, each in a process of its own that stays. Figures are
medians of the rounds.
"""

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.versus import ROOT, checkout, kept, measured
from flowerfast.bench.environment import SCHEMA, describe_photos, environment
from flowerfast.photos.photos import Photos

STEPS = (
    ("14251df", "where it began", None),
    (
        "43353c2",
        "several Huffman codes with one look; chroma and colour in vectors of 16 bits; two neighbours in one "
        "multiplication",
        None,
    ),
    (
        "153636e",
        "the transform in 16 bits, two products in one instruction; tables of codes filled faster",
        None,
    ),
    (
        "63e7dcf",
        "four neighbours with one load, eight pixels at once; rotation eight positions at once; the jitter's "
        "tables give whole pixels",
        0.15,
    ),
)
"""Revision, what it brought, and the share of the CPU time that it was expected to save."""


def steps(data: Path, rounds: int) -> dict[str, Any]:
    """The whole measurement."""
    started = time.perf_counter()
    with ExitStack() as stack:
        builds = {revision: (stack.enter_context(checkout(revision)), data) for revision, *_ in STEPS}
        rows = measured(builds, rounds)
    about = {revision: {"step": step, "expected": expected} for revision, step, expected in STEPS}
    return {
        "schema": SCHEMA,
        "kind": "steps",
        "data": describe_photos(Photos(data), data.name),
        "environment": environment(torch.device("cpu")),
        "steps": {revision: {**about[revision], **row} for revision, row in rows.items()},
        "seconds": time.perf_counter() - started,
    }


def main() -> int:
    """Exit code 2: something cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photos")
    parser.add_argument("--rounds", type=int, default=9, help="of each build, in turns")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "steps.json")
    given = parser.parse_args()
    return kept(given.out, lambda: steps(given.data, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
