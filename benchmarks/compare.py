"""flowerfast's loaders and other people's side by side, on your photos: one run, one JSON.

    python benchmarks/compare.py DATA [--out benchmarks/results/compare-NAME.json] [--only NAME[,NAME]]
                                      [--scaled]

Every loader works in a process of its own, with all cores and without a GPU, and makes training batches of
all photos. Rounds alternate; figures are medians. Loaders that are not installed are skipped and named. With
--scaled photos are first enlarged to 12 megapixels, for what a decoder gains by reading at a lower scale.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import Peer, all_peers
from benchmarks.photos import cache_folder, enlarged, shrunk
from flowerfast.bench.child import Variant
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.bench.measure import Pace, measure
from flowerfast.errors import UserError
from flowerfast.machine import usable_cores
from flowerfast.photos.photos import Photos

PACKAGES = (
    "ffcv",
    "grain",
    "kornia-rs",
    "litdata",
    "numba",
    "opencv-python-headless",
    "spdl-io",
    "torchcodec",
    "webdataset",
)
NOISE = 0.1  # cores that others may keep busy
DECODE_SCALES = ("off", "auto")
HIDE_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # these are loaders on the CPU; ffcv would use a GPU's streams


def scaled_peers() -> list[Peer]:
    """Rows of the measurement on large photos: ours with and without scaled decode, and three others."""
    named = {peer.name: peer for peer in all_peers()}
    folder = named["flowerfast folder"]
    # A bare off is YAML's false.
    ours = [
        _with(folder, f"{folder.name} decode_scale={v}", f'data.decode_scale="{v}"') for v in DECODE_SCALES
    ]
    return [*(named[name] for name in ("paper's recipe", "DALI CPU operators", "decode only")), *ours]


def _with(peer: Peer, name: str, *settings: str, **options: Any) -> Peer:
    """A row of ours under another name, with more settings and options."""
    return replace(peer, name=name, options={"settings": (*peer.options["settings"], *settings), **options})


def choose(peers: list[Peer], only: str | None) -> list[Peer]:
    """The rows whose names hold one of the words in `only`, which are separated by commas."""
    if only is None:
        return peers
    words = [word.strip() for word in only.split(",") if word.strip()]
    exact = {peer.name for peer in peers}
    chosen = [p for p in peers if any(w == p.name or (w not in exact and w in p.name) for w in words)]
    lost = [word for word in words if not any(word in peer.name for peer in peers)]
    if lost or not chosen:
        names = "; ".join(sorted(exact))
        raise UserError(f"--only {lost[0] if lost else only}: no such row; there are: {names}")
    return chosen


def variants(peers: list[Peer], data: Path, args: argparse.Namespace) -> list[Variant]:
    """What the measuring core is to run. Makes the small photos when a row wants them."""
    made = []
    for peer in peers:
        photos = shrunk(data) if peer.photos == "small" and not peer.shrinks else data
        options = {
            "data": str(photos),
            "image_size": args.image_size,
            "batch_size": args.batch_size,
            "cores": usable_cores(),
            "cache": str(cache_folder(photos)),
            **peer.options,
        }
        made.append(Variant(peer.name, peer.target, options))
    return made


def compare(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole run: content of the results file. Raises UserError."""
    started = time.monotonic()
    data = args.data.resolve()
    photos = Photos(data)  # says what is wrong with a folder before anything starts
    kind = "compare-scaled" if args.scaled else "compare"
    peers = choose(scaled_peers() if args.scaled else all_peers(), args.only)
    if args.scaled:
        console.print("enlarging photos")
        data = enlarged(data, args.photos)
        photos = Photos(data)
    missing = {peer.name: package for peer in peers if (package := peer.missing())}
    there = [peer for peer in peers if peer.name not in missing]
    pace = Pace(args.rounds, args.seconds)
    rows = measure(variants(there, data, args), pace, lambda text: console.print(escape(text)), HIDE_GPU)
    for name, package in missing.items():
        rows[name] = {"error": f"{package} is not installed", "skipped": True}
    small = shrunk(data) if any(peer.photos == "small" for peer in there) else None
    return {
        "schema": SCHEMA,
        "kind": kind,
        "environment": environment(torch.device("cpu"), PACKAGES),
        "data": describe_photos(photos, args.data.resolve().name),
        "small": describe_photos(Photos(small), small.name) if small else None,
        "settings": {k: getattr(args, k) for k in ("image_size", "batch_size", "rounds", "seconds")},
        "seconds": time.monotonic() - started,
        "loader": {peer.name: {**peer.work(), **rows[peer.name]} for peer in peers},
    }


def show(result: dict[str, Any], console: Console) -> None:
    """The result as a table."""
    rows = result["loader"]
    paper = rows.get("paper's recipe", {}).get("images_per_sec")
    table = Table("loader", "images/s", "low", "high", "× paper", "cores", "idle", "MB", "leaves out")
    for column in table.columns:
        column.no_wrap = column.header != "leaves out"
        column.justify = "left" if column.header in ("loader", "leaves out") else "right"
    for name, row in rows.items():
        if "error" in row:
            continue
        table.add_row(
            name,
            *(f"{row[key]:,.0f}" for key in ("images_per_sec", "low", "high")),
            f"{row['images_per_sec'] / paper:.2f}" if paper else "",
            "" if row["cpu_cores"] is None else f"{row['cpu_cores']:.2f}",
            "" if row["idle_cores"] is None else f"{row['idle_cores']:.3f}",
            "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:,.0f}",
            ", ".join(row["leaves_out"]),
        )
    console.print(table)
    for name, row in rows.items():
        if "error" in row:
            console.print(
                escape(f"{name}: {'skipped' if row['skipped'] else 'failed'}: {row['error']}"), soft_wrap=True
            )

    disturbed = max((row.get("foreign_cores") or 0.0 for row in rows.values()), default=0.0)
    if disturbed > NOISE:
        console.print(
            f"other processes kept up to {disturbed:.1f} cores busy: these figures are not to be kept"
        )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders of JPEGs")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="rows whose names hold one of these")
    parser.add_argument("--scaled", action="store_true", help="enlarge photos to 12 megapixels first")
    parser.add_argument("--photos", type=int, default=48, help="how many photos --scaled enlarges")
    parser.add_argument("--batch-size", type=int, help="images a batch; 32, with --scaled 8")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="least length of a round")
    args = parser.parse_args(arguments)
    if min(args.rounds, args.photos, args.batch_size or 1) < 1 or args.seconds < 0:
        parser.error("--rounds, --photos and --batch-size must be at least 1, --seconds not negative")
    args.batch_size = args.batch_size or (8 if args.scaled else 32)
    return args


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print, write: exit code."""
    args = parse(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    try:
        result = compare(args, console)
    except UserError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    show(result, console)
    if args.out:
        write_results(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
