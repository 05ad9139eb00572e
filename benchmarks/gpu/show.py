"""Rows as lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def lines(place: Sequence[str], rows: Mapping[str, Any]) -> Iterator[str]:
    """The rows of one group."""
    if place[0] == "recipe":
        yield from recipe(rows)
        return
    for name, row in rows.items():
        if "error" in row:
            yield f"  {name}: {'skipped' if row.get('skipped') else 'failed'}: {row['error']}"
        elif "stages" in row:
            yield from profile(name, row)
        else:
            yield f"  {name}: {figures(row)}"


def figures(row: Row) -> str:
    """One measured row."""
    parts = [f"{row['images_per_sec']:,.0f} images/s ± {row['spread']:,.0f}"]
    if "floor_share" in row:
        parts.append(f"{row['floor_share']:.0%} of its floor ({row['floor']})")
    if "synthetic_share" in row:
        parts.append(f"{row['synthetic_share']:.1%} of synthetic")
    if "waited" in row["counters"]:
        parts.append(f"{min(row['counters']['waited'], 1.0):.1%} waiting for data")
    if row["cpu_cores"] is not None:
        parts.append(f"{row['cpu_cores']:.1f} cores")
    if row.get("gpu_memory_bytes") is not None:
        parts.append(f"{row['gpu_memory_bytes'] / 1e9:.1f} GB of the GPU")
    return ", ".join(parts)


def profile(name: str, row: Row) -> Iterator[str]:
    """The table of a profile."""
    yield f"  {name}: {row['step_ms']:.2f} ms a step, GPU busy {row['gpu_busy_ms']:.2f} ms"
    for stage in row["stages"]:
        yield (
            f"    {stage['stage']:<32} host {stage['host_ms']:8.3f} ms   GPU {stage['gpu_ms']:8.3f} ms   "
            f"{stage['kernels']:6.1f} kernels"
        )
    for thread, calls in row["syncs"].items():
        listed = ", ".join(f"{call} {times:.1f}" for call, times in calls.items()) or "none"
        yield f"    host syncs per step, {thread}: {listed}"
    for kernel in row["top"]:
        yield f"    {kernel['gpu_ms']:8.3f} ms  {kernel['times']:6.1f}x  {kernel['name'][:90]}"


def recipe(row: Row) -> Iterator[str]:
    """The recipe's row."""
    if "error" in row:
        yield f"  recipe: {'skipped' if row.get('skipped') else 'failed'}: {row['error']}"
        return
    yield (
        f"  best checkpoint (epoch {row['best_epoch'] + 1} of {row['epochs_run']}) after "
        f"{row['best_seconds']:.1f} s, whole run {row['whole_seconds']:.1f} s"
    )
    shown = ("import", "startup", "train", "eval", "write", "report")
    yield "  " + ", ".join(f"{key} {row[f'{key}_seconds']:.1f} s" for key in shown)
