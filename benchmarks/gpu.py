"""Everything that is worth knowing of one NVIDIA GPU, within a budget of minutes: docs/gpu.md.

    python benchmarks/gpu.py --data SMALL [--data CAMERA] [--minutes 12] [--out FILE] [--device cpu]
                             [--weights FILE] [--parts start,tests,loaders,train,recipe,profile]

The parts run in this order, each with its share of the time that is left, and what is known is in FILE at
once; parts for which no time is left are named there. Exit code: 0 all went well or was left out, 1 a test or
a part failed, 2 wrong arguments. With --device cpu it is a rehearsal, with DALI's CPU operators.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_session import OutOfTime, Session, find_photos, run_python
from benchmarks.gpu_variants import fast_enough, loader, model_settings, our_loaders, training
from benchmarks.peers import paper
from benchmarks.recipes import seconds_to_goal
from flowerfast.bench.child import Child, Variant
from flowerfast.bench.environment import describe_photos, environment
from flowerfast.bench.measure import Pace, measure
from flowerfast.bench.suites import keep_speeds
from flowerfast.bench.trials import HW_LOADS
from flowerfast.bench.worker import call
from flowerfast.errors import UserError, one_line
from flowerfast.loaders.device import pick_device
from flowerfast.machine import usable_cores, user_cache_dir
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config

STEPS = "flowerfast.bench.training_sources:steps"
EAGER, COMPILED, GRAPH, SYNTHETIC = "eager", "torch.compile", "CUDA graph", "synthetic pixels"
TESTS = ("tests/pixels/test_gpu.py", "tests/gpu")
_OUTCOME = re.compile(r"^(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)
_REASON = re.compile(r"^(?:FAILED|ERROR) (\S+::\S.*?)(?: - (.*))?$", re.MULTILINE)


def start(session: Session) -> None:
    """Is a photo decoded at all? Compiles the CPU's loops for all that follow."""
    names, failed = ["cpu", "dali, decoder=cpu", f"dali, decoder=gpu, load={HW_LOADS[0]:g}"], []
    for name in names if session.cuda else names[1:2]:
        variant = loader(session, session.sets[0], name, session.args.batch_size)
        variant.options["photos"], started = 1, time.monotonic()
        row = measure([variant], Pace(1, 0.0, session.left, session.left, openers=1))[name]
        kind = "skipped" if row.get("skipped") else "error"
        found = {kind: row["error"]} if "error" in row else {"seconds": time.monotonic() - started}
        failed += [name] if "error" in found else []
        session.keep(f"start/{name}", found)
        print(f"  one photo, {name}: {found}", flush=True)
    if failed:
        raise RuntimeError(f"no photo by {'; '.join(failed)}")


