"""What each setting of a recipe brings: training runs on your photos, one JSON.

    python benchmarks/recipes.py DATA RECIPE [--weights FILE --model NAME] [--seeds N] [--ablate] [--paper]
                                 [--uneven N | --whole] [--out benchmarks/results/recipe-NAME.json]

RECIPE is a config: cpu, or a file. It is trained as it is, and with --ablate also with one setting at a time
put back to its default; with --paper the first epochs of configs/paper.yaml stand beside it, at --paper-lr.
A third of the photos lies apart in test/: no run is chosen by them, and they are asked once, at the end of
each run. With --uneven every second class keeps one of N photos that are not in test/, and the recipe is
compared with what train has against that. With --whole none lies apart, as in the experiment that a recipe is
compared with: there is validation alone. Runs take turns. What is known is written down after each run; the
same command goes on.
"""

import argparse
import inspect
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import StrictFloat, StrictInt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.commands.find import check_outputs
from flowerfast.config import Config, DataConfig, known_keys, speaking_of
from flowerfast.documents import DocumentError, conform, read_json, shown
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.files import writing
from flowerfast.philox import generator
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from flowerfast.training.run import train

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.933
"""Accuracy that the paper reports."""
PAPER_EPOCHS = 6
"""Of the paper's 15, before its learning rate drops."""
TEST_SEED = 933
# How photos are turned is for a recipe to say.
_TAKEN = inspect.signature(Photos).parameters.keys() - {"exif"}
WHICH = tuple(f"data.{name}" for name in DataConfig.model_fields if name in _TAKEN)
"""Settings that say which photos there are: the recipe's in all rows."""
_COLUMNS = ("data.path_column", "data.label_column", "data.split_column")
_LINKED = {"data.layout": "split", **dict.fromkeys(_COLUMNS)}
"""How photos that lie apart are opened: in class folders, whatever they were in."""
_NOT_TRIED = (*WHICH, "data.path", "data.cache", "model.", "train.epochs", "train.seed", "eval.augmented")
"""Settings that say on what and how long, not how."""
AGAINST_UNEVEN = ("train.sampling", "train.class_weights")


@dataclass(frozen=True)
class _Run:
    """What is read of a run that is known."""

    seed: StrictInt
    val_acc: StrictFloat


@dataclass(frozen=True)
class _Row:
    settings: dict[str, Any]
    runs: list[_Run]


