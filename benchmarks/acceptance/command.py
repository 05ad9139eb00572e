"""The command of `benchmarks/gpu_acceptance.py`: prepare, run the rows, show and keep what they found."""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.pictures import SETS, make_sets
from benchmarks.acceptance.place import FULL, QUICK, Place, Sizes
from benchmarks.acceptance.rows import Row, all_rows, choose
from flowerfast.bench.child import Child, ChildFailed, Variant
from flowerfast.bench.environment import environment, write_results
from flowerfast.data.manifest import load_manifest
from flowerfast.errors import UserError
from flowerfast.runs import device_name, pick_device

SCHEMA = 1
RENDERED = ("small", "camera")
"""Sets compared with the reference where no photos are named."""
_RESULTS = Path(__file__).resolve().parents[1] / "results"
_WORKER = "benchmarks.acceptance.worker"
_SHORT = 1.0  # seconds: with less left no row is started


def run_row(row: Row, place: Place, limit: float, worker: str = _WORKER) -> dict[str, Any]:
    """One row in a process of its own, which ends within `limit` seconds: its entry in the results file."""
    started = time.monotonic()
    options = {"place": place.to_json(), **row.options}
    try:
        with Child(Variant(row.name, row.target, options), {}, worker) as child:
            found = asdict(Outcome(**child.order(limit)))
    except ChildFailed as failure:
        found = asdict(Outcome(False, "", "an answer", str(failure)))
    return {"name": row.name, **found, "seconds": round(time.monotonic() - started, 1)}


def run_rows(rows: list[Row], place: Place, result: dict[str, Any], args: argparse.Namespace) -> None:
    """All rows one after another; the file is complete after each."""
    console, until = _console(), time.monotonic() + args.limit
    for row in rows:
        left = until - time.monotonic()
        if left < _SHORT:
            late = Outcome(False, "", "an answer", f"not run: --limit {args.limit:g} seconds are over")
            found = {"name": row.name, **asdict(late), "seconds": 0.0}
        else:
            found = run_row(row, place, min(row.limit * args.patience, left))
        replace_row(result["rows"], found)
        write_results(args.out, result)
        console.print(escape(f"{_word(found):9} {found['name']}: {found['seconds']:.1f} s, {_tell(found)}"))


def replace_row(rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """Put a row in the place of the one of its name, or at the end."""
    for position, row in enumerate(rows):
        if row["name"] == found["name"]:
            rows[position] = found
            return
    rows.append(found)


def start_result(args: argparse.Namespace, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """A results file without rows, or the one that is there when only some rows are wanted.

    Raises UserError when that file is of another device or preset.
    """
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "gpu-acceptance",
        "rehearsal": device.type == "cpu",
        "environment": environment(device, ("numba", "triton")),
        "sizes": asdict(sizes),
        "photos": [folder.name for folder in args.photos],
        "weights": args.weights.name if args.weights else None,
        "rows": [],
    }
    if args.rows is None or not args.out.exists():
        return found
    try:
        old = json.loads(args.out.read_text(encoding="utf-8"))
        same = old["sizes"] == found["sizes"]
        same = same and old["environment"]["device"] == found["environment"]["device"]
        kept = list(old["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{args.out}: no results of this program; choose another --out") from None
    if not same:
        raise UserError(f"{args.out}: of another device or other sizes; choose another --out")
    return {**found, "rows": kept}


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The short table, and below it what does not hold."""
    table = Table("row", "holds", "figure", "bound", "seconds")
    for row in rows:
        cells = (row["name"], _word(row), row["figure"], row["bound"], f"{row['seconds']:.1f}")
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    for row in rows:
        if not row["holds"]:
            console.print(escape(f"{row['name']}: {_word(row)}: {_tell(row)}"), soft_wrap=True)
    counts = [
        f"{sum(_word(row) == word for row in rows)} {word}" for word in ("yes", "rehearsed", "skipped", "NO")
    ]
    console.print(", ".join(counts))


def _word(row: dict[str, Any]) -> str:
    if row["holds"] is None:
        return "skipped"
    if not row["holds"]:
        return "NO"
    return "rehearsed" if row["unseen"] else "yes"


def _tell(row: dict[str, Any]) -> str:
    parts = [f"{row['figure']} ({row['bound']})" if row["figure"] != "" else "", row["detail"]]
    parts.append(f"not seen: {row['unseen']}" if row["unseen"] else "")
    return "; ".join(part for part in parts if part)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    return console


def photo_sets(folders: list[Path]) -> dict[str, str]:
    """Folders of photos by the name that rows give them. Raises UserError for one that is none."""
    found: dict[str, str] = {}
    for folder in folders:
        load_manifest(folder, min_classes=1)  # says what is wrong with it
        name = re.sub(r"[^\w.]+", "-", folder.resolve().name)
        if name in found or name in SETS:
            raise UserError(f"--photos {folder}: a second set named {name}; rename the folder")
        found[name] = str(folder.resolve())
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gpu_acceptance.py", description="Is the GPU path right?")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--quick", action="store_true", help="few and small: for a rehearsal")
    parser.add_argument("--rows", metavar="NAME[,NAME]", help="rows whose names begin so; others are kept")
    parser.add_argument("--photos", type=Path, action="append", default=[], help="folder of class folders")
    parser.add_argument("--model", help="timm model that is trained; resnet18, with --quick resnet10t")
    parser.add_argument("--weights", type=Path, help="file to start training from, instead of random weights")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--limit", type=float, default=500.0, help="seconds that all rows may take together")
    parser.add_argument("--patience", type=float, default=1.0, help="times each row's own limit")
    args = parser.parse_args(arguments)
    if args.limit <= 0 or args.patience <= 0:
        parser.error("--limit and --patience must be positive")
    return args


def accept(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Prepare, run what is wanted, print: all rows of the results file. Raises UserError."""
    device = pick_device(args.device)
    sizes = QUICK if args.quick else FULL
    if args.model:
        sizes = Sizes(**{**asdict(sizes), "model": args.model})
    if args.weights is not None and not args.weights.is_file():
        raise UserError(f"--weights {args.weights}: no such file")
    named = photo_sets(args.photos)
    rows = choose(all_rows(tuple(named) or RENDERED), args.rows)
    name = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    args.out = args.out or _RESULTS / f"gpu-acceptance-{name}.json"
    result = start_result(args, sizes, device)
    with tempfile.TemporaryDirectory(prefix="flowerfast-acceptance-") as folder:
        # A cache of its own: what is known of this GPU's decoders is found out anew, and no scan is old.
        os.environ["FLOWERFAST_CACHE"] = str(Path(folder) / "cache")
        needed = {name for row in rows for name in row.sets} - named.keys()
        started = time.monotonic()
        sets = {**named, **make_sets(Path(folder), sizes, [name for name in SETS if name in needed])}
        args.limit -= time.monotonic() - started
        weights = str(args.weights.resolve()) if args.weights else None
        run_rows(rows, Place(args.device, sets, sizes, folder, weights), result, args)
    show(result["rows"], _console())
    return list(result["rows"])


def main(arguments: list[str] | None = None) -> int:
    """Exit code."""
    args = parse(arguments)
    try:
        rows = accept(args)
    except UserError as error:
        print(f"gpu_acceptance.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if all(row["holds"] is not False for row in rows) else 1
