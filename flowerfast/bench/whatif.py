"""From the figures of a result to a machine with other cores and GPUs; `queueing` has the model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from flowerfast.bench.queueing import Cost, core_rate, loader_rates, through
from flowerfast.bench.result import Row, check_result, measured, present, relative_spread, training_step
from flowerfast.errors import UserError

KEYS = {
    "cores": "CPU cores in all",
    "gpus": "GPUs, each with a process and its share of the cores",
    "model": "images/s that one GPU takes",
    "batch": "images a batch on one GPU",
    "prefetch": "batches made ahead for one GPU",
}
WHOLE = ("cores", "gpus", "batch", "prefetch")
LARGEST = {"cores": 4096, "gpus": 4096, "model": 1e7, "batch": 65536, "prefetch": 32}
LOCKED = 0.03
"""Share of a photo's time under the lock where neither stages nor a second number of cores were measured."""
FAR = 4.0
"""Times the measured cores beyond which a prediction is called a far extrapolation."""
_PREFETCH = 3  # the default of data.prefetch
_PYTHON = ("read", "assemble")  # stages that are mostly interpreter


@dataclass(frozen=True)
class Prediction:
    """What a machine would do; rates are images/s of all GPUs together, intervals are (low, high).

    Attributes:
        cores, gpus: the machine.
        loader_images_per_sec, loader_interval: all that the cores can make.
        model_images_per_sec: all that the GPUs can take; None: not known.
        training_images_per_sec, training_interval: both together; None without a figure for the model.
        bound: "loader", "model", or "either" when the interval does not tell; "unclear" without a model.
        cost: what a photo costs.
        remarks: what to know of this prediction, one line each.
    """

    cores: int
    gpus: int
    loader_images_per_sec: float
    loader_interval: tuple[float, float]
    model_images_per_sec: float | None
    training_images_per_sec: float | None
    training_interval: tuple[float, float] | None
    bound: str
    cost: Cost
    remarks: tuple[str, ...]

    def table(self) -> Table:
        """The figures, and the remarks below."""
        title = f"{self.cores} cores, {self.gpus} GPU{'s' * (self.gpus > 1)}"
        table = Table("", title=title, title_justify="left")
        for header in ("images/s", "low", "high"):
            table.add_column(header, justify="right")
        for name, rate, interval in (
            ("loader", self.loader_images_per_sec, self.loader_interval),
            ("model", self.model_images_per_sec, ()),
            ("training", self.training_images_per_sec, self.training_interval or ()),
        ):
            if rate is not None:
                table.add_row(name, *(f"{value:,.0f}" for value in (rate, *interval)))
        page = Table.grid()  # a caption would be as narrow as the table
        page.add_row(table)
        page.add_row(Text("\n".join([f"bound: {self.bound}", *self.remarks])))
        return page


def what_if(result: dict[str, Any], spec: str) -> Prediction:
    """Predict loader and training of another machine.

    Args:
        result: of `flowerfast bench`, with stages, the loader at some number of cores, or both.
        spec: `key=value`, separated by commas; see `KEYS`. What is not given is as measured.

    Raises UserError on a bad `spec`, and when nothing in the result tells what a photo costs.
    """
    check_result(result, "--what-if")
    wanted = parse(spec)
    cost, row = _cost(result), _loader(result)
    cores, gpus = int(wanted.get("cores", _cores(result))), int(wanted.get("gpus", 1))
    batch = int(wanted.get("batch", result.get("settings", {}).get("batch_size", 32)))
    prefetch = int(wanted.get("prefetch", _prefetch(result)))
    loader, interval = loader_rates(cost, cores, gpus)
    remarks = tuple(_remarks(result, cost, cores, gpus, wanted))
    prediction = Prediction(cores, gpus, loader, interval, None, None, None, "unclear", cost, remarks)
    step = None if _trained_on_cpu(result) else training_step(result)
    one = wanted.get("model", step["images_per_sec"] if step else None)
    if one is None:
        return prediction
    noise = variance(row, result, batch) + (0.0 if "model" in wanted else variance(step, result, batch))
    model, (low, high) = one * gpus, interval
    return replace(
        prediction,
        model_images_per_sec=model,
        training_images_per_sec=through(loader, model, prefetch, noise),
        training_interval=(through(low, model, prefetch, 2.0), min(high, model)),
        bound="loader" if high < model else "model" if low > model else "either",
    )


def parse(spec: str) -> dict[str, float]:
    """`cores=16,gpus=8` as numbers by key. Raises UserError."""
    known = f"known: {', '.join(f'{key} ({meaning})' for key, meaning in KEYS.items())}"
    values: dict[str, float] = {}
    for part in spec.split(","):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in KEYS or not equals:
            raise UserError(f"--what-if {spec}: {part.strip() or 'nothing'} is no known key=value; {known}")
        if key in values:
            raise UserError(f"--what-if {spec}: {key} is given twice")
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= LARGEST[key] or (key in WHOLE and value % 1):
            kind = "a whole number" if key in WHOLE else "a number"
            raise UserError(
                f"--what-if {spec}: {key}={text} must be {kind} above 0, at most {LARGEST[key]:g}; {known}"
            )
        values[key] = value
    return values


# ---------------------------------------------------------------------------------------------- what is known


