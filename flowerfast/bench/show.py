"""A result of `flowerfast bench` as tables and sentences for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from flowerfast.bench.result import BESIDE, Row, present

SPREADS = 3
"""± in spreads: medians of two runs of the same thing nearly always agree then (docs/what-if.md)."""
_COLUMNS = ("images/s", "±", "× now", "cores", "MB", "waiting", "GPU", "GPU MB")
"""cores: kept busy; MB: memory that no file backs; waiting for data, GPU: shares of the time."""


def report(result: dict[str, Any]) -> Iterator[RenderableType]:
    """Tables of what was measured, then the verdict."""
    yield _about(result)
    if why := result["settings"].get("backend_reason"):
        yield f"backend: {result['settings']['backend']} ({why})"
    if "stages" in result:
        yield _stages(result["stages"])
        yield _sums(result["stages"])
    for suite, title in (("loader", "loader"), ("model", "model alone"), ("train", "training, fed by")):
        if result.get(suite):
            sizes = {row.get("batch_size") for row in result[suite].values()} if suite != "loader" else ()
            batch = "".join(f", batch {size}" for size in sizes)
            yield _rows(f"{title}{batch}", result[suite], present(result, suite))
        for name, row in result.get(suite, {}).items():
            if "error" in row:
                yield f"failed: {name}: {row['error']}"
    for name, why in result["settings"].get("left_out", {}).items():
        yield f"not measured: {name}: {why}"
    verdict = result["verdict"]
    for number, text in enumerate(verdict["findings"]):
        yield f"{'' if number else 'verdict: '}{text}"
    for entry in verdict["advice"] if verdict["bound"] == "model" else ():
        rate, gain = f"{entry['images_per_sec']:,.0f} images/s", f"{entry['gain']:.2f} times as many"
        yield f"{entry['setting']} measured {rate}, {gain} ({entry['note']})"


def _about(result: dict[str, Any]) -> str:
    env, data, settings = result["environment"], result["data"], result["settings"]
    changed = ", with changes" if env["git_changed"] else ""
    revision = f", revision {env['git'][:9]}{changed}" if env["git"] else ""
    return (
        f"{env['device']}, {env['cpu']}, {env['cores']} cores; {data['photos']:,} photos of "
        f"{data['mean_pixels'] / 1e6:.2f} megapixels and {data['mean_bytes'] / 1e3:,.0f} kB on average, "
        f"{settings['photos_per_epoch']} of them in a measured epoch; {settings['model']} at "
        f"{settings['image_size']} px, batch {settings['batch_size']}, {settings['workers']} workers, "
        f"{settings['rounds']} rounds{revision}"
    )


def _stages(stages: dict[str, Any]) -> Table:
    table = Table()
    table.add_column(f"stage ({stages['executor']}, one thread)", no_wrap=True)
    for name in ("ms per image", "±", "images/s per core", "share"):
        table.add_column(name, justify="right")
    whole = stages["sum_ms"]
    for name, row in stages["rows"].items():
        share = f"{row['ms'] / whole:.0%}" if name != BESIDE else "(meanwhile)"
        table.add_row(name, *_stage_figures(row), share)
    cold = stages["cold_read"]
    if "ms" in cold:
        table.add_row("read, cold disk", *_stage_figures(cold), "(instead)")
    return table


def _stage_figures(row: Row) -> list[str]:
    return [f"{row['ms']:.3f}", f"{SPREADS * row['spread_ms']:.3f}", f"{row['images_per_sec']:,.0f}"]


def _sums(stages: dict[str, Any]) -> str:
    why = stages["cold_read"].get("not_measured")
    cold = f"; reading from a cold disk was not measured: {why}" if why else ""
    return (
        f"sum {stages['sum_ms']:.2f} ms; the whole loader with one worker {stages['loader_ms']:.2f} ms per "
        f"image; {stages['photos']} photos, in the page cache{cold}"
    )


def _rows(title: str, rows: dict[str, Row], now: Row | None) -> Table:
    """One suite, `now` the row of the present settings; columns that are empty in all rows are left out."""
    table, cells = Table(), {name: _cells(row, now) for name, row in rows.items()}
    shown = [k for k in range(len(_COLUMNS)) if any(row and row[k] for row in cells.values())]
    table.add_column(title)
    for k in shown:
        table.add_column(_COLUMNS[k], justify="right", no_wrap=True, min_width=len(_COLUMNS[k]))
    for name, row in cells.items():
        table.add_row(name, *([row[k] for k in shown] if row else ["failed"]))
    return table


def _cells(row: Row, now: Row | None) -> list[str] | None:
    """Figures of a row by column; None when it has none."""
    if "error" in row:
        return None
    rate = row["images_per_sec"]
    return [
        f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
        f"{SPREADS * row['spread'] / rate:.0%}",
        f"{rate / now['images_per_sec']:.2f}" if now else "",
        _number(row["cpu_cores"], 1, ".1f"),
        _number(row["memory_bytes"], 1e-6, ",.0f"),
        _number(row.get("data_wait"), 1, ".0%"),
        _number(row.get("gpu_share"), 1, ".0%"),
        _number(row.get("gpu_memory_bytes"), 1e-6, ",.0f"),
    ]


def _number(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(value * factor, form)
