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

from benchmarks import decoder_tables, resume_tables, scale_model, shard_tables
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


def growth() -> str:
    """What a sample costs when there are many, from the results files of `growth.py`."""
    columns = (
        ">photos|>bytes per photo|>arrays alone, s|>folder, valid cache, s|>of which listing, s"
        "|>to the first batch, s|>memory from a tenth to the end of an epoch"
    )
    keys = ("arrays_alone", "load", "of_which_listing", "first_batch")
    parts = []
    for name, result in read("growth-*.json"):
        rows = []
        for size in result["sizes"]:
            start, *_, end = (mark["mib"] for mark in size["workers"]["memory"])
            seconds = (f"{size[f'{key}_seconds']:.3f}" for key in keys)
            rows.append(
                [
                    f"{size['photos']:,}",
                    f"{size['bytes_per_sample']:.0f}",
                    *seconds,
                    f"{end / start - 1:+.1%}",
                ]
            )
        env = result["environment"]
        parts.append(f"{machine(env)}, {made(name, env, '../')}:\n\n{table(columns, rows)}")
    return "\n\n".join(parts)


def builds() -> str:
    """This build beside earlier ones, from the results files of `versus.py` and `steps.py`."""
    files = [steps(*each) for each in read("steps-*.json")] + [
        versus(*each) for each in read("versus-*.json")
    ]
    return "\n\n".join(files)


def packing() -> str:
    """How fast photos are packed, from the results files of `packing.py`."""
    columns = "photos|packed|>of them written anew|>shards, times the files|>photos/s|>CPU per photo, ms"
    parts = []
    for name, result in read("packing-*.json"):
        rows = [
            [
                row["photos"],
                row["packed"],
                f"{row['written_anew']:,} of {row['count']:,}",
                f"{row['bytes_after'] / row['bytes_before']:.3f}",
                f"{row['photos_per_sec']:,.0f}",
                f"{row['cpu_ms_per_photo']:.2f}",
            ]
            for row in result["rows"]
        ]
        env = result["environment"]
        about = f"{machine(env)}, {photos(result['data'])} on average, {result['rounds']} rounds"
        parts.append(f"{about}, {made(name, env, '../')}:\n\n{table(columns, rows)}")
    return "\n\n".join(parts)


def ranks() -> str:
    """What several ranks cost and change, from the results files of `ranks.py`."""
    columns = (
        "network|>ranks|>samples of each|>steps|>loss of a step, most apart|>on average|>validation loss"
    )
    parts = []
    for name, result in read("ranks-*.json"):
        rows = [
            [
                f"{row['model']}, {row['about']}",
                f"{row['ranks']}",
                f"{row['samples_per_rank']}",
                f"{row['steps']}",
                f"{row['most_loss_difference']:.1e}",
                f"{row['mean_loss_difference']:.1e}",
                f"{row['val_loss']:.4f}",
            ]
            for row in result["training"]
        ]
        env, loaders = result["environment"], result["loaders"]
        speeds = "; ".join(f"{what}: {rate:,.0f} images/s" for what, rate in loaders["median"].items())
        parts.append(
            f"{machine(env)}, {photos(result['data'])} on average, {made(name, env, '../')}. As loaders: "
            f"{speeds}, a ratio of {loaders['ratio']:.3f}. Training, beside one process:\n\n"
            f"{table(columns, rows)}"
        )
    return "\n\n".join(parts)


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


def reliability() -> str:
    """What was promised, how often it was tried and what came of it, from `reliability.json`."""
    parts = []
    for name, result in read("reliability.json"):
        rows = []
        for trial in result["trials"].values():
            figures = "; ".join(f"{what}: {number:,g}" for what, number in trial["figures"].items())
            tried = f"{trial['tried']:,} {trial['unit']}"
            rows.append([trial["promise"], tried, f"{len(trial['failures']):,}", figures])
        env = result["environment"]
        minutes = sum(trial["seconds"] for trial in result["trials"].values()) / 60
        commits = dict.fromkeys(trial["git"][:7] for trial in result["trials"].values())
        tried = f"commits {', '.join(commits)}, {minutes:.0f} minutes"
        said = f"{machine(env)}, {tried}, {made(name, env, '../')}"
        parts.append(f"{said}:\n\n{table('promised|tried|>failures|figures', rows)}")
    return "\n\n".join(parts)


