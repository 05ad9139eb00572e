"""What the figures say, in words that a user can act on: a pure function of the result.

Nothing is recommended that was not measured in the same run, and nothing that is not faster by more than the
noise of both figures.
"""

import statistics
from collections.abc import Iterator
from typing import Any

from flowerfast.bench.result import BESIDE, Row, present, relative_spread, training_step
from flowerfast.loaders.speeds import WIDE

_EVEN = 1.1  # loader and model within this factor are in balance
_BUSY = 0.8  # a step that keeps more than this share of the cores busy could use more of them
_SMALL = 0.05  # a gain below this is not worth a change
_ADVICE = 3
Advice = dict[str, Any]
"""What would be faster: setting, images_per_sec, gain, note, measured."""


def verdict(result: dict[str, Any]) -> dict[str, Any]:
    """Part `verdict` of a result, see docs/bench.md; parts that were not measured may be absent.

    `bound` is a stage's name, "loader" (no stage can be named), "model", "balanced", or "unclear".
    """
    loader, model, train = present(result, "loader"), training_step(result), present(result, "train")
    wait, advice = train.get("data_wait") if train else None, [*_advice(result, loader)]
    rates = [row["images_per_sec"] if row else None for row in (loader, model)]
    if _is_unclear(loader, model):
        bound, advice = "unclear", []
        why = "something else keeps this machine busy; run it again when it is idle"
        told = [f"too noisy for a verdict: {why}"]
    else:
        bound, told = _bound(result, rates[0], rates[1], wait, advice)
    if bound in ("model", "balanced"):
        advice = []  # of loaders, and none of them would help
    return {
        "bound": bound,
        "loader_images_per_sec": rates[0],
        "model_images_per_sec": rates[1],
        "data_wait": wait,
        "advice": [*_compiled(result, model), *advice][:_ADVICE],
        "findings": [*told, *_noisy(result), *_remarks(result)],
    }


def _bound(
    result: dict[str, Any],
    loader: float | None,
    model: float | None,
    wait: float | None,
    advice: list[Advice],
) -> tuple[str, list[str]]:
    """What holds training back, and why, by images/s of both and the share of the time spent waiting."""
    stage, share = _largest_stage(result)
    slow, of_which = stage or "loader", f"; {stage} is {share:.0%} of the loader's time" if stage else ""
    waits = "" if wait is None else f"training waits for data {wait:.0%} of the time"
    if loader is None and wait is None:
        if stage is None:
            return "unclear", ["nothing to compare: measure the suites loader and model for a verdict"]
        told = f"of the loader's own time {share:.0%} is {stage}"
        return stage, [f"{told}; measure the suites loader and model to know whether it holds training back"]
    if loader is None or model is None:
        if wait is None:
            told = f"the loader makes {loader:,.0f} images/s; measure the suite model for what it could take"
            return slow, [f"{told}{of_which}", *_told(advice, None)]
        if wait < 0.05:
            return "model", [f"model-bound: {waits}"]
        return slow, [f"{slow}-bound: {waits}{of_which}"]
    waits = f"; {waits}" if waits else ""
    if loader > _EVEN * model:
        cuda = result.get("settings", {}).get("device") == "cuda"
        batch = (training_step(result) or {}).get("batch_size")
        what = f"a training step at batch {batch}" if batch else "a training step"
        told = f"model-bound: {what} takes {model:,.0f} images/s on this {'GPU' if cuda else 'CPU'}"
        findings = [f"{told}, the loader makes {loader:,.0f}{waits}: a faster loader will not help"]
        findings.append(_lighter(result, loader / model, cuda))
        if not cuda:
            told = f"with a device that takes more than {loader:,.0f} images/s the loader would be the wall"
            findings.append(f"{told}{of_which}")
            findings += [f"there, {text}" for text in _told(advice[:1], None) if advice]
        return "model", findings
    if loader > model / _EVEN:
        told = f"balanced: the loader makes {loader:,.0f} images/s, the model takes {model:,.0f}{waits}"
        return "balanced", [told]
    told = f"{slow}-bound: the loader makes {loader:,.0f} images/s, the model could take {model:,.0f}{waits}"
    return slow, [f"{told}{of_which}", *_told(advice, model)]


