"""Tables and curves of docs/recipes.md from results files of recipes.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.compare_chart import digest
from benchmarks.markdown import machine, made, photos, table
from flowerfast.bench.plot import STYLE, save
from flowerfast.settings import config_folder, load_config

MAIN = ("the recipe", "paper's recipe")
"""Rows whose curves are drawn, and whose seconds are told: the others may have run beside other work."""
_COLOURS = ("#0072b2", "#d55e00")


def recipe(name: str, result: dict[str, Any]) -> str:
    """Scores and seconds of each row: means over its seeds, ± their standard deviation."""
    env, uneven = result["environment"], result["uneven"] > 1
    figure, named = ("macro_f1", "macro F1") if uneven else ("acc", "accuracy")
    halves = {"val": "validation"} if result.get("whole") else {"val": "validation", "test": "test"}
    columns = "".join(f"|>{half} {named}" for half in halves.values())
    if is_timed(result):
        columns += f"|>seconds to {result['goal']:.1%}|>seconds in all"

    def cells(what: str, runs: list[dict[str, Any]]) -> Iterator[str]:
        yield from (_shipped(result) if what == MAIN[0] else what, f"{len(runs)}")
        for half in halves:
            yield _percent([run[f"{half}_{figure}"] for run in runs])
        if is_timed(result):
            yield from (_reached(runs), _mean(runs, "seconds")) if what in MAIN else ("", "")
        yield _mean(runs, "cpu_seconds")

    rows = [[*cells(what, row["runs"])] for what, row in result["runs"].items()]
    apart = f", every second class with a {result['uneven']}th of its photos" if uneven else ""
    apart += ", no third apart" if result.get("whole") else ""
    model = ", ".join(f"`{value}`" for value in result["model"].values()) or "the recipe's network"
    said = f"{machine(env)}, {photos(result['data'])} on average{apart}, {model}, {made(name, env, '../')}"
    return f"{said}:\n\n{table(f'recipe|>seeds{columns}|>CPU seconds', rows)}"


def _shipped(result: dict[str, Any]) -> str:
    """What a recipe is called that comes with flowerfast."""
    for file in sorted(config_folder().glob("*.yaml")):
        if load_config(file).model_dump(mode="json") == result["recipe"]:
            return f"`{file.stem}`"
    return MAIN[0]


def is_timed(result: dict[str, Any]) -> bool:
    """Whether nothing else ran beside its main rows: they are to be told in seconds."""
    return result["uneven"] == 1 and not result.get("whole")


def _percent(values: list[float]) -> str:
    several = f" ± {np.std(values):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):.1%}{several}"


def _mean(runs: list[dict[str, Any]], key: str) -> str:
    return f"{np.mean([run[key] for run in runs]):,.0f}"


def _reached(runs: list[dict[str, Any]]) -> str:
    """Mean of those that reached the goal, and how many did."""
    reached = [run["seconds_to_goal"] for run in runs if run["seconds_to_goal"] is not None]
    if not reached:
        return "not reached"
    few = "" if len(reached) == len(runs) else f" ({len(reached)} of {len(runs)})"
    return f"{np.mean(reached):,.0f}{few}"


def curves(result: dict[str, Any], file: Path) -> None:
    """Validation accuracy over the seconds of training and validation, else over epochs; a line per run."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        ax = figure.subplots()
        for what, colour in zip(MAIN, _COLOURS, strict=True):
            for number, (passed, accuracy) in enumerate(_lines(result, what)):
                label = what if number == 0 else None
                ax.plot(passed, accuracy, color=colour, marker="o", markersize=3, label=label)
        ax.axhline(100 * result["goal"], color="#888888", linewidth=0.8, linestyle="--")
        ax.set_xlabel("seconds of training and validation" if is_timed(result) else "epochs")
        ax.set_ylabel("validation accuracy, %")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="lower right")
        save(figure, file, Description=digest(result))


def _lines(result: dict[str, Any], what: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for run in result["runs"].get(what, {"runs": []})["runs"]:
        _, accuracy, _, seconds = np.array(run["history"]).T
        passed = np.cumsum(seconds) if is_timed(result) else 1 + np.arange(len(seconds))
        yield passed, 100 * accuracy
