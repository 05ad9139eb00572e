"""Two results of `flowerfast bench`: what has become slower, beyond the tolerance and beyond the noise.

A row is slower when its new rate lies below (1 - tolerance) of the old one and the two medians differ by more
than `LIMIT` standard errors. The standard error of the difference is that of two medians, sqrt(pi / 2) *
spread * sqrt(1 / n + 1 / m) with n and m rounds; the wider of the two spreads (each relative to its own
median) stands for both, since a handful of rounds can agree by luck. Of rows whose rounds are normal and
independent four in a hundred then cross the limit by chance at five rounds, two at nine, if the tolerance is
0. What differs between two runs but not between the rounds of one is not in it: that is what the tolerance
is for.

A stage must besides have grown by `TRIFLE` of the whole loader: one that takes a hundredth of the time may
double without anybody noticing. What was not measured under the same conditions is shown and not judged.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from flowerfast.bench.result import SUITES, Result, Row, check_result, relative_spread
from flowerfast.documents import DocumentError, conform, read_json
from flowerfast.errors import UserError, one_line, printable

Verdict = Literal["slower", "faster", "same", "within noise", "not judged"]
"""same: within the tolerance; within noise: beyond the tolerance, and the rounds do not bear it out."""
LIMIT = 2.0
"""Standard errors by which medians must differ."""
TRIFLE = 0.02
"""Share of the sum of all stages by which a stage must have grown."""
LEAST_ROUNDS = 3
MACHINE = ("device", "cpu", "cores")
DATA = ("photos", "mean_pixels", "mean_bytes")
SETTINGS = ("set", "backend", "cache", "workers", "batch_size", "image_size", "model", "device", "processes")
ROW = ("backend", "cache", "workers", "batch_size", "kernels")
_COLOUR = {"slower": "red", "faster": "green"}


@dataclass(frozen=True)
class Compared:
    """A row of the comparison.

    Attributes:
        old, new: images/s; None where that side has none.
        ratio: new / old.
        noise: difference as a fraction of the old rate that noise can explain; None: too few rounds to say.
        verdict: see `Verdict`.
        remark: why it was not judged.
        suite, name: which row.
    """

    old: float | None
    new: float | None
    ratio: float | None = None
    noise: float | None = None
    verdict: Verdict = "not judged"
    remark: str = ""
    suite: str = ""
    name: str = ""


@dataclass(frozen=True)
class Comparison:
    """What `compare_results` found.

    Attributes:
        rows: every row of either result, in the order of the suites.
        differences: conditions that were not the same, one line each; with any of them no row is judged.
        notes: versions that were not the same: often just what a comparison is about, so rows are judged.
        tolerance: the one that was asked for.
    """

    rows: list[Compared]
    differences: list[str]
    notes: list[str]
    tolerance: float

    @property
    def slower(self) -> bool:
        """Whether any row is slower."""
        return any(row.verdict == "slower" for row in self.rows)

    def table(self) -> Table:
        """All rows, images/s; what was not the same is the caption."""
        table = Table(title=f"new against old, tolerance {self.tolerance:.0%}", title_justify="left")
        for header in ("suite", "name", "old", "new", "ratio", "noise", "verdict"):
            table.add_column(header, justify="left" if header in ("suite", "name", "verdict") else "right")
        for row in self.rows:
            verdict = f"{row.verdict}: {row.remark}" if row.remark else row.verdict
            rates = ["" if rate is None else f"{rate:,.0f}" for rate in (row.old, row.new)]
            ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
            noise = "" if row.noise is None else f"±{row.noise:.1%}"
            coloured = Text(verdict, style=_COLOUR.get(row.verdict, ""))
            table.add_row(row.suite, row.name, *rates, ratio, noise, coloured)
        said = [f"not the same, so nothing is judged: {text}" for text in self.differences]
        if said or self.notes:
            table.caption, table.caption_justify = (
                Text("\n".join(map(printable, [*said, *self.notes]))),
                "left",
            )
        return table


def read_result(file: Path) -> dict[str, Any]:
    """A result that `flowerfast bench --json` has written. Raises UserError on anything else."""
    try:
        result = read_json(file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give a file made by flowerfast bench --json") from error
    except ValueError as error:
        raise UserError(
            f"{file}: is not JSON ({one_line(error)}); give a file made by flowerfast bench --json"
        ) from error
    check_result(result, str(file))
    try:
        conform(Result, result)
        return _with_present_names(result)
    except DocumentError as error:
        raise UserError(
            f"{file}: lacks what a result of flowerfast bench has ({one_line(error)}); measure again"
        ) from error


def _with_present_names(result: dict[str, Any]) -> dict[str, Any]:
    """The same, where the backend `cpu`, and rows named by it, may bear its older name."""
    suites: dict[str, Any] = {suite: result[suite] for suite in ("loader", "train") if suite in result}
    for suite, rows in suites.items():
        suites[suite] = {_renamed(name): _with(row, "backend") for name, row in rows.items()}
    return {**result, **suites, "settings": _with(result["settings"], "backend", "current", "set")}


def _with(part: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: _renamed(value) if key in keys else value for key, value in part.items()}


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    return re.sub(r'^(data\.backend=")?torchvision', r"\1cpu", value) if isinstance(value, str) else value


def compare_results(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> Comparison:
    """Set a new result against an old one.

    Args:
        old, new: results of `flowerfast bench`.
        tolerance: fraction of the old rate that may be lost, from 0 to below 1.

    Raises UserError when one of them is something else, or the tolerance is out of range.
    """
    check_result(old, "the old result")
    check_result(new, "the new result")
    if not 0 <= tolerance < 1:
        raise UserError(f"--tolerance {tolerance:g}: must be from 0 to below 1, such as 0.1 for a tenth")
    differences = [
        f"{part}: {text}"
        for part, keys in (("environment", MACHINE), ("data", DATA), ("settings", SETTINGS))
        for text in _changes(old.get(part, {}), new.get(part, {}), keys)
    ]
    rows = []
    for suite in SUITES:
        old_rows, new_rows = _rows(old, suite), _rows(new, suite)
        for name in {**old_rows, **new_rows}:
            compared = _compare(old_rows.get(name), new_rows.get(name), tolerance, bool(differences))
            rows.append(replace(compared, suite=suite, name=name))
    before, after = (result.get("environment", {}).get("versions", {}) for result in (old, new))
    return Comparison(rows, differences, [*_changes(before, after, [*before, *after])], tolerance)


def _changes(old: Row, new: Row, keys: Sequence[str]) -> Iterator[str]:
    """What is not the same under some keys."""
    for key in dict.fromkeys(keys):
        if old.get(key) != new.get(key):
            yield f"{key} was {old.get(key)}, is {new.get(key)}"


def _rows(result: dict[str, Any], suite: str) -> dict[str, Row]:
    """Rows with `count`, of rounds, and of stages with `total_ms`."""
    part = result.get(suite, {})
    if suite != "stages":
        return {name: row | {"count": len(row.get("rounds", ()))} for name, row in part.items()}
    more = {"count": part.get("repeats", 1), "total_ms": part.get("sum_ms")}
    return {name: row | more for name, row in part.get("rows", {}).items()}


def _compare(old: Row | None, new: Row | None, tolerance: float, other: bool) -> Compared:
    """The row without its name; `other`: conditions were not the same."""
    before, after = (row.get("images_per_sec") if row else None for row in (old, new))
    for row, side in ((old, "old"), (new, "new")):
        if row is None or "images_per_sec" not in row:
            why = f"not in the {side} result" if row is None else f"{side}: {row['error']}"
            return Compared(before, after, remark=why)
    assert old is not None
    assert new is not None
    ratio, noise = new["images_per_sec"] / old["images_per_sec"], _noise(old, new)
    changed = [*_changes(old, new, ROW)]
    if noise is None:
        changed.append(f"fewer than {LEAST_ROUNDS} rounds")
    if other or changed or noise is None:
        return Compared(before, after, ratio, noise, remark=", ".join(changed))
    return Compared(before, after, ratio, noise, _judge(old, new, ratio, tolerance, noise))


def _noise(old: Row, new: Row) -> float | None:
    """`LIMIT` standard errors of the difference of two medians, as a fraction of the old one."""
    if min(old["count"], new["count"]) < LEAST_ROUNDS:
        return None
    wider = max(row["spread_ms"] / row["ms"] if "ms" in row else relative_spread(row) for row in (old, new))
    return float(LIMIT * wider * math.sqrt(math.pi / 2 * (1 / old["count"] + 1 / new["count"])))


def _judge(old: Row, new: Row, ratio: float, tolerance: float, noise: float) -> Verdict:
    trifling = "total_ms" in old and abs(new["ms"] - old["ms"]) < TRIFLE * old["total_ms"]
    if trifling or 1 - tolerance <= ratio <= 1 / (1 - tolerance):
        return "same"
    if abs(ratio - 1) <= noise:
        return "within noise"
    return "slower" if ratio < 1 else "faster"
