"""Write the tables and charts of README and docs/ from the results files.

    python benchmarks/tables.py [--check]

With --check nothing is written; exit code 1 says that a page or chart and the results disagree.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare_chart import draw, is_drawn_from
from benchmarks.compare_tables import headline, section
from benchmarks.gpu.tables import headline as gpu_headline

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """(file name, content) of the results files that match."""
    return [(f.name, json.loads(f.read_text(encoding="utf-8"))) for f in sorted(RESULTS.glob(pattern))]


def speed() -> str:
    """README's table of a GPU: from the results of `gpu_speed.py` where there are any, else of `speed.py`."""
    found = [(name, result) for name, result in read("gpu-speed-*.json") if not result["rehearsal"]]
    return "\n\n".join(gpu_headline(name, result) for name, result in found) if found else bench_speed()


def bench_speed() -> str:
    """Loaders and training, one table per results file of `speed.py`."""
    parts = []
    for name, result in read("speed-*.json"):
        env, data, settings = result["environment"], result["data"], result["settings"]
        base = result["loader"]["paper's recipe"]["images_per_sec"]
        parts.append(
            f"{env['device']}, {env['cores']} cores, {data['photos']:,} photos of "
            f"{data['mean_pixels'] / 1e6:.2f} megapixels on average, batch {settings['batch_size']}, "
            f"{settings['image_size']} px, {env['date']} ([{name}](benchmarks/results/{name})):\n"
        )
        rows = [
            "| loader | alone, images/s | × paper's recipe | training ResNet18, images/s | waiting for data |"
        ]
        rows.append("|---|--:|--:|--:|--:|")
        for loader, figures in result["loader"].items():
            if figures.get("setting", "").startswith(("data.workers", "train.batch_size")):
                continue  # of the scaling curve
            if "error" in figures:
                rows.append(f"| {loader} | failed: {figures['error']} | | | |")
                continue
            rate, train = figures["images_per_sec"], result.get("train", {}).get(loader, {})
            trained = "|" if "data_wait" not in train else ""
            trained = trained or f"{train['images_per_sec']:,.0f} | {train['data_wait']:.0%}"
            rows.append(f"| {loader} | {rate:,.0f} | {rate / base:.1f} | {trained} |")
        for name, figures in result.get("model", {}).items():
            if "error" in figures:
                continue
            rows.append(
                f"| *none: synthetic pixels on the device, {name}* | | | {figures['images_per_sec']:,.0f} | |"
            )
        parts.append("\n".join(rows) + "\n")
    if parts:
        parts.append(
            "Medians of alternating rounds, made by `python benchmarks/speed.py DATA`. The paper's recipe is "
            "ImageFolder and\nDataLoader with a worker process per core."
        )
    return "\n".join(parts)


def accuracy() -> str:
    """Best validation accuracy of recorded training runs."""
    rows = [
        "| model | start | epochs | validation | best accuracy | device | seconds |",
        "|---|---|--:|---|--:|---|--:|",
    ]
    for name, r in read("train-*.json"):
        summary, settings = r["summary"], r["config"]
        weights = settings["model"]["weights"] or settings["model"]["pretrained"]
        start = "ImageNet weights" if weights else "random weights"
        rows.append(
            f"| [{summary['model']}](benchmarks/results/{name}) | {start} | {summary['epochs_run']} "
            f"| {summary['val_protocol']} | {summary['best_val_acc']:.1%} in epoch "
            f"{summary['best_epoch'] + 1} | {summary['device']} | {summary['seconds']:,.0f} |"
        )
    return "\n".join(rows) if len(rows) > 2 else ""


def compare() -> str:
    """Loaders side by side, one section per results file of `compare.py`."""
    parity = next(iter(read("parity-*-decode-scale.json")), None)
    found = sorted(read("compare-*.json"), key=lambda item: item[1]["kind"])
    return "\n\n".join(section(name, result, parity) for name, result in found)


def cpu() -> str:
    """README's table of loaders on a CPU."""
    found = [(name, result) for name, result in read("compare-*.json") if result["kind"] == "compare"]
    return "\n\n".join(headline(name, result) for name, result in found)


