"""A process that draws the batches of one rank: python -m benchmarks.loaders.rank ORDERS

ORDERS is a JSON file by resume.py: peer, job, epochs, `state` (file to write after batch `at` of epoch
`epoch`, or null), `load` (file to begin with, or null), `log`. A line of the log per batch: epoch, batch,
ids, CRC-32 of the pixels of each. When all is drawn that was wanted before the kill, it waits for it.
"""

import json
import os
import pickle
import random
import sys
import time
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loaders import SEED, Job

BEYOND = 2
"""Batches drawn after the save: those that a kill makes be drawn again."""
_END = 60
"""Seconds to wait for the kill."""


def main(orders: dict[str, Any]) -> None:
    """Draw until the epochs are over, or the end comes from outside."""
    job = Job(**orders["job"])
    peer = import_module(f"benchmarks.loaders.{orders['peer']}")
    if job.world > 1 and "torch" in sys.modules:
        from torch import distributed

        distributed.init_process_group("gloo")  # as torchrun sets it up

    with open(orders["log"], "w", encoding="utf-8", buffering=1) as log:

        def say(**facts: Any) -> None:
            log.write(json.dumps(facts) + "\n")

        try:
            _draw(peer, job, orders, say)
        except Exception as error:  # whatever a peer raises is an answer
            lines = str(error).strip().splitlines() or [""]
            say(error=f"{type(error).__name__}: {lines[-1][:160]}".rstrip(": "))
        say(end=True)
    os._exit(0)  # what threads and workers of a peer still do is nobody's concern


def _draw(peer: Any, job: Job, orders: dict[str, Any], say: Any) -> None:
    _seed(-1)
    started = time.perf_counter()
    loader = peer.Loader(job)
    epoch, batch = 0, 0
    if orders["load"]:
        with open(orders["load"], "rb") as file:
            kept = pickle.load(file)
        epoch, batch = kept["epoch"], kept["batch"]
        loader.load(kept["state"], epoch, batch)
    first = True
    for number in range(epoch, orders["epochs"]):
        _seed(number)
        for ids, pixels in loader.epoch(number):
            if first:
                decoded = os.environ["RESUME_DECODED"]
                say(seconds=time.perf_counter() - started, decoded=_decoded(decoded))
                first = False
            if len(ids) == job.own_batch:
                crcs = [zlib.crc32(np.ascontiguousarray(each)) for each in pixels]
                say(epoch=number, batch=batch, ids=ids, crcs=crcs)
            batch += 1
            if orders["state"] and number == orders["epoch"]:
                if batch == orders["at"]:
                    content = pickle.dumps({"epoch": number, "batch": batch, "state": loader.save()})
                    Path(orders["state"]).write_bytes(content)
                elif batch == orders["at"] + BEYOND:
                    say(ready=True)
                    time.sleep(_END)
                    raise TimeoutError("nobody has ended this process")
        batch = 0


def _decoded(file: str) -> list[int]:
    """Ids of what was decoded so far, by this rank's processes."""
    return np.fromfile(file, "<i4").tolist() if Path(file).exists() else []


def _seed(epoch: int) -> None:
    """What a careful user does: all global generators by the epoch."""
    number = SEED * 1000 + epoch
    np.random.seed(number)  # noqa: NPY002 - that transforms of users draw from it is the point
    random.seed(number)
    if "torch" in sys.modules:  # else the peer has no use for it
        sys.modules["torch"].manual_seed(number)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
