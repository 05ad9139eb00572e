"""README's GPU table, from the results files of gpu_speed.py."""

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.rows import COMPILED, EAGER, GRAPH, OVERHEAD, PAPER, SYNTHETIC
from benchmarks.gpu.shares import SETS, as_words, rate

Found = dict[str, Any]


def headline(name: str, result: Found) -> str:
    """One results file: machine and date, loaders and training by set of photos, goals, where the recipe's
    time went.
    """
    env, settings = result["environment"], result["settings"]
    dates = sorted({part["date"] for part in result["parts"].values()}) or [env["date"]]
    measured = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    more = "".join(f", {text}" for text in settings["set"])
    head = (
        f"{env['device']}, {env['cores']} cores, {settings['model']}, batch {settings['batch_size']}, "
        f"{settings['image_size']} px{more}, {measured} ([{name}](benchmarks/results/{name})):\n"
    )
    parts = [head]
    for photos in SETS:
        if photos in result.get("loaders", {}) or photos in result.get("train", {}):
            parts.append("\n".join(_photos(photos, result)) + "\n")
    parts += ["\n".join(_goals(result)) + "\n", *_steps(result), *_recipe(result)]
    parts.append(
        "Medians of alternating rounds, made by `python benchmarks/gpu_speed.py`. What the rows are and how "
        "shares are\ncomputed: [docs/gpu-speed.md](docs/gpu-speed.md)."
    )
    return "\n".join(parts)


def _photos(photos: str, result: Found) -> Iterator[str]:
    about = result["sets"][photos]
    loaders, trained = result.get("loaders", {}).get(photos, {}), result.get("train", {}).get(photos, {})
    base, model = rate(loaders, PAPER), result["settings"]["model"]
    yield (
        f"{SETS[photos].capitalize()}: {about['photos']:,} of {about['mean_pixels'] / 1e6:.2f} megapixels "
        f"on average, {about['photos_per_epoch']:,} an epoch.\n"
    )
    yield (
        "| loader | alone, images/s | × paper's recipe | of its floor | the floor | cores busy "
        f"| GPU memory, GB | training {model}, images/s | of synthetic | waiting for data |"
    )
    yield "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|"
    for loader in dict.fromkeys([*loaders, *(name for name in trained if name != SYNTHETIC)]):
        cells = [*_alone(loaders.get(loader, {}), base), *_trained(trained.get(loader, {}))]
        yield f"| {loader} | {' | '.join(cells)} |"
    if SYNTHETIC in trained:
        cells = ["", "", "", "", "", "", *_trained(trained[SYNTHETIC])]
        yield f"| *none: pixels on the device* | {' | '.join(cells)} |"


def _alone(row: Found, base: float | None) -> list[str]:
    if "images_per_sec" not in row:
        return [_why(row), "", "", "", "", ""]
    memory = row.get("gpu_memory_bytes")
    return [
        f"{row['images_per_sec']:,.0f}",
        f"{row['images_per_sec'] / base:.1f}" if base else "",
        f"{row['floor_share']:.0%}" if "floor_share" in row else "",
        row.get("floor", ""),
        "" if row["cpu_cores"] is None else f"{row['cpu_cores']:.1f}",
        "" if memory is None else f"{memory / 1e9:.1f}",
    ]


def _trained(row: Found) -> list[str]:
    if "images_per_sec" not in row:
        return [_why(row), "", ""]
    waited = row["counters"].get("waited")
    return [
        f"{row['images_per_sec']:,.0f}",
        f"{row['synthetic_share']:.1%}" if "synthetic_share" in row else "",
        "" if waited is None else f"{min(waited, 1.0):.1%}",
    ]


def _why(row: Found) -> str:
    """An empty cell for what was not measured, the reason for what failed."""
    if "error" not in row:
        return ""
    return f"{'skipped' if row.get('skipped') else 'failed'}: {row['error']}".replace("|", "/")


def _goals(result: Found) -> Iterator[str]:
    yield "| goal | wanted | measured | |"
    yield "|---|--:|--:|---|"
    for goal in result["goals"]:
        found = "" if goal["found"] is None else f"{goal['found']:.3g}"
        yield f"| {goal['goal']} | {goal['bound']} {goal['wanted']:g} | {found} | {as_words(goal)} |"


def _steps(result: Found) -> Iterator[str]:
    rows = result.get("floors", {}).get("step", {})
    shown = [
        f"{name.removeprefix('step, ')} {rows[name]['images_per_sec']:,.0f}"
        for name in (EAGER, COMPILED, GRAPH, OVERHEAD)
        if rate(rows, name) is not None
    ]
    if shown:
        yield f"The training step alone, images/s: {', '.join(shown)}.\n"


def _recipe(result: Found) -> Iterator[str]:
    row = result.get("recipe", {})
    if "best_seconds" not in row:
        return
    start = row["import_seconds"] + row["startup_seconds"]
    yield (
        f"`flowerfast train --config paper` on {row['train_samples']:,} photos: best checkpoint after "
        f"{row['best_seconds']:.1f} s (epoch\n{row['best_epoch'] + 1} of {row['epochs_run']}), "
        f"of which start-up until the first batch {start:.1f} s; the whole run {row['whole_seconds']:.1f} s: "
        f"training {row['train_seconds']:.1f} s,\nvalidation {row['eval_seconds']:.1f} s, "
        f"waiting for checkpoints {row['write_seconds']:.1f} s, report {row['report_seconds']:.1f} s.\n"
    )
