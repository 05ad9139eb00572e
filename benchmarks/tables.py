"""Write README's tables from the results files.

    python benchmarks/tables.py [--check]

With --check nothing is written; exit code 1 says that the page and the results disagree.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """(file name, content) of the results files that match."""
    return [(f.name, json.loads(f.read_text(encoding="utf-8"))) for f in sorted(RESULTS.glob(pattern))]


def speed() -> str:
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
            rate, train = figures["images_per_sec"], result.get("train", {}).get(loader)
            trained = f"{train['images_per_sec']:,.0f} | {train['data_wait']:.0%}" if train else "|"
            rows.append(f"| {loader} | {rate:,.0f} | {rate / base:.1f} | {trained} |")
        for name, figures in result.get("model", {}).items():
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


def fill(page: str) -> str:
    """The page with its tables made anew."""
    for name, make in (("speed", speed), ("accuracy", accuracy)):
        block = f"<!-- table: {name} -->\n{make()}\n<!-- end table -->"
        page = re.sub(
            rf"<!-- table: {name} -->.*?<!-- end table -->", lambda _, b=block: b, page, flags=re.DOTALL
        )
    return page


def main() -> int:
    """Rewrite or check README.md."""
    file = ROOT / "README.md"
    old = file.read_text(encoding="utf-8")
    new = fill(old)
    if "--check" in sys.argv[1:]:
        return int(new != old)
    file.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