def variance(row: Row | None, result: dict[str, Any], batch: int) -> float:
    """Squared coefficient of variation of a batch's time, at most 1, from the spread of the rounds.

    Were the times of batches independent, a round of m batches would have a variance m times smaller than a
    batch. Slow drift of the machine counts as variation of batches here, so this is rather too large.
    """
    if row is None:
        return 0.0
    settings = result.get("settings", {})
    seconds = settings.get("round_seconds", settings.get("seconds", 1.0))
    batches = max(seconds * row["images_per_sec"] / row.get("batch_size", batch), 1.0)
    return float(min(batches * relative_spread(row) ** 2, 1.0))


def _cost(result: dict[str, Any]) -> Cost:
    """Cost of a photo from the stages and from the loader at each number of cores that was measured."""
    stages, points = _stages(result), [*_points(result)]
    if stages is None and not points:
        hint = "measure the suites stages and loader with --backend cpu or dali-cpu"
        raise UserError(f"--what-if: the result does not say what a photo costs a CPU; {hint}")
    share = LOCKED
    if stages is not None:
        rows, total = stages["rows"], stages["loader_ms"]
        python = sum(rows[name]["ms"] for name in _PYTHON if name in rows)
        # What no stage accounts for is taken to be the interpreter's: queues, futures, waking threads.
        share = min(max((python + max(total - stages["sum_ms"], 0.0)) / total, 0.0), 0.5)
        if not points:
            spread = stages.get("loader_spread_ms", 0.0) / total
            return Cost(total * (1 - share), total * share, 0.0, spread, 1, "stages on one core")
    cores, rates, spreads = (np.array(values) for values in zip(*points, strict=True))
    most, noise, sharing = float(cores.max()), float(spreads.max()), 0.0
    # What the lock leaves of each rate, as images/s of a core: constant if nothing else is shared.
    shape = Cost(1 - share, share, 0.0, noise, most, "")
    doublings = np.log2(np.maximum(cores, 1.0))
    logs = np.log(rates / [core_rate(shape, each) for each in cores.tolist()])
    if np.ptp(doublings) < 0.5:
        level, counts = float(np.median(logs)), [most]
    else:
        slope = min(max(float(np.polyfit(doublings, logs, 1)[0]), math.log(0.5)), 0.0)
        level, sharing = float((logs - slope * doublings).mean()), 1 - math.exp(slope)
        noise = max(noise, float(np.abs(logs - slope * doublings - level).max()))
        counts = sorted({*cores.tolist()})
    origin, total = f"the loader on {', '.join(f'{n:.1f}' for n in counts)} cores", math.exp(-level)
    return Cost(total * (1 - share), total * share, sharing, noise, most, origin)


def _points(result: dict[str, Any]) -> Iterator[tuple[float, float, float]]:
    """(cores, images/s, spread as a fraction) of the present loader at each number of workers.

    Cores are the workers, and more when more were busy: beside one worker a main thread makes the plans.
    Those that wait for the lock count, so fewer busy ones do not. More workers than cores are left out.
    """
    now = _loader(result)
    if now is None:
        return
    alike, all_cores = ("backend", "cache", "batch_size", "kernels"), _cores(result)
    for row in measured(result, "loader").values():
        same = all(row.get(key) == now.get(key) for key in alike)
        other_photos = row.get("setting", "").startswith(("flowerfast ", "data.decode_scale"))
        if same and not other_photos and row["workers"] <= all_cores:
            cores = min(max(row.get("cpu_cores") or 0.0, row["workers"]), all_cores)
            yield cores, row["images_per_sec"], relative_spread(row)


def _stages(result: dict[str, Any]) -> dict[str, Any] | None:
    """The stages, where they are those of the present loader: DALI has none."""
    return result.get("stages") if result.get("settings", {}).get("backend", "cpu") == "cpu" else None


def _loader(result: dict[str, Any]) -> Row | None:
    """Row of the present loader, where cores make its photos."""
    row = present(result, "loader")
    return None if row is None or row.get("backend") == "dali" else row


def _trained_on_cpu(result: dict[str, Any]) -> bool:
    """Whether the measured step took the very cores that serve the loader."""
    return str(result.get("settings", {}).get("device", "cpu")) == "cpu"


def _prefetch(result: dict[str, Any]) -> int:
    changed = [text.partition("=") for text in result.get("settings", {}).get("set", [])]
    return next((int(value) for key, _, value in changed if key == "data.prefetch"), _PREFETCH)


def _cores(result: dict[str, Any]) -> int:
    return int(result.get("environment", {}).get("cores") or 1)


def _remarks(
    result: dict[str, Any], cost: Cost, cores: int, gpus: int, wanted: dict[str, float]
) -> Iterator[str]:
    share = cost.locked / cost.total
    yield f"a photo costs {cost.total:.3f} ms of a core, {share:.1%} under the lock ({cost.origin})"
    if cost.sharing:
        yield f"each doubling of the cores loses {cost.sharing:.1%} besides"
    each, most = cores / gpus, max(cost.measured, 1.0)
    if cores > FAR * most:
        advice = "measure on such a machine before you rely on it"
        yield f"far from what was measured: {cores} cores from {cost.measured:.1f}; {advice}"
    elif cores > most * 1.05:
        yield f"beyond the {cost.measured:.1f} cores measured: memory bandwidth and clock are not known there"
    if each < 1:
        yield f"less than one core for each GPU ({cores} for {gpus})"
    if gpus > 1:
        yield "GPUs do not wait for each other here: give the images/s that one takes in a group as model="
    if "batch" in wanted and "model" not in wanted:
        yield "the model's images/s are those of the measured batch"
    if "model" not in wanted and (_trained_on_cpu(result) or not training_step(result)):
        yield "no GPU's training step was measured: give the images/s that one takes as model="