def remote() -> str:
    """Requests and bytes of epochs on shards at a URL, from `remote.json`."""
    parts = []
    for name, result in read("remote.json"):
        rows = []
        for what, epochs in result["epochs"].items():
            told = (f"{epoch['requests']:,} / {epoch['bytes'] / 1e6:,.1f} MB" for epoch in epochs)
            rows.append([what, *told])
        counts = "|".join(f">epoch {number}" for number in range(1, 1 + len(rows[0][1:])))
        size = f"{result['bytes'] / 1e6:,.1f} MB in {result['shards']} shards"
        said = f"{photos(result['data'])}, {size}, {made(name, result['environment'], '../')}"
        columns = f"order, cache|{counts}"
        parts.append(f"Requests and bytes of an epoch on four fifths of {said}:\n\n{table(columns, rows)}")
    return "\n\n".join(parts)


def millions() -> str:
    """Memory of packing, merging and opening many rows, from the results files of `millions.py`."""
    parts = []
    for name, result in read("millions-*.json"):
        rows = [
            [what, f"{row['mb']:,.0f}", f"{row['seconds']:,.1f}"] for what, row in result["figures"].items()
        ]
        env = result["environment"]
        parts.append(
            f"{result['rows']:,} made rows, {machine(env)}, {made(name, env, '../')}:\n\n"
            f"{table('what|>memory, MB|>seconds', rows)}"
        )
    return "\n\n".join(parts)


def beside() -> str:
    """flowerfast beside ultralytics and fastai, from the results files of `beside.py`."""
    columns = (
        "|>lines written|>seconds to the first step|>images/s, validation included|>accuracy on val/"
        "|>lines on a wrong path|>its exit code"
    )
    parts = []
    for name, result in read("beside-*.json"):
        rows = [
            [
                f"{program} {result['peers'].get(program, '')}".strip(),
                f"{row['lines_of_code']}",
                f"{row['median']['first_step_seconds']:.1f}",
                f"{row['median']['images_per_sec']:.1f}",
                f"{row['median']['accuracy']:.1%}",
                f"{row['wrong_path']['lines']}",
                f"{row['wrong_path']['exit_code']}",
            ]
            for program, row in result["rows"].items()
        ]
        env, settings = result["environment"], result["settings"]
        said = (
            f"{machine(env)}, {photos(result['data'])}, ResNet18 from random weights, {settings['size']} px, "
            f"batch {settings['batch']}, {settings['epochs']} epochs, {settings['rounds']} rounds, "
            f"{made(name, env, '../')}"
        )
        typed = "\n".join(row["typed"] for row in result["rows"].values())
        parts.append(f"{said}:\n\n{table(columns, rows)}\n\nTyped:\n\n```text\n{typed}\n```")
    return "\n\n".join(parts)


def recipes() -> str:
    """What each setting of a recipe brings, from the results files of `recipes.py`."""
    return "\n\n".join(recipe(*each) for each in read("recipe-*.json"))


def decoders() -> str:
    """What other people's decoders make of every kind of file, from the results of `decoders.py`."""
    return "\n\n".join(decoder_tables.decoders(*each) for each in read("decoders.json"))


def serving() -> str:
    """One trained run by other people's decoders and resizes, from the results of `serving.py`."""
    return "\n\n".join(decoder_tables.serving(*each) for each in read("serving.json"))


def resume() -> str:
    """Loaders killed and resumed, from the results of `resume.py`."""
    return "\n\n".join(resume_tables.resume(*each) for each in read("resume.json"))


def streaming() -> str:
    """Loaders on one bucket, from the results of `one_bucket.py`."""
    resumed = next((result for _, result in read("resume.json")), None)
    return "\n\n".join(resume_tables.streaming(*each, resumed) for each in read("one_bucket.json"))


def readers() -> str:
    """What other programs' readers find in our shards, see `shard_readers.py`."""
    return "\n\n".join(shard_tables.readers(*each) for each in read("shard_readers.json"))


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/beside.md": {"beside": beside},
    "README.md": {"first": first, "cpu": cpu, "speed": speed, "accuracy": accuracy},
    "docs/compare.md": {"compare": compare},
    "docs/shards.md": {"readers": readers},
    "docs/cpu.md": {"builds": builds, "packing": packing, "growth": growth},
    "docs/decoders.md": {"decoders": decoders, "serving": serving},
    "docs/distributed.md": {"ranks": ranks},
    "docs/recipes.md": {"recipes": recipes},
    "docs/reliability.md": {"reliability": reliability},
    "docs/scale.md": {"scale": scale},
    "docs/remote.md": {"remote": remote, "streaming": streaming, "millions": millions},
    "docs/resume.md": {"resume": resume},
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
