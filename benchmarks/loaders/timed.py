"""A process that draws epochs and times them: python -m benchmarks.loaders.timed ORDERS

ORDERS is a JSON file by one_bucket.py: peer, job, `epochs` to draw whole, `log`, `counts` (URL of the
server's counts), `state` (file to write after half of the next epoch, or null), `load` (file to go on from,
or null; only the first batch is drawn then). At the end it waits to be killed.
"""

import json
import pickle
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch

from benchmarks.loaders import SEED, Job

_END = 60
"""Seconds to wait for the kill."""


def main(orders: dict[str, Any]) -> None:
    """Draw, say what it took, wait."""
    peer = import_module(f"benchmarks.loaders.{orders['peer']}")
    with open(orders["log"], "w", encoding="utf-8", buffering=1) as log:

        def say(**facts: Any) -> None:
            log.write(json.dumps(facts) + "\n")

        try:
            _draw(peer.Loader, orders, say)
        except Exception as error:  # whatever a peer raises is an answer
            lines = str(error).strip().splitlines() or [""]
            say(error=f"{type(error).__name__}: {lines[-1][:160]}")
        say(ready=True)
        time.sleep(_END)


def _draw(open_loader: Callable[[Job], Any], orders: dict[str, Any], say: Callable[..., None]) -> None:
    begun, counts = time.perf_counter(), _Counts(orders["counts"])
    torch.manual_seed(SEED)
    loader = open_loader(Job(**orders["job"]))
    if orders["load"]:
        kept = pickle.loads(Path(orders["load"]).read_bytes())
        loader.load(kept["state"], kept["epoch"], kept["batch"])
        next(iter(loader.epoch(kept["epoch"])))
        say(first=time.perf_counter() - begun, **counts.new())
        return
    for epoch in range(orders["epochs"]):
        images = batches = 0
        for ids, _ in loader.epoch(epoch):
            if not images and not epoch:
                say(first=time.perf_counter() - begun)
            images, batches = images + len(ids), batches + 1
        say(epoch=epoch, images=images, seconds=time.perf_counter() - begun, **counts.new())
        begun = time.perf_counter()
    if orders["state"]:
        half = iter(loader.epoch(orders["epochs"]))
        for _ in range(batches // 2):
            next(half)
        kept = {"epoch": orders["epochs"], "batch": batches // 2, "state": loader.save()}
        Path(orders["state"]).write_bytes(pickle.dumps(kept))


class _Counts:
    """Requests and bytes since the last time."""

    def __init__(self, url: str) -> None:
        self._url, self._seen = url, {"requests": 0, "bytes": 0}
        self.new()

    def new(self) -> dict[str, int]:
        """Since then."""
        with urlopen(self._url) as answer:
            now = json.load(answer)
        since = {name: now[name] - self._seen[name] for name in now}
        self._seen = now
        return since


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
