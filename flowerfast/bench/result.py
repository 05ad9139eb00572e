"""What stands in a result of `flowerfast bench`, and the rows that others read from it; docs/bench.md."""

import statistics
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from flowerfast.bench.environment import SCHEMA
from flowerfast.documents import shown
from flowerfast.errors import UserError

_Rate = Annotated[FiniteFloat, Field(gt=0)]
_Amount = Annotated[FiniteFloat, Field(ge=0)]


class _Environment(TypedDict):
    device: str
    cpu: str
    cores: int
    versions: dict[str, str]
    git: str | None
    git_changed: bool | None


class _Data(TypedDict):
    photos: int
    mean_pixels: _Amount
    mean_bytes: _Amount


class _Settings(TypedDict):
    photos_per_epoch: int
    model: str
    image_size: int
    batch_size: int
    workers: int
    rounds: int
    left_out: NotRequired[dict[str, str]]


class _Stage(TypedDict):
    ms: _Rate
    spread_ms: _Amount
    images_per_sec: _Rate


class _ColdRead(TypedDict, total=False):
    ms: _Rate
    spread_ms: _Amount
    images_per_sec: _Rate
    not_measured: str


class _Stages(TypedDict):
    executor: str
    photos: int
    rows: dict[str, _Stage]
    sum_ms: _Rate
    loader_ms: _Rate
    cold_read: _ColdRead


class _Figures(TypedDict):
    images_per_sec: _Rate
    spread: _Amount
    rounds: list[_Rate]
    cpu_cores: _Amount | None
    memory_bytes: _Amount | None
    data_wait: NotRequired[_Amount | None]
    gpu_share: NotRequired[_Amount | None]
    gpu_memory_bytes: NotRequired[_Amount | None]


class _Failed(TypedDict):
    error: str


class _Advice(TypedDict):
    setting: str
    images_per_sec: _Rate
    gain: _Rate
    note: str


class _Verdict(TypedDict):
    bound: str
    advice: list[_Advice]
    findings: list[str]


_Rows = dict[str, _Figures | _Failed]


class Result(TypedDict):
    """What is read of a result; there is more in it."""

    environment: _Environment
    data: _Data
    settings: _Settings
    stages: NotRequired[_Stages]
    loader: NotRequired[_Rows]
    model: NotRequired[_Rows]
    train: NotRequired[_Rows]
    verdict: _Verdict


SUITES = ("stages", "loader", "model", "train")
BESIDE = "host-to-device"
"""The stage that runs beside the others, and is no part of their sum."""
Row = dict[str, Any]
"""Figures of a variant as they stand in a results file.

images_per_sec, low, high: median, lowest and highest round; spread: median absolute deviation times 1.4826,
the standard deviation of a normal distribution with that; rounds: all of them; warm_up_seconds: its first
epoch, while another variant may have been starting. cpu_cores: median of the cores kept busy in a round;
idle_cores: cores it kept busy while others were measured; foreign_cores: median of the cores that processes
outside the measurement kept busy in its rounds; memory_bytes: most memory seen that no file backs, workers
included (these four are null where /proc does not say). gpu_memory_bytes: how much more of the GPU's memory
was taken once it had warmed up; gpu_share: median share of the time in which the GPU worked (null without
one). counters: medians, per second of a round. A variant without figures has `error` instead, one line, and
`skipped`: true when it said itself that it cannot run.
"""


def summary(rates: Sequence[float]) -> Row:
    """Median, lowest, highest, robust spread and list of the rounds, in images/s."""
    middle, spread = middle_and_spread(rates)
    return {
        "images_per_sec": middle,
        "low": min(rates),
        "high": max(rates),
        "spread": spread,
        "rounds": list(rates),
    }


def middle_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the median absolute deviation from it times 1.4826."""
    middle = statistics.median(values)
    return middle, 1.4826 * statistics.median(abs(value - middle) for value in values)


def relative_spread(row: Row) -> float:
    """A row's spread as a share of its figure."""
    return float(row["spread"] / row["images_per_sec"])


def measured(result: dict[str, Any], suite: str) -> dict[str, Row]:
    """Rows of a suite of loaders or models that have figures."""
    return {name: row for name, row in result.get(suite, {}).items() if "images_per_sec" in row}


def present(result: dict[str, Any], suite: str) -> Row | None:
    """Row of the present settings, the first where the result names none; None when it has no figures."""
    rows = result.get(suite, {})
    row = rows.get(result.get("settings", {}).get("current"), next(iter(rows.values()), None))
    return row if row and "images_per_sec" in row else None


def training_step(result: dict[str, Any]) -> Row | None:
    """Row of the training step alone, where it has figures."""
    return measured(result, "model").get("training step")


def check_result(result: Any, where: str) -> None:
    """Raise UserError unless it is a result of `flowerfast bench` as this version writes it."""
    kind, schema = (result.get("kind"), result.get("schema")) if isinstance(result, dict) else (None, None)
    if (kind, schema) != ("bench", SCHEMA):
        raise UserError(
            f"{where}: is no result of flowerfast bench, schema {SCHEMA}, but kind {shown(kind)}, schema "
            f"{shown(schema)}; "
            "make one with flowerfast bench --json FILE"
        )
