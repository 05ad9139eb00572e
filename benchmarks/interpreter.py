"""How much of the interpreter do reading and loading need? Alone, and beside a thread that is busy in Python.

    python benchmarks/interpreter.py DATA [--out benchmarks/results/interpreter-NAME.json]

One thread at a time runs Python. A training loop that launches many small kernels is such a thread, and it
and the loader's threads wait for each other: here a thread counts without end in its place. Each way to read
files, and each loader, is measured without it and beside it, in turns; `count` is how fast it counts then, as
a share of its speed beside nothing.
"""

import argparse
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.child import Variant
from flowerfast.bench.environment import describe_photos, environment, write_results
from flowerfast.bench.measure import Pace, Row, measure
from flowerfast.bench.rounds import Batch, Source
from flowerfast.bench.sources import loader, sample
from flowerfast.config import AugmentConfig, load_config
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders.batch import Recipe
from flowerfast.loaders.dali import READERS
from flowerfast.loaders.dali_files import Files, Reading
from flowerfast.loaders.sampling import Sampler

PHOTOS = 384
"""In an epoch, spread over the folder: beside a busy thread thousands would take minutes."""
_REST = 0.7  # seconds after the last batch; all batches come faster
ALONE, BESIDE = "nothing", "beside a busy thread"
WAYS: dict[str, dict[str, Any]] = {
    "files, one by one in Python": {"what": "files", "settings": ["data.kernels=torchvision"]},
    "files, in compiled calls": {"what": "files", "settings": []},
    "torchvision loader, kernels=torchvision": {"what": "loader", "settings": ["data.kernels=torchvision"]},
    "torchvision loader": {"what": "loader", "settings": []},
}


class Counter:
    """A thread that is always busy in Python while batches are drawn, and rests soon after the last."""

    def __init__(self) -> None:
        self.counted, self._until, self._ends = 0, 0.0, False
        threading.Thread(target=self._run, daemon=True).start()

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass on batches, each of which keeps the thread busy."""
        for batch in batches:
            self._until = time.perf_counter() + _REST
            yield batch

    def _run(self) -> None:
        while not self._ends:
            if time.perf_counter() < self._until:
                self.counted += 1
            else:
                time.sleep(0.01)

    def close(self) -> None:
        """End the thread."""
        self._ends = True


def source(what: str, data: str, settings: list[str], busy: bool) -> Source:
    """What is drawn from, perhaps beside a counting thread."""
    torch.set_num_threads(1)
    inner = {"files": files, "loader": some, ALONE: nothing}[what](data, settings)
    if not busy:
        return inner
    counter = Counter()

    def close() -> None:
        counter.close()
        inner.close()

    epochs = (counter.watch(epoch) for epoch in inner.epochs)
    return Source(epochs, lambda: {"count": float(counter.counted)}, inner.lead, close)


def nothing(_data: str, _settings: list[str]) -> Source:
    """A main thread that sleeps."""

    def epoch() -> Iterator[Batch]:
        for _ in range(4):
            time.sleep(0.05)
            yield None, [0]

    return Source((epoch() for _ in count()), lead=1)


def some(data: str, settings: list[str]) -> Source:
    """A loader of `PHOTOS` photos."""
    return loader(data, settings, photos=PHOTOS)


def files(data: str, settings: list[str]) -> Source:
    """Photos read as the DALI loader reads them."""
    config = load_config(None, settings)
    manifest = load_manifest(data)
    recipe = Recipe(224, config.train.batch_size, 0, AugmentConfig(), shuffle=True)
    sampler = Sampler(manifest, sample(len(manifest), PHOTOS), recipe)
    reader = Files(manifest, READERS, config.data.kernels != "torchvision")

    def epoch(number: int) -> Iterator[Batch]:
        ahead: deque[Reading] = deque()
        for plan in sampler.plans(number):
            ahead.append(reader.start(plan))
            if len(ahead) > config.data.prefetch:
                yield None, ahead.popleft().result()[1]
        while ahead:
            yield None, ahead.popleft().result()[1]

    return Source((epoch(number) for number in count()), close=reader.close)


def variants(data: Path, batch_size: int) -> dict[str, Variant]:
    """All that is measured, by name."""
    target, found = "benchmarks.interpreter:source", {}
    for name, way in {ALONE: {"what": ALONE, "settings": []}, **WAYS}.items():
        settings = [f"train.batch_size={batch_size}", "data.backend=torchvision", *way["settings"]]
        for busy in (False, True) if name != ALONE else (True,):
            options = {"what": way["what"], "data": str(data), "settings": settings, "busy": busy}
            named = f"{name}, {BESIDE}" if busy else name
            found[named] = Variant(named, target, options)
    return found


def main() -> int:
    """Parse, measure, print, write: exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders of photos")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.6, help="least length of a round")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    data, console = args.data.resolve(), Console(highlight=False)
    rows = measure(
        [*variants(data, args.batch_size).values()], Pace(args.rounds, args.seconds), console.print
    )
    add_shares(rows)
    for name, row in rows.items():
        share = "" if "count" not in row else f", which keeps {row['count']:.0%} of its speed"
        console.print(row.get("error") or f"{name}: {row['images_per_sec']:,.0f} images/s{share}")
    if args.out:
        result = {
            "schema": 1,
            "kind": "interpreter",
            "environment": environment(torch.device("cpu")),
            "data": describe_photos(load_manifest(data), data.name),
            "settings": {k: getattr(args, k) for k in ("batch_size", "rounds", "seconds")}
            | {"photos": PHOTOS},
            "loader": rows,
        }
        write_results(args.out, result)
    return 0


def add_shares(rows: dict[str, Row]) -> None:
    """How fast the busy thread counts, as a share of its speed beside a main thread that sleeps."""
    alone = rows[f"{ALONE}, {BESIDE}"]["counters"]["count"]
    for row in rows.values():
        if row.get("counters", {}).get("count"):
            row["count"] = row["counters"]["count"] / alone


if __name__ == "__main__":
    sys.exit(main())
