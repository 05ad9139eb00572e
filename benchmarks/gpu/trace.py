"""From a trace of torch's profiler to a short table: GPU time by stage, host time by stage, host syncs.

A kernel belongs to the stage (`flowerfast.ranges`) in which the call that launched it lies, on its own
thread or, where that has none (autograd's thread), on the training thread at that moment. DALI launches from
threads of its own while the training thread does something else: its kernels are known by their names.
"""

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

WINDOW = "profiled steps"
"""Annotation of all that counts."""
SYNCS = frozenset(
    {
        "cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy",
        "cudaMemcpy2D", "cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize", "cudaFree",
        "cudaHostAlloc",
    }
)  # fmt: skip
"""Calls in which the host waits for the device."""
DALI_KERNELS = (
    ("DALI: decode", ("nvjpeg", "jpeg", "huffman", "idct", "ycbcr", "nvimgcodec")),
    ("DALI: resize", ("resampl",)),
    ("DALI: rotate", ("warp",)),
    ("DALI: jitter, mean", ("reduc",)),
    ("DALI: jitter, grey", ("color", "rgbtogray", "gray")),
    ("DALI: jitter, arithmetic", ("expr", "arithm", "executetiles", "castkernel", "batchedcast")),
    ("DALI: cut and shift", ("slice",)),
    ("DALI: gather", ("batchcopy", "scattergather", "copykernel")),
)
"""Stages by what the names of their kernels hold; the first that fits."""
_DALI = ("dali::", "nvjpeg", "nvimgcodec")
_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_CALLS = ("cuda_runtime", "cuda_driver")
_TOP = 12
Event = dict[str, Any]


@dataclass(frozen=True)
class _Stages:
    """Annotations of one thread, in order of their start; inner ones begin later than those around them."""

    starts: list[float]
    spans: list[tuple[float, float, str]]

    @classmethod
    def of(cls, events: Iterable[Event]) -> "_Stages":
        spans = sorted((e["ts"], e["ts"] + e["dur"], e["name"]) for e in events)
        return cls([span[0] for span in spans], spans)

    def at(self, moment: float) -> str | None:
        """Name of the innermost annotation around a moment."""
        for start, end, name in reversed(self.spans[: bisect.bisect_right(self.starts, moment)]):
            if start <= moment <= end:
                return name
        return None


def digest(trace: dict[str, Any], steps: int) -> dict[str, Any]:
    """The table of a trace: all figures per step, milliseconds.

    stages: host_ms, gpu_ms and kernels by stage; syncs: calls in which the host waited, by thread and name;
    gpu_busy_ms: time in which at least one kernel or copy ran; top: kernels that took longest.
    """
    events = [e for e in trace["traceEvents"] if e.get("ph") == "X" and "dur" in e]
    # torch annotates optimisers itself, as Optimizer.step#SGD.step: the stages around them say it already.
    window = max((e for e in events if e["name"] == WINDOW and _is(e, "user_annotation")), key=_length)
    first, last, thread = window["ts"], window["ts"] + window["dur"], window["tid"]
    inside = [e for e in events if first <= e["ts"] <= last]
    named = [e for e in inside if _is(e, "user_annotation") and e["name"] != WINDOW and "#" not in e["name"]]
    on = {tid: _Stages.of(e for e in named if e["tid"] == tid) for tid in {e["tid"] for e in named}}
    main = on.get(thread, _Stages([], []))
    calls = {
        e["args"]["correlation"]: e
        for e in inside
        if e.get("cat") in _CALLS and "correlation" in e.get("args", {})
    }
    host, gpu, kernels = defaultdict(float), defaultdict(float), defaultdict(int)
    for event in named:
        if event["tid"] == thread:
            host[event["name"]] += event["dur"]
    work = [e for e in events if e.get("cat") in _GPU and e.get("args", {}).get("correlation") in calls]
    for event in work:
        stage = _stage(event, calls[event["args"]["correlation"]], on, main)
        gpu[stage] += event["dur"]
        kernels[stage] += 1
    over = max([last, *(e["ts"] + e["dur"] for e in work)])  # the host runs ahead of the device
    names = [*dict.fromkeys([*sorted(gpu, key=lambda name: -gpu[name]), *sorted(host)])]
    ms = 1e-3 / steps
    return {
        "steps": steps,
        "step_ms": (over - first) * ms,
        "gpu_busy_ms": _union([(e["ts"], e["ts"] + e["dur"]) for e in work]) * ms,
        "stages": [
            {"stage": n, "host_ms": host[n] * ms, "gpu_ms": gpu[n] * ms, "kernels": kernels[n] / steps}
            for n in names
        ],
        "syncs": _syncs(inside, thread, steps),
        "top": _top(work, steps),
    }


def _is(event: Event, category: str) -> bool:
    return event.get("cat") == category


def _length(event: Event) -> float:
    return float(event["dur"])


def _stage(event: Event, call: Event, on: dict[Any, _Stages], main: _Stages) -> str:
    name = event["name"].lower()
    if any(word in name for word in _DALI):
        return next((s for s, words in DALI_KERNELS if any(w in name for w in words)), "DALI: other")
    own = on.get(call["tid"])
    stage = own.at(call["ts"]) if own is not None else None
    if stage is not None:
        return stage
    if _is(event, "gpu_memcpy") or _is(event, "gpu_memset"):
        return f"{event['name']}, outside the stages"  # DALI's own copies are among these
    return main.at(call["ts"]) or "outside the stages"


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """Length of what intervals cover together."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return total


def _syncs(inside: Sequence[Event], thread: Any, steps: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {"training thread": {}, "other threads": {}}
    for event in inside:
        if event.get("cat") in _CALLS and event["name"] in SYNCS:
            place = found["training thread" if event["tid"] == thread else "other threads"]
            place[event["name"]] = place.get(event["name"], 0.0) + 1 / steps
    return found


def _top(work: Sequence[Event], steps: int) -> list[dict[str, Any]]:
    spent, times = defaultdict(float), defaultdict(int)
    for event in work:
        spent[event["name"]] += event["dur"]
        times[event["name"]] += 1
    longest = sorted(spent, key=lambda name: -spent[name])[:_TOP]
    return [
        {"name": name[:160], "gpu_ms": spent[name] * 1e-3 / steps, "times": times[name] / steps}
        for name in longest
    ]