def _lighter(result: dict[str, Any], room: float, cuda: bool) -> str:
    """What would help where the model is the wall; `room`: how many times as fast a step may become."""
    settings, step = result.get("settings", {}), training_step(result) or {}
    size, name = settings.get("image_size"), settings.get("model")
    ways = [f"smaller images (data.image_size is {size})" if size else "smaller images"]
    ways.append(f"a smaller network (model.name is {name})" if name else "a smaller network")
    cores, busy = result.get("environment", {}).get("cores"), step.get("cpu_cores")
    if not cuda and cores and busy and busy > _BUSY * cores:
        ways.append(f"more cores (the step keeps {busy:.1f} of {cores} busy)")
    if not cuda:
        ways.append("a GPU")
    helps = (
        f"what makes the step lighter helps, until it is {room:,.1f} times as fast and the loader the wall"
    )
    return f"{helps}: {', '.join(ways[:-1])} or {ways[-1]}"


def _told(advice: list[Advice], model: float | None) -> list[str]:
    told = []
    for entry in advice[:_ADVICE]:
        rate, setting = entry["images_per_sec"], str(entry["setting"])
        if not setting.startswith("flowerfast "):
            setting = " ".join(f"--set {each}" for each in setting.split())
        beyond = model is not None and rate > model
        cap = f", more than the model can take ({model:,.0f})" if beyond else ""
        note = f" ({entry['note']})" if entry["note"] else ""
        told.append(
            f"`{setting}` measured {rate:,.0f} images/s, {entry['gain']:.2f} times as many{cap}{note}"
        )
    return told or ["none of the other settings measured is faster"]


def _largest_stage(result: dict[str, Any]) -> tuple[str | None, float]:
    """The stage that takes most of the loader's time, and its share; None for loaders without such stages."""
    stages, settings = result.get("stages"), result.get("settings", {})
    if not stages or settings.get("backend", "cpu") != "cpu":
        return None, 0.0
    rows = {name: row["ms"] for name, row in stages["rows"].items() if name != BESIDE}
    total = sum(rows.values())
    name = max(rows, key=lambda key: rows[key])
    return name, rows[name] / total


def _advice(result: dict[str, Any], now: Row | None) -> Iterator[Advice]:
    """What was measured to be faster than the present loader by more than the noise of both, best first."""
    rows = [row for row in result.get("loader", {}).values() if row.get("setting") and "spread" in row]
    for row in sorted(rows, key=lambda row: -row["images_per_sec"]):
        if now is not None and _is_faster(row, now):
            yield _entry(row["setting"], row, now, row.get("note", ""))


def _compiled(result: dict[str, Any], now: Row | None) -> Iterator[Advice]:
    row = result.get("model", {}).get("training step, torch.compile")
    if row and now and "spread" in row and _is_faster(row, now):
        yield _entry("train.compile=on", row, now, "a training step alone; slower start")


def _entry(setting: str, row: Row, now: Row, note: str) -> Advice:
    rate, gain = row["images_per_sec"], row["images_per_sec"] / now["images_per_sec"]
    return {"setting": setting, "images_per_sec": rate, "gain": gain, "note": note, "measured": True}


def _is_faster(row: Row, now: Row) -> bool:
    gained = row["images_per_sec"] - now["images_per_sec"]
    return bool(gained > _SMALL * now["images_per_sec"] and _differ(row, now))


def _differ(row: Row, other: Row) -> bool:
    """Whether two rates differ by more than twice the noise of both."""
    noise = (row["spread"] ** 2 + other["spread"] ** 2) ** 0.5
    return bool(abs(row["images_per_sec"] - other["images_per_sec"]) > 2 * noise)


def _is_wide(row: Row) -> bool:
    return relative_spread(row) > WIDE


def _is_unclear(loader: Row | None, model: Row | None) -> bool:
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
    wanted = result.get("settings", {}).get("rounds", 0)
    made = max((len(row["rounds"]) for row in rows), default=0)
    if 0 < made < wanted:
        typical = statistics.median(map(relative_spread, rows))
        yield (
            f"the suite {suite} was stopped after {made} of {wanted} rounds: its figures spread by "
            f"{typical:.0%} of their median, as on a machine that something else keeps busy; run it again "
            "when it is idle"
        )


def _remarks(result: dict[str, Any]) -> Iterator[str]:
    """Where the figures do not hold together."""
    stages = result.get("stages")
    if stages and abs(stages["sum_ms"] / stages["loader_ms"] - 1) > 0.15:
        yield (
            f"the stages add up to {stages['sum_ms']:.2f} ms per image, the loader with one worker takes "
            f"{stages['loader_ms']:.2f}: more than 15 % apart, so do not trust the stages of this run"
        )
