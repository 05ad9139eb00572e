"""The speed of light, and how near we are: floors, loaders and training on one NVIDIA GPU.

    python benchmarks/gpu_speed.py --data SMALL [--data CAMERA] [--device cpu]
                                   [--parts floors,loaders,train,recipe,profile,sweep]
                                   [--out benchmarks/results/gpu-speed-DEVICE.json]

What each row is, and how shares are computed: docs/gpu-speed.md. Parts may be measured one after another into
the same --out, which is written after each group of rows. With --device cpu the same is rehearsed, with
DALI's CPU operators in the GPU's place.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu import rows, shares
from benchmarks.gpu.profile import profile_row
from benchmarks.gpu.recipe import run_recipe
from benchmarks.gpu.session import SCHEMA, Photos, Session, about, find_photos
from flowerfast.bench.environment import environment
from flowerfast.bench.measure import Pace
from flowerfast.config import load_config
from flowerfast.errors import UserError
from flowerfast.loaders.torchvision import usable_cores
from flowerfast.runs import pick_device

PARTS = ("floors", "loaders", "train", "recipe", "profile", "sweep")
PROFILED = (rows.DALI, rows.DECODER, rows.CACHE)
KIND = "gpu-speed"


def run_part(part: str, session: Session, args: argparse.Namespace) -> None:
    """Measure one part for all sets of photos."""
    if part == "floors":
        session.group(("floors", "step"), rows.step_rows(session.job))
    elif part == "recipe":
        data = session.sets[0]
        session.say(f"== recipe: {data.name} photos")
        found = run_recipe(data.given, session.job.device, args.weights, args.set, args.recipe_limit)
        session.keep(("recipe",), found)
        return
    for photos in session.sets:
        _of_photos(part, session, photos, args)


def _of_photos(part: str, session: Session, photos: Photos, args: argparse.Namespace) -> None:
    job, folder = session.job, photos.folder
    if part == "floors":
        session.group(("floors", photos.name), rows.part_rows(job, folder))
    elif part == "loaders":
        session.group(("loaders", photos.name), rows.loader_rows(job, folder), memory=True)
    elif part == "train":
        session.group(("train", photos.name), rows.train_rows(job, folder, len(photos.manifest.classes)))
    elif part == "sweep":
        for knob, variants in rows.sweep_rows(job, folder).items():
            session.group(("sweep", photos.name, knob), variants)
    else:
        _profile(session, photos, args.profile_steps)


def _profile(session: Session, photos: Photos, steps: int) -> None:
    wanted = [v for v in rows.loader_rows(session.job, photos.folder) if v.name in PROFILED]
    found = {}
    for loader in session.chosen(wanted):
        session.say(f"== profile / {photos.name}: {loader.name}")
        training = rows.training(session.job, loader, len(photos.manifest.classes))
        found[loader.name] = profile_row(training, steps, session.limit)
        session.keep(("profile", photos.name), dict(found), shown=[loader.name])
    session.group(("graph", photos.name), rows.graph_rows(session.job, photos.folder))


def opened(args: argparse.Namespace, device: torch.device, sets: list[Photos]) -> dict[str, Any]:
    """The result to add to: what --out holds, or an empty one. Raises UserError when the two do not match."""
    fresh: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": KIND,
        "rehearsal": device.type == "cpu",
        "environment": environment(device),
        "settings": {
            "batch_size": args.batch_size,
            "image_size": args.image_size,
            "model": args.model,
            "set": args.set,
        },
        "sets": {photos.name: about(photos) for photos in sets},
        "parts": {},
        "goals": [],
    }
    if args.out is None or not args.out.exists():
        return fresh
    try:
        known = json.loads(args.out.read_text(encoding="utf-8"))
        same = (known["kind"], known["schema"]) == (KIND, SCHEMA)
        there = known["environment"]["device"], known["environment"]["cores"], known["settings"]
        sets_there: dict[str, Any] = known["sets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--out {args.out}: not a results file of this tool ({error}); choose another"
        ) from error
    here = fresh["environment"]["device"], fresh["environment"]["cores"], fresh["settings"]
    changed = any(sets_there.get(name, mine) != mine for name, mine in fresh["sets"].items())
    if not same or there != here or changed:
        raise UserError(
            f"--out {args.out}: was measured on another machine, photos or settings; choose another file"
        )
    return {**known, "sets": {**sets_there, **fresh["sets"]}}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder of class folders; twice"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"any of {','.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="JSON file to write, or to add these parts to")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    parser.add_argument(
        "--only", metavar="WORD[,WORD]", default="", help="rows whose names hold one of these"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--model", default="resnet18", help="timm name")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for all rows of ours"
    )
    parser.add_argument("--photos", type=int, default=3000, help="an epoch has at least so many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a round")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds after which a row has failed")
    parser.add_argument("--weights", type=Path, help="ImageNet weights for the recipe; else random ones")
    parser.add_argument("--recipe-limit", type=float, default=420.0, help="seconds for the recipe")
    parser.add_argument("--profile-steps", type=int, default=20)
    args = parser.parse_args(arguments)
    args.parts = [part.strip() for part in args.parts.split(",") if part.strip()]
    args.only = [word.strip() for word in args.only.split(",") if word.strip()]
    return args


def check(args: argparse.Namespace) -> None:
    """Raise UserError on arguments that cannot be."""
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown or not args.parts:
        raise UserError(f"--parts {','.join(unknown)}: no such part; give any of {', '.join(PARTS)}")
    least = {"--rounds": args.rounds, "--photos": args.photos, "--profile-steps": args.profile_steps}
    for name, value in (least | {"--batch-size": args.batch_size}).items():
        if value < 1:
            raise UserError(f"{name} {value}: must be at least 1")
    if args.weights is not None and not args.weights.is_file():
        raise UserError(f"--weights {args.weights}: no such file")
    load_config("paper", args.set)


def measured(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The whole run: content of the results file. Raises UserError."""
    check(args)
    device = pick_device(args.device)
    sets = find_photos(args.data, args.photos, scratch)
    result = opened(args, device, sets)
    job = rows.Job(args.device, args.batch_size, args.image_size, usable_cores(), args.model, tuple(args.set))
    pace = Pace(args.rounds, args.seconds)
    session = Session(job, pace, sets, result, args.out, args.only, _say, args.limit)
    for part in args.parts:
        started = time.monotonic()
        run_part(part, session, args)
        session.finish(part, started, environment(device))
    return result


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print, write: exit code."""
    args = parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="flowerfast-gpu-speed-") as scratch:
            result = measured(args, Path(scratch))
    except UserError as error:
        print(f"gpu_speed.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if result["rehearsal"]:
        _say("a rehearsal on the CPU: the figures say nothing about a GPU, and are not to be kept")
    for goal in result["goals"]:
        found = "" if goal["found"] is None else f" {goal['found']:.3g}"
        _say(f"{shares.as_words(goal)}: {goal['goal']}:{found} (goal {goal['bound']} {goal['wanted']:g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
