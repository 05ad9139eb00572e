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

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from flowerfast.bench.environment import SCHEMA
from flowerfast.errors import UserError

Verdict = Literal["slower", "faster", "same", "within noise", "not judged"]
"""same: within the tolerance; within noise: beyond the tolerance, and the rounds do not bear it out."""
LIMIT = 2.0
"""Standard errors by which medians must differ."""
TRIFLE = 0.02
"""Share of the sum of all stages by which a stage must have grown."""
LEAST_ROUNDS = 3
SUITES = ("stages", "loader", "model", "train")
MACHINE = ("device", "cpu", "cores")
DATA = ("photos", "mean_pixels", "mean_bytes")
SETTINGS = ("set", "backend", "cache", "workers", "batch_size", "image_size", "model", "device", "processes")
ROW = ("backend", "cache", "workers", "batch_size", "kernels")
_COLOUR = {"slower": "red", "faster": "green"}


@dataclass(frozen=True)
class Compared:
    """A row of the comparison.

    Attributes:
        suite, name: which row.
        old, new: images/s; None where that side has none.
        ratio: new / old.
        noise: difference as a fraction of the old rate that noise can explain; None: too few rounds to say.
        verdict: see `Verdict`.
        remark: why it was not judged.
    """

    suite: str
    name: str
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    noise: float | None = None
    verdict: Verdict = "not judged"
    remark: str = ""


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
            table.add_row(
                row.suite,
                Text(row.name),
                "" if row.old is None else f"{row.old:,.0f}",
                "" if row.new is None else f"{row.new:,.0f}",
                "" if row.ratio is None else f"{row.ratio:.3f}",
                "" if row.noise is None else f"±{row.noise:.1%}",
                Text(verdict, style=_COLOUR.get(row.verdict, "")),
            )
        said = [f"not the same, so nothing is judged: {text}" for text in self.differences]
        if said or self.notes:
            table.caption, table.caption_justify = Text("\n".join([*said, *self.notes])), "left"
        return table


def read_result(file: Path) -> dict[str, Any]:
    """A result that `flowerfast bench --json` has written. Raises UserError on anything else."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give a file made by flowerfast bench --json") from error
    except ValueError as error:
        raise UserError(f"{file}: is not JSON; give a file made by flowerfast bench --json") from error
    check_result(result, str(file))
    return dict(result)


def check_result(result: Any, where: str) -> None:
    """Raise UserError unless it is a result of `flowerfast bench` as this version writes it."""
    found = (result.get("kind"), result.get("schema")) if isinstance(result, dict) else (None, None)
    if found != ("bench", SCHEMA):
        raise UserError(
            f"{where}: is no result of flowerfast bench, schema {SCHEMA}, but kind {found[0]}, schema "
            f"{found[1]}; make one with flowerfast bench --json FILE"
        )


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
    differences = [*_differences(old, new)]
    rows = [
        _compare(suite, name, _row(old, suite, name), _row(new, suite, name), tolerance, bool(differences))
        for suite in SUITES
        for name in {**_rows(old, suite), **_rows(new, suite)}
    ]
    return Comparison(rows, differences, [*_versions(old, new)], tolerance)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for part, keys in (("environment", MACHINE), ("data", DATA), ("settings", SETTINGS)):
        before, after = old.get(part, {}), new.get(part, {})
        for key in keys:
            if before.get(key) != after.get(key):
                yield f"{part}: {key} was {before.get(key)}, is {after.get(key)}"


def _versions(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = (result.get("environment", {}).get("versions", {}) for result in (old, new))
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield f"{name} was {before.get(name)}, is {after.get(name)}"


def _rows(result: dict[str, Any], suite: str) -> dict[str, Any]:
    part = result.get(suite, {})
    return dict(part.get("rows", {})) if suite == "stages" else dict(part)


def _row(result: dict[str, Any], suite: str, name: str) -> dict[str, Any] | None:
    """A row with `relative` (spread over median), `count` of rounds and, for a stage, `total_ms`."""
    row = _rows(result, suite).get(name)
    if row is None or "images_per_sec" not in row:
        return row
    if suite == "stages":
        stages = result["stages"]
        more = {"count": stages.get("repeats", 1), "total_ms": stages["sum_ms"]}
        return {**row, **more, "relative": row["spread_ms"] / row["ms"]}
    return {**row, "count": len(row["rounds"]), "relative": row["spread"] / row["images_per_sec"]}


def _compare(
    suite: str,
    name: str,
    old: dict[str, Any] | None,
    new: dict[str, Any] | None,
    tolerance: float,
    other: bool,
) -> Compared:
    for row, side in ((old, "old"), (new, "new")):
        if row is None:
            return Compared(suite, name, _rate(old), _rate(new), remark=f"not in the {side} result")
        if "images_per_sec" not in row:
            return Compared(suite, name, _rate(old), _rate(new), remark=f"{side}: {row['error']}")
    assert old is not None
    assert new is not None
    figures = old["images_per_sec"], new["images_per_sec"], new["images_per_sec"] / old["images_per_sec"]
    noise = _noise(old, new)
    changed = [f"{key} was {old.get(key)}, is {new.get(key)}" for key in ROW if old.get(key) != new.get(key)]
    if noise is None:
        changed.append(f"fewer than {LEAST_ROUNDS} rounds")
    if other or changed:
        return Compared(suite, name, *figures, noise, remark=", ".join(changed))
    assert noise is not None
    return Compared(suite, name, *figures, noise, _judge(old, new, tolerance, noise))


def _rate(row: dict[str, Any] | None) -> float | None:
    return row.get("images_per_sec") if row else None


def _noise(old: dict[str, Any], new: dict[str, Any]) -> float | None:
    """`LIMIT` standard errors of the difference of two medians, as a fraction of the old one."""
    if min(old["count"], new["count"]) < LEAST_ROUNDS:
        return None
    wider = max(old["relative"], new["relative"])
    return float(LIMIT * wider * math.sqrt(math.pi / 2 * (1 / old["count"] + 1 / new["count"])))


def _judge(old: dict[str, Any], new: dict[str, Any], tolerance: float, noise: float) -> Verdict:
    ratio = new["images_per_sec"] / old["images_per_sec"]
    if 1 - tolerance <= ratio <= 1 / (1 - tolerance):
        return "same"
    trifling = "total_ms" in old and abs(new["ms"] - old["ms"]) < TRIFLE * old["total_ms"]
    if trifling or abs(ratio - 1) <= noise:
        return "same" if trifling else "within noise"
    return "slower" if ratio < 1 else "faster"
