"""All rows in order: the quick and telling ones first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.acceptance.place import KINDS
from flowerfast.errors import UserError

LOADS = (0.0, 0.65, 1.0)
_HERE = "benchmarks.acceptance"


@dataclass(frozen=True)
class Row:
    """A check to be made in a process of its own.

    Attributes:
        name: of the row.
        target: `module:function`; it takes the place and `options`, and returns an `Outcome`.
        sets: photos that it needs.
        limit: seconds after which it has failed.
        options: further keyword arguments.
    """

    name: str
    target: str
    sets: tuple[str, ...]
    limit: float
    options: dict[str, Any] = field(default_factory=dict)


def all_rows(photos: Sequence[str]) -> list[Row]:
    """Rows; `photos` are the sets whose pixels are compared with the reference's, beside the odd files."""
    rows = [
        Row("import", f"{_HERE}.start:imports", (), 60),
        Row("window-decode", f"{_HERE}.start:window_decode", ("many",), 90),
    ]
    for name in (*photos, "odd"):
        for kind in ("gpu", "cpu"):
            options = {"photos": name, "kind": kind}
            rows.append(Row(f"parity-{name}-{kind}", f"{_HERE}.agreement:parity", (name,), 60, options))
    for load in LOADS:
        target = f"{_HERE}.agreement:decoder_load"
        rows.append(Row(f"decoder-load-{load:g}", target, ("camera",), 60, {"load": load}))
    for kind in KINDS:
        options = {"kind": kind}
        rows += [
            Row(f"stream-order-{kind}", f"{_HERE}.streams:stream_order", ("small",), 60, options),
            Row(f"memory-{kind}", f"{_HERE}.memory:flat_memory", ("small",), 60, options),
            Row(f"exit-{kind}", f"{_HERE}.endings:clean_exit", ("small",), 90, options),
        ]
    ours, theirs = "under test", "torchvision"
    rows += [
        Row("samples", f"{_HERE}.completeness:every_sample", ("small",), 60),
        Row("bad-files", f"{_HERE}.completeness:bad_files", ("small",), 60),
        Row("cache", f"{_HERE}.agreement:cached", ("small",), 60),
        _resume("resume-to-torchvision", ours, theirs),
        _resume("resume-to-dali", theirs, ours),
        Row("amp-bf16", f"{_HERE}.training:mixed_precision", ("flowers",), 90, {"amp": "bf16"}),
        Row("amp-fp16", f"{_HERE}.training:mixed_precision", ("flowers",), 90, {"amp": "fp16"}),
        Row("channels-last", f"{_HERE}.layout:channels_last", ("flowers",), 60),
        Row("compile", f"{_HERE}.training:compiled", ("flowers",), 180),
    ]
    return rows


def _resume(name: str, first: str, second: str) -> Row:
    options = {"first": first, "second": second}
    return Row(name, f"{_HERE}.resuming:resume", ("flowers",), 90, options)


def choose(rows: list[Row], wanted: str | None) -> list[Row]:
    """The rows whose names are, or begin with, one of the words in `wanted`, which are separated by commas.

    Raises UserError for a word that no row begins with.
    """
    if wanted is None:
        return rows
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    lost = [word for word in words if not any(row.name.startswith(word) for row in rows)]
    if lost or not words:
        names = ", ".join(row.name for row in rows)
        raise UserError(f"--rows {lost[0] if lost else wanted}: no such row; there are: {names}")
    exact = {row.name for row in rows}
    return [
        row
        for row in rows
        if any(row.name == word or (word not in exact and row.name.startswith(word)) for word in words)
    ]
