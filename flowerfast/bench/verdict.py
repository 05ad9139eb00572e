"""What the figures say, in words that a user can act on: a pure function of the result.

Nothing is recommended that was not measured in the same run, and nothing that is not faster by more than the
noise of both figures.
"""

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from flowerfast.bench.measure import relative_spread

WIDE = 0.15
"""Share of the median above which a spread is too wide to go by."""
_EVEN = 1.1  # loader and model within this factor are in balance
_SMALL = 0.05  # a gain below this is not worth a change
_ADVICE = 3


def verdict(result: dict[str, Any]) -> dict[str, Any]:
    """Part `verdict` of a result, see docs/bench.md; parts that were not measured may be absent.

    `bound` is a stage's name, "loader" (no stage can be named), "model", "balanced", or "unclear".
    """
    loader, model, train = _current(result, "loader"), _step(result), _current(result, "train")
    found: dict[str, Any] = {
        "bound": "unclear",
        "loader_images_per_sec": _rate(loader),
        "model_images_per_sec": _rate(model),
        "data_wait": train.get("data_wait") if train else None,
    }
    noisy = [*_noisy(result)]
    advice = [*_advice(result, loader)]
    if _is_unclear(loader, model):
        told = [
            "too noisy for a verdict: something else keeps this machine busy; run it again when it is idle"
        ]
        advice = []
    else:
        found["bound"], told = _bound(result, found, advice)
    if found["bound"] in ("model", "balanced"):
        advice = []  # of loaders, and none of them would help
    found["advice"] = [*_compiled(result, model), *advice][:_ADVICE]
    found["findings"] = told + noisy + _remarks(result)
    return found


def _bound(
    result: dict[str, Any], rates: dict[str, Any], advice: list[dict[str, Any]]
) -> tuple[str, list[str]]:
    loader, model, wait = (rates[k] for k in ("loader_images_per_sec", "model_images_per_sec", "data_wait"))
    stage, share = _largest_stage(result)
    if loader is None and wait is None:
        if stage is None:
            return "unclear", ["nothing to compare: measure the suites loader and model for a verdict"]
        told = f"of the loader's own time {share:.0%} is {stage}"
        return stage, [f"{told}; measure the suites loader and model to know whether it holds training back"]
    waits = "" if wait is None else f"; training waits for data {wait:.0%} of the time"
    slow = stage or "loader"
    if loader is None or model is None:
        if wait is None:
            told = f"the loader makes {loader:,.0f} images/s; measure the suite model for what it could take"
            return slow, [f"{told}{_of_which(stage, share)}", *_told(advice, None)]
        if wait < 0.05:
            return "model", [f"model-bound: training waits for data {wait:.0%} of the time"]
        return slow, [
            f"{slow}-bound: training waits for data {wait:.0%} of the time{_of_which(stage, share)}"
        ]
    if loader > _EVEN * model:
        told = _model_bound(result, loader, model, waits)
        return "model", [told, *_with_more(result, loader, _of_which(stage, share), advice)]
    if loader > model / _EVEN:
        told = f"balanced: the loader makes {loader:,.0f} images/s, the model takes {model:,.0f}{waits}"
        return "balanced", [told]
    told = f"{slow}-bound: the loader makes {loader:,.0f} images/s, the model could take {model:,.0f}{waits}"
    return slow, [f"{told}{_of_which(stage, share)}", *_told(advice, model)]


def _model_bound(result: dict[str, Any], loader: float, model: float, waits: str) -> str:
    device = "this GPU" if result.get("settings", {}).get("device") == "cuda" else "this CPU"
    told = f"model-bound: a training step takes {model:,.0f} images/s on {device}"
    return f"{told}, the loader makes {loader:,.0f}{waits}: a faster loader will not help"


def _with_more(result: dict[str, Any], loader: float, share: str, advice: list[dict[str, Any]]) -> list[str]:
    """When the loader would be the wall, and what it could do then."""
    if result.get("settings", {}).get("device") == "cuda":
        return []
    told = f"with a device that takes more than {loader:,.0f} images/s the loader would be the wall{share}"
    return [told, *(f"there, {text}" for text in _told(advice[:1], None) if advice)]


def _told(advice: list[dict[str, Any]], model: float | None) -> list[str]:
    if not advice:
        return ["none of the other settings measured is faster"]
    told = []
    for entry in advice[:_ADVICE]:
        beyond = model is not None and entry["images_per_sec"] > model
        cap = f", more than the model can take ({model:,.0f})" if beyond else ""
        note = f" ({entry['note']})" if entry["note"] else ""
        told.append(
            f"{_named(entry)} measured {entry['images_per_sec']:,.0f} images/s, "
            f"{entry['gain']:.2f} times as many{cap}{note}"
        )
    return told


