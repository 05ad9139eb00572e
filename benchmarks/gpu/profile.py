"""Some steps of fed training under torch's profiler: python -m benchmarks.gpu.profile OPTIONS (JSON).

Prints one line of JSON, which `trace.digest` made.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.alone import run_python
from benchmarks.gpu.trace import WINDOW, digest
from flowerfast.bench.child import ChildFailed, Variant
from flowerfast.bench.rounds import Batch, Source, synchronise
from flowerfast.bench.worker import open_source
from flowerfast.errors import UserError
from flowerfast.ranges import name_stages


def profile_row(variant: Variant, steps: int, limit: float) -> dict[str, Any]:
    """Profile a source in a process of its own: its table, or a row with `error`."""
    options = {"target": variant.target, "options": variant.options, "steps": steps}
    try:
        done = run_python(["-m", "benchmarks.gpu.profile", json.dumps(options)], limit)
        row: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    except ChildFailed as error:
        return {"error": str(error), "skipped": error.skipped}
    except (ValueError, IndexError):
        return {"error": "printed no table", "skipped": False}
    return row


def profiled(source: Source, steps: int) -> dict[str, Any]:
    """Table of `steps` batches, after an epoch and as many batches of warming up."""
    epochs = iter(source.epochs)
    for _ in next(epochs):
        pass
    batches: Iterator[Batch] = chain.from_iterable(epochs)
    name_stages()
    for _ in islice(batches, steps):
        pass
    synchronise()
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=kinds) as found:
        with record_function(WINDOW):
            for _ in islice(batches, steps):
                pass
        synchronise()  # outside of what counts: the kernels of the last steps are wanted, this wait is not
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "trace.json"
        found.export_chrome_trace(str(file))
        return digest(json.loads(file.read_text(encoding="utf-8", errors="replace")), steps)


def main() -> int:
    """Profile what the command line names: exit code."""
    order = json.loads(sys.argv[1])
    try:
        source = open_source(order["target"], order["options"])
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    print(json.dumps(profiled(source, order["steps"])))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # at once: teardown of native libraries can hang
