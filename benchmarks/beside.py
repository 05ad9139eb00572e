"""flowerfast beside ultralytics classify and a fastai script: same photos, network, size, batch and epochs.

    python benchmarks/beside.py DATA [--epochs N] [--rounds N] [--python PYTHON] --out FILE

ResNet18 from random weights, which all three have; ultralytics by torchvision's network in a YAML file of its
own. DATA is divided once, and all get the same train/ and val/. PYTHON is one that has the peers too. Rounds
alternate. Augmentation, schedule and normalisation are each one's own; learning rates are not tuned.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.photos.photos import Photos

ROOT = Path(__file__).resolve().parents[1]
BATCH, SIZE, RATE = 32, 224, 0.05
FASTAI = ROOT / "benchmarks" / "peers" / "beside_fastai.py"
NETWORK = """nc: {classes}
scales: {{n: [1.0, 1.0, 1024]}}
backbone:
  - [-1, 1, TorchVision, [512, resnet18, null, True, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""
"""ResNet18 of torchvision as ultralytics reads it: without its last two layers, and without weights."""
_HOURS = 3600.0


def divided(data: Path, place: Path) -> tuple[Path, int, int]:
    """Links to photos in train/ and val/, divided as by a run; how many train, of how many classes."""
    photos = Photos(data)
    halves = photos.split()
    for name, half in zip(("train", "val"), halves, strict=True):
        for row in half.indices.tolist():
            link = place / name / photos.path(row)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((data / photos.path(row)).resolve())
    return place, len(halves[0]), len(photos.classes)


def programs(data: Path, place: Path, epochs: int, classes: int) -> dict[str, list[str]]:
    """What is run of each: its entry or script, and what is typed after its name."""
    network = place / "resnet18-cls.yaml"
    network.write_text(NETWORK.format(classes=classes), encoding="utf-8")
    ours = {"model.name": "resnet18", "model.pretrained": "false", "data.image_size": f"{SIZE}"}
    ours |= {
        "train.epochs": f"{epochs}",
        "train.batch_size": f"{BATCH}",
        "train.lr": f"{RATE}",
        "train.device": "cpu",
    }
    theirs = {
        "data": data,
        "model": network,
        "epochs": epochs,
        "batch": BATCH,
        "imgsz": SIZE,
        "device": "cpu",
    }
    theirs |= {
        "optimizer": "SGD",
        "nbs": BATCH,
        "lr0": RATE,
        "seed": 0,
        "pretrained": False,
        "project": place / "yolo",
    }
    settings = [word for name, value in ours.items() for word in ("--set", f"{name}={value}")]
    return {
        "flowerfast": [
            "flowerfast.__main__:main",
            "train",
            f"{data}",
            "--out",
            f"{place / 'ours'}",
            *settings,
        ],
        "ultralytics": [
            "ultralytics.cfg:entrypoint",
            "classify",
            "train",
            *(f"{k}={v}" for k, v in theirs.items()),
        ],
        "fastai": [f"{FASTAI}", f"{data}", f"{epochs}", f"{BATCH}"],
    }


def run(python: str, words: list[str], place: Path) -> dict[str, Any]:
    """One program: what it says, how it ends, and when its steps were."""
    told = place / "told.json"
    told.unlink(missing_ok=True)
    command = [python, f"{ROOT / 'benchmarks' / 'beside_run.py'}", f"{told}", *words]
    paths = os.pathsep.join(filter(None, (f"{ROOT}", os.environ.get("PYTHONPATH", ""))))
    more = {
        "PYTHONPATH": paths,
        "BESIDE_BEGAN": f"{time.time()}",
        "YOLO_CONFIG_DIR": f"{place}",
        "YOLO_OFFLINE": "1",
    }
    done = subprocess.run(
        command,
        env={**os.environ, **more},
        cwd=place,
        text=True,
        capture_output=True,
        timeout=_HOURS,
        check=False,
    )
    found = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
    said = (done.stdout + done.stderr).replace("\r", "\n")
    return {**found, "exit_code": done.returncode, "said": said, "out": done.stdout}


def accuracy(name: str, place: Path, said: str) -> float:
    """On val/, after the last epoch."""
    if name == "flowerfast":
        summary = json.loads((place / "ours" / "summary.json").read_text(encoding="utf-8"))
        return float(summary["history"][-1]["val_acc"])
    if name == "ultralytics":
        with next((place / "yolo").rglob("results.csv")).open(encoding="utf-8") as file:
            rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
        return float(rows[-1]["metrics/accuracy_top1"])
    found = re.search(r"^accuracy ([\d.]+)$", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"fastai told no accuracy: {said[-500:]}")
    return float(found[1])


def lines_on_a_wrong_path(python: str, words: list[str], data: Path, place: Path) -> dict[str, int]:
    """What a program says where there is no such folder."""
    wrong = [word.replace(f"{data}", "/no/such/folder") for word in words]
    result = run(python, wrong, place)
    lines = [line for line in result["said"].splitlines() if line.strip()]
    return {"lines": len(lines), "exit_code": result["exit_code"]}


def measure(data: Path, python: str, epochs: int, rounds: int) -> dict[str, Any]:
    """All rounds of all programs."""
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="beside-") as folder:
        place, photos, classes = divided(data, Path(folder, "photos"))
        for number in range(rounds):
            scratch = Path(folder, f"round-{number}")
            scratch.mkdir()
            for name, words in programs(place, scratch, epochs, classes).items():
                result = run(python, words, scratch)
                if result["exit_code"] or "seconds" not in result:
                    raise RuntimeError(f"{name} ended with {result['exit_code']}: {result['said'][-1500:]}")
                row = rows.setdefault(name, {"first_step_seconds": [], "images_per_sec": [], "accuracy": []})
                row["first_step_seconds"].append(result["first_step_seconds"])
                seen = min(photos * epochs, BATCH * result["steps"])  # fastai leaves out the last batch
                row["images_per_sec"].append(seen * (1 - 1 / result["steps"]) / result["seconds"])
                row["accuracy"].append(accuracy(name, scratch, result["out"]))
                if number == 0:
                    row["wrong_path"] = lines_on_a_wrong_path(python, words, place, scratch)
                    row["typed"] = " ".join(words[1:]).replace(folder, "...")
                print(
                    name,
                    {key: row[key][-1] for key in ("first_step_seconds", "images_per_sec", "accuracy")},
                    flush=True,
                )
    lines = FASTAI.read_text(encoding="utf-8").splitlines()
    rows["fastai"]["lines_of_code"] = len([line for line in lines if line and not line.startswith('"""')])
    rows["ultralytics"]["lines_of_code"] = 1 + len(NETWORK.splitlines())
    rows["flowerfast"]["lines_of_code"] = 1
    return {"photos": photos, "rows": rows}


def peers(python: str) -> dict[str, str]:
    """Their versions."""
    names = ("ultralytics", "fastai", "torch")
    code = f"from importlib.metadata import version\nprint(*map(version, {names}))"
    words = subprocess.run([python, "-c", code], text=True, capture_output=True, check=True).stdout.split()
    return dict(zip(names, words, strict=True))


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="one that has ultralytics and fastai")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    data = args.data.resolve()
    versions = peers(args.python)
    measured = measure(data, args.python, args.epochs, args.rounds)
    for row in measured["rows"].values():
        row["median"] = {
            key: statistics.median(row[key]) for key in ("first_step_seconds", "images_per_sec", "accuracy")
        }
    result = {
        "kind": "beside",
        "schema": SCHEMA,
        "environment": environment(torch.device("cpu")),
        "data": describe_photos(Photos(data), data.name),
        "settings": {"epochs": args.epochs, "rounds": args.rounds, "batch": BATCH, "size": SIZE},
        "peers": versions,
        **measured,
    }
    write_results(args.out, result)


if __name__ == "__main__":
    main()
