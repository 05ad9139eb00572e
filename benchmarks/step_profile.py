"""What one training step is made of: kernels by stage, host syncs, conversions of layout, idle time."""

import json
import tempfile
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from flowerfast.bench.rounds import synchronise
from flowerfast.bench.training_sources import compile_if_on, make_state
from flowerfast.bench.worker import open_source
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.ranges import name_stages
from flowerfast.settings import load_config
from flowerfast.training.fit import train_step
from flowerfast.training.waiting import WaitClock
from tests.gpu.layouts import CONVERSION

STEPS, WARM_UP, TOP = 10, 10, 15
LOADER, OTHER = "loader's threads", "other"
"""Stages of kernels that no thread of torch's has launched, and of those launched in no named stage."""
_KERNEL, _LAUNCH = ("kernel", "gpu_memcpy", "gpu_memset"), ("cuda_runtime", "cuda_driver")
Event = dict[str, Any]
"""Of a trace in Chrome's format: name, cat, ts and dur in us, tid, args."""


def profile(source: dict[str, Any], settings: Sequence[str], device: str, classes: int) -> dict[str, Any]:
    """Profile training steps fed by a loader of ours, {"target", "options"}: what `summarise` says, and
    `wall_ms`, a step's length with the profiler at work, which makes launching slower.
    """
    where, config = pick_device(device), load_config(None, settings)
    opened = open_source(source["target"], source["options"])
    state = make_state(config, where, classes)
    compile_if_on(config, state)
    batches = WaitClock(where).watch(batch for batch in chain.from_iterable(opened.epochs) if len(batch))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if where.type == "cuda" else [])]
    try:
        for batch in islice(batches, WARM_UP):
            train_step(state, batch)
        name_stages()
        synchronise()
        with torch.profiler.profile(activities=activities) as profiled:
            started = time.perf_counter()
            for batch in islice(batches, STEPS):
                train_step(state, batch)
            synchronise()
            seconds = time.perf_counter() - started
    finally:
        name_stages(False)
        batches.close()
        opened.close()
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    if where.type == "cuda" and not any(event.get("cat") == "kernel" for event in events):
        raise RuntimeError("torch's profiler saw no kernel: perhaps this process may not use CUPTI")
    return {"wall_ms": 1000 * seconds / STEPS, **summarise(events, STEPS)}


def summarise(events: Sequence[Event], steps: int) -> dict[str, Any]:
    """What a trace of so many steps says of one of them, on average.

    `stages`: launches and milliseconds of kernels and copies, by the stage in which they were launched;
    `top`: the kernels that take longest; `syncs`: calls that wait for the device, by torch's threads and the
    loader's; `conversions`: kernels that change a layout; `idle_share`: of the time from the first kernel's
    start to the last one's end, that in which none runs.

    Of a CPU, operations that no other one contains stand for kernels.
    """
    spans = [event for event in events if event.get("ph") == "X"]
    ours = (e for e in spans if e["cat"] == "user_annotation" and "#" not in e["name"])  # torch has its own
    ranges = sorted(ours, key=lambda e: e["ts"])
    torchs = {e["tid"] for e in spans if e["cat"] in ("cpu_op", "user_annotation")}
    kernels = [e for e in spans if e["cat"] in _KERNEL]
    calls = [e for e in spans if e["cat"] in _LAUNCH]
    launches = {e["args"]["correlation"]: e for e in calls if "correlation" in e.get("args", {})}
    if not kernels:
        kernels = list(_outermost(e for e in spans if e["cat"] == "cpu_op"))
        launches = {}
    stages: dict[str, list[float]] = defaultdict(list)
    by_name: dict[str, list[float]] = defaultdict(list)
    starts = [e["ts"] for e in ranges]
    for kernel in kernels:
        launch = launches.get(kernel.get("args", {}).get("correlation"), kernel)
        stage = _stage_at(launch["ts"], ranges, starts) if launch["tid"] in torchs else LOADER
        stages[stage].append(kernel["dur"])
        by_name[kernel["name"]].append(kernel["dur"])
    longest = sorted(by_name, key=lambda name: -sum(by_name[name]))
    inside = (ranges[0]["ts"], ranges[-1]["ts"] + ranges[-1]["dur"]) if ranges else (0.0, 0.0)
    waits = [e for e in calls if "Synchronize" in e["name"] and inside[0] <= e["ts"] <= inside[1]]
    syncs = {
        "torch": [e for e in waits if e["tid"] in torchs],
        LOADER: [e for e in waits if e["tid"] not in torchs],
    }
    return {
        "steps": steps,
        "stages": {name: _mean(times, steps) for name, times in stages.items()},
        "top": [{"name": name[:160], **_mean(by_name[name], steps)} for name in longest[:TOP]],
        "syncs": {
            who: {name: n / steps for name, n in Counter(e["name"] for e in found).items()}
            for who, found in syncs.items()
        },
        "conversions": {n[:160]: _mean(by_name[n], steps) for n in longest if CONVERSION.search(n)},
        "idle_share": _idle([e for e in kernels if e["cat"] in ("kernel", "cpu_op")]),
    }


def _mean(times: Sequence[float], steps: int) -> dict[str, float]:
    return {"launches": len(times) / steps, "ms": sum(times) / 1000 / steps}


def _stage_at(moment: float, ranges: Sequence[Event], starts: Sequence[float]) -> str:
    """Name of the innermost range that holds a moment: the one that began last."""
    for event in reversed(ranges[: bisect_right(starts, moment)]):
        if moment <= event["ts"] + event["dur"]:
            return str(event["name"])
    return OTHER


def _outermost(events: Iterator[Event]) -> Iterator[Event]:
    """Events that lie within no other of their thread."""
    ends: dict[Any, float] = {}
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        if event["ts"] >= ends.get(event["tid"], float("-inf")):
            ends[event["tid"]] = event["ts"] + event["dur"]
            yield event


def _idle(kernels: Sequence[Event]) -> float | None:
    """Share of the time in which no kernel runs; None without kernels."""
    if not kernels:
        return None
    ordered = sorted(kernels, key=lambda e: e["ts"])
    first, until, busy = ordered[0]["ts"], ordered[0]["ts"], 0.0
    for event in ordered:
        end = event["ts"] + event["dur"]
        busy += max(end - max(event["ts"], until), 0.0)
        until = max(until, end)
    return 1 - busy / max(until - first, 1e-9)
