"""Images/s of many ranks from what one costs; docs/scale.md says what is assumed."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.markdown import table

GPUS = (8, 64)
NETWORKS = (50e9, 3e9)
"""Bytes/s that a GPU sends, assumed: within a machine, and with 200 Gbit/s for a machine of eight."""
RESNET18 = 4 * 11_689_512  # bytes of its gradients


@dataclass(frozen=True)
class Costs:
    """What one rank costs.

    Attributes:
        loader: images/s that its loader makes.
        model: images/s that it trains with photos at hand.
        batch: images of a step.
        exchange: seconds of a step in which gradients are added up and nothing else is done.
    """

    loader: float
    model: float
    batch: int
    exchange: float = 0.0


def images_per_sec(costs: Costs, count: int) -> float:
    """Images/s of many ranks, each with a loader of its own: the slower of loading and of training."""
    step = costs.batch / costs.model + (costs.exchange if count > 1 else 0.0)
    return count * min(costs.loader, costs.batch / step)


def exchanged(gradient_bytes: int, count: int) -> float:
    """Bytes that a rank sends in a step to add up gradients in a ring.

    Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009.
    """
    return 2 * (count - 1) / count * gradient_bytes


def of_a_core(bench: dict[str, Any]) -> float:
    """Images/s that a core makes: of one worker, whose main thread keeps a part of another core busy."""
    row = bench["loader"]["cpu, workers=1"]
    return float(row["images_per_sec"] / max(1.0, row["cpu_cores"]))


def checked(bench: dict[str, Any], ranks: dict[str, Any], scale: dict[str, Any] | None) -> str:
    """What was predicted of two ranks beside what they did."""
    one, two = 2 * of_a_core(bench), ranks["loaders"]["median"]["2 ranks x 1 core"]
    rows = [["loader, from `bench`", f"{one:,.0f}", f"{two:,.0f}", f"{one / two - 1:+.1%}"]]
    found = scale or {"errors": {}}
    for what, errors in found["errors"].items():
        medians = found["predicted"][what], found["median"][f"{what}, 2"]
        error = f"{statistics.median(errors):+.1%}, of rounds {min(errors):+.1%} to {max(errors):+.1%}"
        rows.append([what, *(f"{rate:,.0f}" for rate in medians), error])
    return table("two ranks, a core each|>predicted, images/s|>measured|>error", rows)


def predicted(speed: dict[str, Any], bench: dict[str, Any]) -> str:
    """ResNet18 on many GPUs, from what was measured with one and its 16 cores."""
    columns = (
        "GPUs|>loaders alone, images/s|>networks alone|>training, all hidden|>nothing hidden, 50 GB/s"
        "|>nothing hidden, 3 GB/s|>sent by a GPU in a step, MB|>photos from the store, GB/s"
    )
    return table(columns, list(_rows(speed, bench["data"]["mean_bytes"])))


def _rows(speed: dict[str, Any], photo_bytes: float) -> Iterator[list[str]]:
    loader = speed["loader"]["dali, decoder=cpu"]["images_per_sec"]
    model, batch = speed["model"]["torch.compile"]["images_per_sec"], speed["settings"]["batch_size"]
    for count in GPUS:
        sent = exchanged(RESNET18, count)
        hidden = images_per_sec(Costs(loader, model, batch), count)
        shown = [images_per_sec(Costs(loader, model, batch, sent / network), count) for network in NETWORKS]
        yield [
            f"{count}",
            *(f"{rate:,.0f}" for rate in (count * loader, count * model, hidden, *shown)),
            f"{sent / 1e6:,.0f}",
            f"{hidden * photo_bytes / 1e9:,.1f}",
        ]
