"""Memory of host and device, epoch after epoch."""

from pathlib import Path
from statistics import median

import torch

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Kind, Place

_MIB = 1 << 20


def flat_memory(place: Place, kind: Kind) -> Outcome:
    """Between the second quarter of the epochs and the last, neither memory grows by more than the bound.

    Pools and libraries fill in the first quarter. One batch lost per epoch would be several times the bound.
    """
    loader = place.open("small", kind)
    taken = []
    for epoch in range(place.sizes.memory_epochs):
        for batch in loader.epoch(epoch):
            del batch
        taken.append(held(place))
    loader.close()
    grown = {name: growth([each[name] for each in taken]) for name in taken[0]}
    most = max(grown.values())
    detail = "; ".join(
        f"{name} {grown[name]:+.1f} MiB, {taken[-1][name]:.0f} at the end" for name in taken[0]
    )
    bound = f"growth ≤ {place.sizes.growth_mib:g} MiB in {len(taken)} epochs"
    return Outcome(most <= place.sizes.growth_mib, round(most, 2), bound, detail, place.unseen(kind))


def growth(values: list[float]) -> float:
    """Median of the last quarter less that of the second."""
    quarter = len(values) // 4
    return median(values[-quarter:]) - median(values[quarter : 2 * quarter])


def held(place: Place) -> dict[str, float]:
    """MiB that this process alone asked for (heap, buffers), and all that is taken of the GPU."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # Some kernels give only the whole resident memory, with pages of libraries.
    field = "RssAnon" if "RssAnon" in lines else "VmRSS"
    found = {f"host ({field})": int(lines[field].split()[0]) / 1024}
    if place.cuda:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        found["device"] = (total - free) / _MIB
    return found