def set_apart(photos: Photos, folder: Path, uneven: int = 1) -> Path:
    """A folder of links: a third of each class in test/, the rest in train/; of every second 1 / uneven.

    Raises UserError where photos are no files of their own, have several labels, or one that names no folder;
    WriteFailed.
    """
    if photos.table.shards is not None or photos.multilabel:
        what = "have several labels" if photos.multilabel else "are no files of their own"
        raise UserError(f"{photos.source}: photos {what}, so that none can lie apart; give --whole")
    paths = [photos.root / path for path in photos.table.paths()]
    named = {(label, path.name) for label, path in zip(photos.table.label.tolist(), paths, strict=True)}
    for label, name in enumerate(photos.classes):
        if "/" in name or name.startswith("."):
            raise UserError(f"{photos.source}: class {shown(name)} is no name of a folder; give --whole")
        rows = photos.indices[photos.table.label[photos.indices] == label]
        mixed = rows[generator("split", TEST_SEED, label).permutation(len(rows))]
        test, rest = np.split(mixed, [len(rows) // 3])
        kept = rest[: -(-len(rest) // uneven)] if label % 2 else rest
        for half, some in (("test", test), ("train", kept)):
            for row in some.tolist():
                number = "" if len(named) == len(paths) else f"{row:06d}-"  # for some are named alike
                link = folder / half / name / f"{number}{paths[row].name}"
                with writing(link):
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(paths[row].resolve())
    return folder


def changes(recipe: Config) -> dict[str, dict[str, Any]]:
    """By name, the settings that put one of the recipe back to its default; augmentation goes as a whole."""
    mine, plain = recipe.model_dump(mode="json"), Config().model_dump(mode="json")
    found: dict[str, dict[str, Any]] = {}
    for key in known_keys():
        section, _, name = key.partition(".")
        if key.startswith(_NOT_TRIED) or mine[section][name] == plain[section][name]:
            continue
        group = "augment" if section == "augment" else key
        found.setdefault(group, {})[key] = plain[section][name]
    return {f"without {group}={_said(recipe, group)}": back for group, back in found.items()}


def _said(recipe: Config, group: str) -> Any:
    section, _, name = group.partition(".")
    return recipe.model_dump(mode="json")[section][name] if name else "the recipe's"


def once(folder: Path, config: str, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One run: its scores, and the seconds from its start until a validation reached GOAL."""
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="recipe-") as out:
        result = train(
            folder,
            out=Path(out, "run"),
            config=config,
            settings={**settings, "train.seed": seed, "checkpoints.keep": 1},
        )
    summary = result.summary
    return {
        "seed": seed,
        "val_acc": summary["best_val_acc"],
        "best_epoch": summary["best_epoch"],
        "val_macro_f1": summary["macro_f1"],
        "test_acc": summary["test_acc"],
        "test_macro_f1": summary["test_macro_f1"],
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "seconds_to_goal": seconds_to_goal(summary),
        "history": [
            [row["val_loss"], row["val_acc"], row["train_loss"], row["seconds"]] for row in summary["history"]
        ],
    }


def seconds_to_goal(summary: Mapping[str, Any]) -> float | None:
    """Seconds from the start of a run until a validation reached GOAL; None: none did."""
    spent = summary["startup_seconds"]
    for row in summary["history"]:
        spent += row["seconds"]
        if row["val_acc"] >= GOAL:
            return float(spent)
    return None


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All runs that are not known yet. Raises UserError, RunFailed, WriteFailed."""
    check_outputs({"out": args.out}, data=args.data)
    recipe = load_config(args.recipe)
    model = {} if args.model is None else {"model.name": args.model}
    if args.weights is not None:
        model |= {"model.weights": str(args.weights.resolve())}
    tried: dict[str, tuple[str, dict[str, Any]]] = {"the recipe": (args.recipe, {})}
    if args.paper:
        first = {"train.lr": args.paper_lr, "train.epochs": PAPER_EPOCHS, "eval.augmented": False}
        with speaking_of({"train.lr": "--paper-lr"}):
            load_config("paper", (), first)
        tried["paper's recipe"] = ("paper", first)
    if args.uneven > 1:
        tried |= {f"with {key}=balanced": (args.recipe, {key: "balanced"}) for key in AGAINST_UNEVEN}
    if args.ablate:
        tried |= {name: (args.recipe, back) for name, back in changes(recipe).items()}
    photos = Photos.open(args.data, recipe.data)
    alike = {key: getattr(recipe.data, key.removeprefix("data.")) for key in WHICH}
    alike |= {} if args.whole else _LINKED
    about = {
        "schema": SCHEMA,
        "kind": "recipe",
        "recipe": recipe.model_dump(mode="json"),
        "model": {key: Path(str(value)).name for key, value in model.items()},
        "goal": GOAL,
        "uneven": args.uneven,
        **({"whole": True} if args.whole else {}),
        "data": describe_photos(photos, args.data.name),
    }
    runs = _known(args.out, about, tried)
    with tempfile.TemporaryDirectory(prefix="recipe-") as scratch:
        folder = args.data if args.whole else set_apart(photos, Path(scratch), args.uneven)
        for seed in range(args.seeds):
            for name, (config, settings) in tried.items():
                row = runs.setdefault(name, {"settings": settings, "runs": []})
                if any(run["seed"] == seed for run in row["runs"]):
                    continue
                row["runs"].append(once(folder, config, {**model, **alike, **settings}, seed))
                last = row["runs"][-1]
                print(f"{name}, seed {seed}: {last['val_acc']:.1%}, {last['seconds']:.0f} s", flush=True)
                write_results(
                    args.out, {**about, "environment": environment(torch.device("cpu")), "runs": runs}
                )
    for name, row in runs.items():
        accuracies = np.array([run["val_acc"] for run in row["runs"]])
        print(f"{name}: {accuracies.mean():.2%} ± {accuracies.std():.2%}")
    return runs


def _known(
    out: Path, about: Mapping[str, Any], tried: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """Runs of an earlier start of the same measurement, also of what is not tried now."""
    if not out.is_file():
        return {}
    try:
        stored = conform(dict[str, Any], read_json(out))
        runs: dict[str, Any] = stored.pop("runs", {})
        conform(dict[str, _Row], runs)
    except (OSError, DocumentError) as error:
        raise UserError(f"{out}: no results file ({one_line(error)}); choose another --out") from None
    stored.pop("environment", None)
    if stored != about or any(runs[name]["settings"] != tried[name][1] for name in tried if name in runs):
        raise UserError(f"{out}: of another measurement; choose another --out")
    return runs


def main() -> int:
    """Exit code 1: a run failed; 2: something cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photos, or a table")
    parser.add_argument("recipe", help="config: a shipped one or a file")
    parser.add_argument("--model", help="instead of the recipe's")
    parser.add_argument("--weights", type=Path, help="file that runs begin with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablate", action="store_true", help="each setting put back, too")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--uneven", type=int, default=1, help="photos of a common class for a rare one")
    kinds.add_argument("--whole", action="store_true", help="no photos apart")
    parser.add_argument("--paper", action="store_true", help="the paper's recipe beside it")
    parser.add_argument("--paper-lr", type=float, default=0.005, help="for which these weights want it")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "recipe.json")
    args = parser.parse_args()
    if min(args.seeds, args.uneven) < 1:
        parser.error("--seeds and --uneven must be at least 1")
    try:
        measure(args)
    except (UserError, RunFailed) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except WriteFailed as error:
        print(error.line("run the same command again"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