def _named(entry: dict[str, Any]) -> str:
    setting = str(entry["setting"])
    if setting.startswith("flowerfast "):
        return f"`{setting}`"
    return "`" + " ".join(f"--set {each}" for each in setting.split()) + "`"


def _of_which(stage: str | None, share: float) -> str:
    return f"; {stage} is {share:.0%} of the loader's time" if stage else ""


def _largest_stage(result: dict[str, Any]) -> tuple[str | None, float]:
    """The stage that takes most of the loader's time, and its share; None for loaders without such stages."""
    stages, settings = result.get("stages"), result.get("settings", {})
    if not stages or settings.get("backend", "torchvision") != "torchvision":
        return None, 0.0
    rows = {name: row["ms"] for name, row in stages["rows"].items() if name != "host-to-device"}
    total = sum(rows.values())
    name = max(rows, key=lambda key: rows[key])
    return name, rows[name] / total


def _current(result: dict[str, Any], suite: str) -> dict[str, Any] | None:
    """The present settings' row in a suite, where it has figures."""
    rows = result.get(suite, {})
    row = rows.get(result.get("settings", {}).get("current"), next(iter(rows.values()), None))
    return row if row and "images_per_sec" in row else None


def _step(result: dict[str, Any]) -> dict[str, Any] | None:
    row = result.get("model", {}).get("training step")
    return row if row and "images_per_sec" in row else None


def _rate(row: dict[str, Any] | None) -> float | None:
    return row["images_per_sec"] if row else None


def _advice(result: dict[str, Any], now: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """What was measured to be faster than the present loader by more than the noise of both, best first."""
    rows = [row for row in result.get("loader", {}).values() if row.get("setting") and "spread" in row]
    for row in sorted(rows, key=lambda row: -row["images_per_sec"]):
        if now is not None and _is_faster(row, now):
            yield _entry(row["setting"], row, now, row.get("note", ""))


def _compiled(result: dict[str, Any], now: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    row = result.get("model", {}).get("training step, torch.compile")
    if row and now and "spread" in row and _is_faster(row, now):
        yield _entry("train.compile=true", row, now, "a training step alone; slower start")


def _entry(setting: str, row: dict[str, Any], now: dict[str, Any], note: str) -> dict[str, Any]:
    rate, gain = row["images_per_sec"], row["images_per_sec"] / now["images_per_sec"]
    return {"setting": setting, "images_per_sec": rate, "gain": gain, "note": note, "measured": True}


def _is_faster(row: dict[str, Any], now: dict[str, Any]) -> bool:
    gained = row["images_per_sec"] - now["images_per_sec"]
    return bool(gained > _SMALL * now["images_per_sec"] and _differ(row, now))


def _differ(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rates differ by more than twice the noise of both."""
    noise = (row["spread"] ** 2 + other["spread"] ** 2) ** 0.5
    return bool(abs(row["images_per_sec"] - other["images_per_sec"]) > 2 * noise)


def _is_wide(row: dict[str, Any]) -> bool:
    return relative_spread(row) > WIDE


def _is_unclear(loader: dict[str, Any] | None, model: dict[str, Any] | None) -> bool:
    """Whether a spread is too wide to say which is the faster, or how fast one alone is."""
    known = [row for row in (loader, model) if row]
    clear = len(known) == 2 and _differ(known[0], known[1])
    return not clear and any(map(_is_wide, known))


def _noisy(result: dict[str, Any]) -> Iterator[str]:
    for suite in ("loader", "model", "train"):
        yield from _stopped(suite, result)
        for name, row in result.get(suite, {}).items():
            if "spread" in row and _is_wide(row):
                share = relative_spread(row)
                yield f"the {suite} figure of {name} is too noisy to go by: spread {share:.0%} of its median"


def _stopped(suite: str, result: dict[str, Any]) -> Iterator[str]:
    rows = [row for row in result.get(suite, {}).values() if "spread" in row]
    wanted, made = (
        result.get("settings", {}).get("rounds", 0),
        max((len(r["rounds"]) for r in rows), default=0),
    )
    if 0 < made < wanted:
        typical = statistics.median(map(relative_spread, rows))
        yield (
            f"the suite {suite} was stopped after {made} of {wanted} rounds: its figures spread by "
            f"{typical:.0%} of their median, as on a machine that something else keeps busy; run it again "
            "when it is idle"
        )


def _remarks(result: dict[str, Any]) -> list[str]:
    """Where the figures do not hold together."""
    stages: Iterable[Any] = [result["stages"]] if "stages" in result else []
    return [
        f"the stages add up to {each['sum_ms']:.2f} ms per image, the loader with one worker takes "
        f"{each['loader_ms']:.2f}: more than 15 % apart, so do not trust the stages of this run"
        for each in stages
        if abs(each["sum_ms"] / each["loader_ms"] - 1) > 0.15
    ]
