"""Write the tables and charts of README and docs/ from the results files.

    python benchmarks/tables.py [--check]

With --check nothing is written; exit code 1 says that a page or chart and the results disagree.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import decoder_tables, result_tables, resume_tables, scale_model, shard_tables
from benchmarks.compare_chart import draw, is_drawn_from
from benchmarks.compare_tables import PAPER, headline, section
from benchmarks.markdown import machine, made, photos, table
from benchmarks.recipe_tables import curves, recipe
from benchmarks.versus_tables import steps, versus
from flowerfast.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """(file name, content) of the results files that match."""
    return [(f.name, json.loads(f.read_text(encoding="utf-8"))) for f in sorted(RESULTS.glob(pattern))]


def of_each(pattern: str, make: Callable[[str, dict[str, Any]], str]) -> Callable[[], str]:
    """A table per results file that matches, one below the other."""
    return lambda: "\n\n".join(make(*found) for found in read(pattern))


def speed() -> str:
    """Loaders and training, one table per results file of `speed.py`."""
    parts = []
    for name, result in read("speed-*.json"):
        env, settings = result["environment"], result["settings"]
        columns = "loader|>alone, images/s|>× paper's recipe|>training ResNet18, images/s|>waiting for data"
        parts.append(
            f"{machine(env)}, {photos(result['data'])} on average, batch {settings['batch_size']}, "
            f"{settings['image_size']} px, {made(name, env)}:\n\n{table(columns, _speeds(result))}\n"
        )
    if parts:
        parts.append(
            "Medians of alternating rounds, made by `python benchmarks/speed.py DATA`. The paper's recipe is "
            "ImageFolder and\nDataLoader with a worker process per core."
        )
    return "\n".join(parts)


def _speeds(result: dict[str, Any]) -> Iterator[list[str]]:
    base = result["loader"][PAPER]["images_per_sec"]
    for loader, row in result["loader"].items():
        if row.get("setting", "").startswith(("data.workers", "train.batch_size")):
            continue  # of the scaling curve
        if "error" in row:
            yield [loader, f"failed: {row['error']}", "", "", ""]
            continue
        rate, train = row["images_per_sec"], result.get("train", {}).get(loader, {})
        trained = (
            [f"{train['images_per_sec']:,.0f}", f"{train['data_wait']:.0%}"]
            if "data_wait" in train
            else ["", ""]
        )
        yield [loader, f"{rate:,.0f}", f"{rate / base:.1f}", *trained]
    for name, row in result.get("model", {}).items():
        if "error" not in row:
            yield [
                f"*none: synthetic pixels on the device, {name}*",
                "",
                "",
                f"{row['images_per_sec']:,.0f}",
                "",
            ]


def accuracy() -> str:
    """Best validation accuracy of recorded training runs."""
    rows = []
    for name, result in read("train-*.json"):
        run, model = result["summary"], result["config"]["model"]
        rows.append(
            [
                f"[{run['model']}](benchmarks/results/{name})",
                "ImageNet weights" if model["weights"] or model["pretrained"] else "random weights",
                str(run["epochs_run"]),
                run["val_protocol"],
                f"{run['best_val_acc']:.1%} in epoch {run['best_epoch'] + 1}",
                run["device"],
                f"{run['seconds']:,.0f}",
            ]
        )
    return table("model|start|>epochs|validation|>best accuracy|device|>seconds", rows) if rows else ""


def compare() -> str:
    """Loaders side by side, one section per results file of `compare.py`."""
    parity = next(iter(read("parity-*-decode-scale.json")), None)
    files = sorted(read("compare-*.json"), key=lambda item: item[1]["kind"])
    return "\n\n".join(section(name, result, parity) for name, result in files)


def first() -> str:
    """README's first table: our loaders, the paper's recipe, and the best of the others."""
    name = "compare-cpu-2cores-400x500.json"
    return "".join(headline(name, result, short=True) for _, result in read(name))


def cpu() -> str:
    """README's table of loaders on a CPU."""
    files = [(name, result) for name, result in read("compare-*.json") if result["kind"] == "compare"]
    return "\n\n".join(headline(name, result) for name, result in files)


