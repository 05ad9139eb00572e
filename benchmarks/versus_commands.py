"""Whole commands of two builds in turns, each in a process of its own, for `versus.py`."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flowerfast.bench.result import middle_and_spread
from flowerfast.errors import UserError

HIDE_GPU = {"CUDA_VISIBLE_DEVICES": ""}
_TINY = ("model.name=test_resnet", "model.pretrained=false", "train.epochs=1")
_SMALL, _SAVED = (*_TINY, "data.image_size=64"), ("model.name=resnet18", *_TINY[1:], "data.image_size=64")
_EMPTY_ROUNDS = 2
_UNTIL_STEP = """
import os, runpy, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook

def end(*_):
    print(time.time() - float(os.environ["BEGUN"]), flush=True)
    os._exit(0)

register_optimizer_step_post_hook(end)
sys.argv[0] = "flowerfast"
runpy.run_module("flowerfast", run_name="__main__")
"""
"""Runs a command until a training step is over, and prints the seconds since BEGUN."""
Figures = dict[str, float]


class _Command(NamedTuple):
    """What both builds do; of its `words` RUN stands for a run of the build's own.

    Attributes:
        until_step: no further than the first training step.
        empty: with an empty cache folder each time.
    """

    words: Sequence[str]
    until_step: bool = False
    empty: bool = False


def commands(roots: dict[str, Path], few: Path, data: Path, rounds: int, scratch: Path) -> dict[str, Any]:
    """Rows by command; of each build median, spread and all of its seconds, and the ratios.

    Args:
        roots: checkouts of the builds, the old one first.
        few, data: a few photos, and all.
        scratch: a folder for what they write.
    """
    out = scratch / "run"
    train = ("train", str(few), "--out", str(out))
    files = sorted(map(str, data.glob("*/*")))
    step = (*train, *_set(_SMALL))
    named = {
        "--help": _Command(("--help",)),
        "train, one short epoch": _Command((*train, *_set(_SMALL))),
        "train, a save of resnet18 each step": _Command(
            (*train, *_set((*_SAVED, "checkpoints.every_seconds=0")))
        ),
        "train, to the end of the first step": _Command(step, until_step=True),
        "train, to the end of the first step, empty cache": _Command(step, until_step=True, empty=True),
        "predict, one photo": _Command(("predict", "RUN", files[0])),
        f"predict, {len(files)} photos": _Command(("predict", "RUN", *files)),
        "evaluate, a few photos": _Command(("evaluate", "RUN", str(few))),
        f"evaluate, {len(files)} photos": _Command(("evaluate", "RUN", str(data))),
    }
    runs = {build: scratch / f"run of the {build} build" for build in roots}
    for build, root in roots.items():
        run(root, ("train", str(few), "--out", str(runs[build]), *_set(_SMALL)))
    rows = {}
    for name, command in named.items():
        taken: dict[str, list[Figures]] = {build: [] for build in roots}
        for number in range((_EMPTY_ROUNDS if command.empty else rounds) + 1):
            for build, root in roots.items():
                shutil.rmtree(out, ignore_errors=True)
                words = [str(runs[build]) if word == "RUN" else word for word in command.words]
                figures = _once(root, words, command) | _spent(out)
                if number:  # the first is a warm-up
                    taken[build].append(figures)
        rows[name] = _row(taken)
        print(name, rows[name]["ratio"], flush=True)
    for kind, less in (("predict", "one photo"), ("evaluate", "a few photos")):
        more = f"{kind}, {len(files)} photos"
        rows[f"{more}, less {less}"] = _row(
            {build: _beyond(rows[more][build], rows[f"{kind}, {less}"][build]) for build in roots}
        )
    return rows


def run(root: Path, words: Sequence[str], env: Mapping[str, str] | None = None) -> Figures:
    """Seconds and CPU seconds of a command of a build. Raises UserError when it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _said(["-m", "flowerfast", *words], root, env or {})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu}


def _once(root: Path, words: Sequence[str], command: _Command) -> Figures:
    with tempfile.TemporaryDirectory(prefix="versus-", ignore_cleanup_errors=True) as cache:
        env = {"FLOWERFAST_CACHE": cache, "NUMBA_CACHE_DIR": f"{cache}/kernels"} if command.empty else {}
        if not command.until_step:
            return run(root, words, env)
        said = _said(["-c", _UNTIL_STEP, *words], root, {**env, "BEGUN": str(time.time())})
        return {"seconds": float(said.splitlines()[-1])}


def _said(words: Sequence[str], root: Path, env: Mapping[str, str]) -> str:
    process = subprocess.Popen(
        [sys.executable, "-P", *words],
        env={**os.environ, **HIDE_GPU, "PYTHONPATH": str(root), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, complaint = process.communicate()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a compiler that it has left at work
    if process.returncode:
        raise UserError(f"{' '.join(words)[:200]}: exit code {process.returncode}: {complaint.strip()}")
    return said


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _spent(out: Path) -> Figures:
    """What the summary of a run says of starting up and of waiting for files."""
    if not (out / "summary.json").is_file():
        return {}
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {key: summary[key] for key in ("startup_seconds", "write_seconds") if key in summary}


def _beyond(more: dict[str, Any], less: dict[str, Any]) -> list[Figures]:
    """What a command takes in each round beyond the same one on less."""
    return [
        {key: value - less[key]["median"] for key, value in zip(more, figures, strict=True)}
        for figures in zip(*(row["rounds"] for row in more.values()), strict=True)
    ]


def _row(taken: dict[str, list[Figures]]) -> dict[str, Any]:
    rows: dict[str, Any] = {build: _middles(figures) for build, figures in taken.items()}
    old, new = rows.values()
    ratio = {key: new[key]["median"] / old[key]["median"] for key in new if key in old}
    return {**rows, "ratio": ratio}


def _middles(figures: Sequence[Figures]) -> dict[str, Any]:
    rows = {}
    for key in figures[0]:
        values = [each[key] for each in figures]
        middle, spread = middle_and_spread(values)
        rows[key] = {"median": middle, "spread": spread, "rounds": values}
    return rows