def tests(session: Session) -> None:
    """`pytest -m gpu` on TESTS in a process of its own: counts and failures, however it ends."""
    arguments = ["-m", "pytest", "-m", "gpu", *TESTS, "-v", "-ra", "--tb=short", "-p", "no:cacheprovider"]
    loops = os.environ.get("NUMBA_CACHE_DIR") or str(user_cache_dir() / "kernels")  # compiled by `start`
    more = {"COLUMNS": "500", "NUMBA_CACHE_DIR": loops, "FLOWERFAST_DATA": str(session.sets[0].given.root)}
    code, seconds, said = run_python(arguments, session.left, more)
    outcomes: dict[str, str] = dict(_OUTCOME.findall(said))
    failures = {name: "" for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR")}
    failures |= dict(_REASON.findall(said))
    counts = dict(Counter(outcome.lower() for outcome in outcomes.values()))
    row = {"counts": counts, "failures": failures, "exit_code": code, "seconds": seconds}
    if code not in (0, 1):  # not ended in time, killed by a signal, or not even begun: the test under way
        row["last_line"] = (said.strip().splitlines() or [""])[-1][:300]
    session.keep("tests", row)
    print(f"  {counts}, exit code {code}", *failures.items(), sep="\n    ", flush=True)
    if code is None:
        raise OutOfTime(f"no end within {seconds:.0f} s: {row['last_line']}")
    if code not in (0, 1):
        raise RuntimeError(f"exit code {code}: {row['last_line']}")


def loaders(session: Session) -> None:
    """Loaders side by side, by set of photos."""
    for number, data in enumerate(session.sets):
        names = [paper.NAME, *our_loaders(session.cuda)]
        variants = [loader(session, data, name, session.args.batch_size) for name in names]
        rows = session.measure(f"loaders/{data.name}", variants, len(session.sets) - number)
        settings = model_settings(session, session.args.batch_size)
        measured = [
            (load_config(None, [*settings, *more]).data, rows[name])
            for name, more in our_loaders(session.cuda).items()
            if "images_per_sec" in rows[name]
        ]
        device, config = pick_device(session.args.device), load_config(None, settings)
        print(f"  {keep_speeds(data.given, device, config, measured)}", flush=True)


def train(session: Session) -> None:
    """The step on pixels that lie on the device, then fed by each loader that is fast enough."""
    sizes = (session.args.batch_size, max(session.args.batch_size // 8, 2))
    groups = len(sizes) * (1 + len(session.sets))
    floors: dict[int, float | None] = {}
    for batch_size in sizes:
        settings = model_settings(session, batch_size)
        common: dict[str, Any] = {"settings": settings, "device": session.args.device}
        compiled = {**common, "settings": [*settings, "train.compile=on"]}
        if not session.cuda:  # for a CPU the code is compiled for minutes
            compiled["compiler"] = "eager"
        steps = [Variant(EAGER, STEPS, common), Variant(COMPILED, STEPS, compiled)]
        steps.append(Variant(GRAPH, "benchmarks.gpu_variants:captured_steps", common))
        rows = session.measure(f"train/batch {batch_size}/step", steps, groups)
        floors[batch_size] = rows[EAGER].get("images_per_sec")
        groups -= 1
    for batch_size in sizes:
        place, settings = f"train/batch {batch_size}", model_settings(session, batch_size)
        common = {"settings": settings, "device": session.args.device}
        for data in session.sets:
            measured = session.result.get("loaders", {}).get(data.name, {})
            fed, slow = fast_enough(measured, floors[batch_size])
            session.keep(f"{place}/left out of {data.name}", slow)
            variants = [Variant(SYNTHETIC, STEPS, common)]
            variants += [training(session, loader(session, data, n, batch_size), settings, data) for n in fed]
            rows = session.measure(f"{place}/{data.name}", variants, groups)
            groups -= 1
            for row in rows.values():
                if "images_per_sec" in row and "images_per_sec" in rows[SYNTHETIC]:
                    row["synthetic_share"] = row["images_per_sec"] / rows[SYNTHETIC]["images_per_sec"]
            session.keep(f"{place}/{data.name}", rows)


def recipe(session: Session) -> None:
    """`flowerfast train --config paper` from random weights, and with --weights --config fast from those."""
    args, small = session.args, []
    if not session.cuda:
        sizes = [f"eval.image_size={args.image_size}", "train.epochs=1"]
        small = [*model_settings(session, args.batch_size), *sizes]
    session.keep("recipe", _timed(session, "paper", ["model.pretrained=false", *small]))
    if args.weights is not None:
        own = [f"model.name={load_config('fast').model.name}", f"model.weights={args.weights.resolve()}"]
        session.keep("fast", _timed(session, "fast", [*small, *own]))


def _timed(session: Session, config: str, settings: list[str]) -> dict[str, Any]:
    """One run of a recipe: seconds from command to best checkpoint, and from the run's start to the goal.

    `startup_seconds` are those from the command to the first batch: Python, imports, and all that the summary
    calls so.
    """
    args, data = session.args, session.sets[0]
    settings = [f"train.device={args.device}", *settings]
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        command = ["-m", "flowerfast", "train", str(data.given.root), "--config", config, "--out", str(run)]
        started = time.time()
        code, seconds, said = run_python([*command, *(f"--set={text}" for text in settings)], session.left)
        if code is None:
            raise OutOfTime(f"no end within {seconds:.0f} s")
        if code != 0:
            last = " ".join([line for line in said.splitlines() if line.strip()][-1:])
            raise RuntimeError(f"exit code {code} after {seconds:.0f} s: {last[:300]}")
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        best = max(file.stat().st_mtime for file in (run / "best").iterdir()) - started
        trained = (run / "summary.json").stat().st_mtime - started  # the report is drawn after it
    plain = {key: value for key, value in summary.items() if isinstance(value, (str, int, float))}
    startup = trained - summary["seconds"] + summary["startup_seconds"]
    print(
        f"  {config}: best checkpoint after {best:.1f} s ({startup:.1f} s to start up), all {seconds:.1f} s",
        flush=True,
    )
    return {
        "best_seconds": best,
        "whole_seconds": seconds,
        "startup_seconds": startup,
        "seconds_to_goal": seconds_to_goal(summary),
        "summary": plain,
    }


def profile(session: Session) -> None:
    """Some steps fed by the fastest of our loaders, under torch's profiler."""
    data, ours = session.sets[0], our_loaders(session.cuda)
    rows = session.result.get("loaders", {}).get(data.name, {})
    rates = {name: rows[name]["images_per_sec"] for name in ours if "images_per_sec" in rows.get(name, {})}
    name = max(rates, key=lambda key: rates[key], default="cpu")
    fed_by = loader(session, data, name, session.args.batch_size)
    settings = model_settings(session, session.args.batch_size)
    variant = training(session, fed_by, settings, data)
    options = {key: value for key, value in variant.options.items() if key != "floats"}
    target = "benchmarks.step_profile:profile"
    if session.cuda:
        with Child(Variant(name, target, options), {}) as child:
            found = child.call(session.left)
    else:
        found = call(target, options)
    session.keep("profile", {"fed_by": name, **found})
    for stage, row in found["stages"].items():
        print(f"  {stage}: {row['ms']:.3f} ms a step, {row['launches']:.0f} launches", flush=True)
    syncs, idle = sum(found["syncs"]["torch"].values()), found["idle_share"]
    print(f"  idle {idle:.1%}, {syncs:.1f} syncs a step, conversions: {[*found['conversions']]}", flush=True)


PARTS: dict[str, tuple[Callable[[Session], None], float, float]] = {
    "start": (start, 2.0, 20.0),
    "tests": (tests, 7.0, 15.0),
    "loaders": (loaders, 4.0, 10.0),
    "train": (train, 6.0, 10.0),
    "recipe": (recipe, 1.5, 10.0),
    "profile": (profile, 1.0, 10.0),
}
"""Function, share of the time that is left, and the seconds below which it is not begun."""


def run_parts(session: Session, wanted: Sequence[str]) -> None:
    """The parts one after another, whatever becomes of one of them."""
    for number, name in enumerate(wanted):
        work, share, least = PARTS[name]
        started, note = time.monotonic(), {}
        left = session.end - started
        if left < least:
            note["skipped"] = (
                f"{max(left, 0.0):.0f} s of {session.args.minutes:g} min are left, it takes {least:g}"
            )
            print(f"== {name}: left out: {note['skipped']}", flush=True)
            session.keep(f"parts/{name}", note)
            continue
        limit = min(max(left * share / sum(PARTS[later][1] for later in wanted[number:]), least), left)
        session.until = started + limit
        print(f"== {name}: {limit:.0f} s", flush=True)
        try:
            work(session)
        except OutOfTime as cut:
            note["cut_short"] = str(cut)
            print(f"  cut short: {cut}", flush=True)
        except Exception as error:  # whatever it is, the other parts are worth having
            note["error"] = f"{type(error).__name__}: {one_line(error)}"
            print(f"  failed: {note['error']}", flush=True)
        session.keep(f"parts/{name}", {"seconds": time.monotonic() - started, "limit": limit, **note})


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = argparse.ArgumentParser(prog="gpu.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of class folders")
    parser.add_argument("--minutes", type=float, default=12.0, help="budget of all parts together")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file to write")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"any of {','.join(PARTS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--batch-size", type=int, default=256, help="an eighth of it is measured too")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--photos", type=int, default=3000, help="an epoch has at least so many")
    parser.add_argument("--model", default="resnet18", help="timm name")
    parser.add_argument("--weights", type=Path, help="of the network of configs/fast.yaml; without: not run")
    args = parser.parse_args(arguments)
    args.cores, args.parts = usable_cores(), [part.strip() for part in args.parts.split(",")]
    for part in args.parts:
        if part not in PARTS:
            raise UserError(f"--parts {part}: no such part; give any of {', '.join(PARTS)}")
    sizes = {"train.batch_size": args.batch_size, "data.image_size": args.image_size}
    load_config(None, (), sizes)  # says what is wrong with them
    if args.photos < 1 or args.minutes <= 0:
        raise UserError("--photos and --minutes must be positive")
    return args


def run(arguments: list[str] | None) -> dict[str, Any]:
    """The whole run: content of the results file. Raises UserError."""
    begun, args = time.monotonic(), parse(arguments)
    if args.device == "cpu":
        torch.set_num_threads(1)  # models of rehearsals are so small that two would wait for each other
    device, kept = pick_device(args.device), ("minutes", "parts", "batch_size", "image_size", "model")
    with tempfile.TemporaryDirectory(prefix="flowerfast-gpu-") as scratch:
        sets = find_photos(args.data, args.photos, Path(scratch))
        counts = {data.name: {"photos_per_epoch": len(Photos(data.folder))} for data in sets}
        result = {
            "schema": 1,
            "kind": "gpu",
            "rehearsal": device.type == "cpu",
            "environment": environment(device, ("triton",)),
            "settings": {name: getattr(args, name) for name in kept},
            "sets": {each.name: describe_photos(each.given, each.name) | counts[each.name] for each in sets},
        }
        run_parts(Session(args, sets, result, begun + 60 * args.minutes), args.parts)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print, write: exit code."""
    try:
        result = run(arguments)
    except UserError as error:
        print(f"gpu.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if result["rehearsal"]:
        print("a rehearsal on the CPU: the figures say nothing about a GPU, and are not to be kept")
    failed = any("error" in part for part in result["parts"].values())
    return int(failed or bool(result.get("tests", {}).get("failures")))


if __name__ == "__main__":
    sys.exit(main())