def builds() -> str:
    """This build beside earlier ones, from the results files of `versus.py` and `steps.py`."""
    files = (("steps-*.json", steps), ("versus-*.json", versus))
    return "\n\n".join(of_each(*each)() for each in files)


def scale() -> str:
    """What `scale_model` predicts, and how near it comes where two ranks were measured."""
    needed = [each for what in ("bench", "ranks") for each in read(f"{what}-cpu-2cores.json")]
    if len(needed) < 2:
        return ""
    (name, bench), (other, ranks) = needed
    found = next(iter(read("scale-*.json")), None)
    files = [(name, bench), (other, ranks), *([found] if found is not None else [])]
    said = "; ".join(
        f"{machine(result['environment'])}, {made(file, result['environment'], '../')}"
        for file, result in files
    )
    parts = [f"{said}:\n\n{scale_model.checked(bench, ranks, found[1] if found is not None else None)}"]
    for file, speed in read("speed-nvidia-h100-*.json"):
        env, batch = speed["environment"], speed["settings"]["batch_size"]
        about = f"{machine(env)}, {photos(speed['data'])}, batch {batch}, {made(file, env, '../')}"
        parts.append(f"ResNet18, from {about}:\n\n{scale_model.predicted(speed, bench)}")
    return "\n\n".join(parts)


def streaming() -> str:
    """Loaders on one bucket, from the results of `one_bucket.py`."""
    resumed = next((result for _, result in read("resume.json")), None)
    return "\n\n".join(resume_tables.streaming(*each, resumed) for each in read("one_bucket.json"))


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/beside.md": {"beside": of_each("beside-*.json", result_tables.beside)},
    "README.md": {"first": first, "cpu": cpu, "speed": speed, "accuracy": accuracy},
    "docs/compare.md": {"compare": compare},
    "docs/shards.md": {"readers": of_each("shard_readers.json", shard_tables.readers)},
    "docs/cpu.md": {
        "builds": builds,
        "packing": of_each("packing-*.json", result_tables.packing),
        "growth": of_each("growth-*.json", result_tables.growth),
    },
    "docs/decoders.md": {
        "decoders": of_each("decoders.json", decoder_tables.decoders),
        "serving": of_each("serving.json", decoder_tables.serving),
    },
    "docs/distributed.md": {"ranks": of_each("ranks-*.json", result_tables.ranks)},
    "docs/recipes.md": {"recipes": of_each("recipe-*.json", recipe)},
    "docs/reliability.md": {"reliability": of_each("reliability.json", result_tables.reliability)},
    "docs/scale.md": {"scale": scale},
    "docs/remote.md": {
        "remote": of_each("remote.json", result_tables.remote),
        "streaming": streaming,
        "millions": of_each("millions-*.json", result_tables.millions),
    },
    "docs/resume.md": {"resume": of_each("resume.json", resume_tables.resume)},
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
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    pages = [ROOT / page for page, text in texts.items() if fill(text, PAGES[page]) != text]
    return pages + [chart for chart, result, _ in charts() if not is_drawn_from(chart, result)]


def charts() -> list[tuple[Path, dict[str, Any], Callable[[dict[str, Any], Path], None]]]:
    """(file, results, what draws it) of each chart."""
    drawn = (("compare-*.json", draw), ("recipe-*.json", curves))
    return [
        (ROOT / "docs" / f"{Path(name).stem}.svg", result, by)
        for pattern, by in drawn
        for name, result in read(pattern)
        if result.get("uneven", 1) == 1  # whose scores are of validation, not of each class alike
    ]


def main() -> int:
    """Rewrite or check pages and charts."""
    if "--check" in sys.argv[1:]:
        files = stale()
        for file in files:
            print(f"{file.relative_to(ROOT)} disagrees with the results: run python benchmarks/tables.py")
        return int(bool(files))
    for page, tables in PAGES.items():
        file = ROOT / page
        write_text(file, fill(file.read_text(encoding="utf-8"), tables))
    for chart, result, by in charts():
        by(result, chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