def growth() -> str:
    """What a sample costs when there are many, from the results files of `growth.py`."""
    parts = []
    for name, result in read("growth-*.json"):
        env = result["environment"]
        rows = [
            f"{env['cpu']}, {env['cores']} cores, {env['date']} ([{name}](../benchmarks/results/{name})):\n",
            "| photos | bytes per photo | arrays alone, s | folder, valid cache, s | of which listing, s "
            "| to the first batch, s | memory from a tenth to the end of an epoch |",
            "|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for r in result["sizes"]:
            memory = [mark["mib"] for mark in r["workers"]["memory"]]
            rows.append(
                f"| {r['photos']:,} | {r['bytes_per_sample']:.0f} | {r['arrays_alone_seconds']:.3f} "
                f"| {r['load_seconds']:.3f} | {r['of_which_listing_seconds']:.3f} "
                f"| {r['first_batch_seconds']:.3f} | {memory[-1] / memory[0] - 1:+.1%} |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def memory() -> str:
    """How much memory loaders take from epoch to epoch, from the results files of `memory.py`."""
    parts = []
    for name, result in read("memory-*.json"):
        env, settings = result["environment"], result["settings"]
        rows = [
            f"{env['cores']} cores, {settings['photos']:,} photos, {settings['epochs']} epochs, batch "
            f"{settings['batch_size']}, {settings['image_size']} px, {env['date']} "
            f"([{name}](../benchmarks/results/{name})):\n",
            "| loader | MiB after epoch 3 | after the last epoch | change | of that which no file backs |",
            "|---|--:|--:|--:|--:|",
        ]
        for loader, runs in result["loaders"].items():
            for run in runs:
                rss, anonymous = run["rss"], run["anonymous"]
                rows.append(
                    f"| {loader} | {rss['after_epoch_3_mib']:,.0f} | {rss['at_the_end_mib']:,.0f} "
                    f"| {rss['change_percent']:+.1f}% | {anonymous['change_percent']:+.1f}% |"
                )
        parts.append("\n".join(rows + pace(result["speed"])))
    return "\n\n".join(parts)


def pace(speed: dict[str, Any]) -> list[str]:
    """The pool's effect on speed, round against round, since the machine may drift over all of them."""
    if "dali-cpu" not in speed or "dali-cpu-malloc" not in speed:
        return []
    pool, malloc = (speed[name]["rounds"] for name in ("dali-cpu", "dali-cpu-malloc"))
    low, middle, high = quantiles([a / b for a, b in zip(pool, malloc, strict=True)])
    told = f"{middle:.2f} times the images/s of dali-cpu-malloc (middle half {low:.2f} to {high:.2f})"
    return [f"\nIn the median of {len(pool)} pairs of alternating rounds dali-cpu made {told}."]


def interpreter() -> str:
    """What loaders ask of the interpreter, from the results files of `interpreter.py`."""
    parts = []
    for name, result in read("interpreter-*.json"):
        env, data, rates = result["environment"], result["data"], result["loader"]
        rows = [
            f"{env['cpu']}, {env['cores']} cores, photos of {data['mean_pixels'] / 1e6:.2f} megapixels, "
            f"batch {result['settings']['batch_size']}, {env['date']} "
            f"([{name}](../benchmarks/results/{name})):\n",
            "| | alone, images/s | beside a busy thread | which keeps of its speed |",
            "|---|--:|--:|--:|",
        ]
        pairs = {way: f"{way}, beside a busy thread" for way in rates}
        for way, busy in pairs.items():
            if busy not in rates:
                continue
            alone, beside = rates[way], rates[busy]
            speeds = f"{alone['images_per_sec']:,.0f} | {beside['images_per_sec']:,.0f}"
            rows.append(f"| {way} | {speeds} | {beside['count']:.0%} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def repeat() -> str:
    """How often two measurements of the same thing agree, from `trials.py repeat`."""
    rows = ["| | pairs | within one spread | within two | within three |", "|---|--:|--:|--:|--:|"]
    found = read("trials-repeat-*.json")
    for name, result in sorted(found, key=lambda item: (item[1]["environment"]["date"], item[0])):
        settings, (at, *_) = result["settings"], reversed(result["shares"])
        who = "one loader alone" if settings["alone"] else "loaders take turns"
        what = f"{who}, {at['rounds']} rounds of {settings['seconds']:g} s, {result['environment']['date']}"
        agreed = " | ".join(str(at[key]) for key in ("agree", "agree_within_two", "agree_within_three"))
        rows.append(f"| {what} ([file](../benchmarks/results/{name})) | {at['pairs']} | {agreed} |")
    return "\n".join(rows)


def cores() -> str:
    """One core predicts two, from `trials.py cores`."""
    parts = []
    for name, result in read("trials-cores-*.json"):
        env = result["environment"]
        rows = [
            f"{env['cpu']}, {env['date']} ([{name}](../benchmarks/results/{name})):\n",
            "| | images/s | error |",
            "|---|--:|--:|",
        ]
        for text, rate, error in (
            ("measured on one core", result["one_core"]["images_per_sec"], None),
            ("measured on two cores", result["two_cores"]["images_per_sec"], None),
            ("predicted for two, from the loader on one core", result["predicted"], result["error"]),
            (
                "predicted for two, from stages on one core alone",
                result["predicted_from_stages"],
                result["error_from_stages"],
            ),
        ):
            off = "" if error is None else f"{error:+.1%}"
            rows.append(f"| {text} | {rate:,.0f} | {off} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"cpu": cpu, "speed": speed, "accuracy": accuracy},
    "docs/compare.md": {"compare": compare},
    "docs/cpu.md": {"interpreter": interpreter, "memory": memory, "growth": growth},
    "docs/what-if.md": {"cores": cores, "repeat": repeat},
}
"""Tables of each page, by the name in its comment."""


def fill(page: str, tables: dict[str, Callable[[], str]]) -> str:
    """The page with its tables made anew."""
    for name, make in tables.items():
        block = f"<!-- table: {name} -->\n{make()}\n<!-- end table -->"
        page = re.sub(
            rf"<!-- table: {name} -->.*?<!-- end table -->", lambda _, b=block: b, page, flags=re.DOTALL
        )
    return page


def stale() -> list[Path]:
    """Pages and charts that disagree with the results files."""
    found = []
    for page, tables in PAGES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        if fill(text, tables) != text:
            found.append(ROOT / page)
    return found + [chart for chart, result in charts() if not is_drawn_from(chart, result)]


def charts() -> list[tuple[Path, dict[str, Any]]]:
    """(file, results) of each chart."""
    return [(ROOT / "docs" / f"{Path(name).stem}.svg", result) for name, result in read("compare-*.json")]


def main() -> int:
    """Rewrite or check pages and charts."""
    if "--check" in sys.argv[1:]:
        for file in stale():
            print(f"{file.relative_to(ROOT)} disagrees with the results: run python benchmarks/tables.py")
        return int(bool(stale()))
    for page, tables in PAGES.items():
        file = ROOT / page
        file.write_text(fill(file.read_text(encoding="utf-8"), tables), encoding="utf-8")
    for chart, result in charts():
        draw(result, chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
