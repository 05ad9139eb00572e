"""Damage to the files of runs: whoever reads them says so in one line, or does not depend on it."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture.small import begin, outcome, paint, quiet
from benchmarks.torture.trial import Tally, Trial
from flowerfast.config import DataConfig
from flowerfast.errors import Stopped, UserError
from flowerfast.photos.photos import Photos
from flowerfast.settings import start_config
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.model import build_network
from flowerfast.training.parent import parent_settings, split_photos
from flowerfast.training.report import write_report
from flowerfast.training.run import train
from flowerfast.training.trained import load_run

_SEED = 20_260_102
_STEPS = 6
"""Questions to `stop` after which the unfinished run stops: two batches, their validation, and one batch."""


@dataclass(frozen=True)
class _Runs:
    """A run that has ended, and the same one stopped on the way; both of the same photos."""

    photos: Path
    ended: Path
    stopped: Path


@quiet()
def try_flips(cases: range, folder: Path) -> Tally:
    """Each case damages one file of a copy of a run and asks something of it."""
    runs, tally, place = _make(folder), Tally(), folder / "place"
    answers: dict[tuple[str, str], Any] = {}
    for case in cases:
        rng = np.random.default_rng([_SEED, case])
        name, ask = _QUESTIONS[case % len(_QUESTIONS)]
        kind = "stopped" if name != "report" and rng.integers(2) else "ended"
        source: Path = getattr(runs, kind)
        if (kind, name) not in answers:
            _copy(source, place)
            answers[kind, name] = ask(place, runs)
        _copy(source, place)
        files = sorted(file for file in place.rglob("*") if file.is_file())
        file = files[int(rng.integers(len(files)))]
        how = _damage(file, rng, listed=name == "--from")
        tally.tried += 1
        what = f"{kind} run, {file.relative_to(place)} {how}, {name}"
        try:
            answer = ask(place, runs)
        except UserError as error:
            tally.count("refused")
            if "\n" in str(error):
                tally.fail(case, f"{what}: more than one line")
        except Exception as error:
            tally.fail(case, f"{what}: {type(error).__name__}: {error}")
        else:
            if answer == answers[kind, name]:
                tally.count("as if nothing had happened")
            elif name == "report" and f"{file}: gone" in answer:
                tally.count("said on the page")
            else:
                tally.fail(case, f"{what}: another result")
    return tally


def _make(folder: Path) -> _Runs:
    runs = _Runs(paint(folder / "photos"), folder / "ended", folder / "stopped")
    begin(runs.photos, runs.ended)
    asked = iter(range(_STEPS))
    with suppress(Stopped):
        begin(runs.photos, runs.stopped, stop=lambda: 15 if next(asked, None) is None else None)
    write_report(runs.ended)
    return runs


def _copy(source: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place)


def _damage(file: Path, rng: np.random.Generator, listed: bool) -> str:
    """Change a file in one of the ways of failing disks, copies and people; what was done.

    `listed`: each weights file will be asked for by its name, so that none may be gone.
    """
    content = bytearray(file.read_bytes())
    way = str(rng.choice(["bit", "bytes", "cut", "tail", "page", "gone"], p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05]))
    if way == "gone" and (file.name.startswith("epoch") or (listed and file.parent.name == "checkpoints")):
        way = "cut"  # people may delete those
    if way == "bit":
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    elif way == "bytes":
        for place in rng.integers(len(content), size=int(rng.integers(2, 33))):
            content[place] = int(rng.integers(256))
    elif way == "cut":
        del content[int(rng.integers(len(content))) :]
    elif way == "tail":
        start = int(rng.integers(len(content)))
        content[start:] = bytes(len(content) - start)
    elif way == "page":
        start = int(rng.integers(len(content))) // 512 * 512
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    file.unlink()  # best/ and an epoch share their bytes
    if way != "gone":
        file.write_bytes(content)
    return way


# ------------------------------------------------------------------------------------------ what is asked


def _resume(run: Path, runs: _Runs) -> Any:
    train(out=run, resume=True)
    return outcome(run)


def _evaluate(run: Path, runs: _Runs) -> Any:
    result = evaluate(
        run, runs.photos, half="val", device="cpu", options=DataConfig(workers=1, backend="cpu")
    )
    return {key: value for key, value in result.items() if key != "seconds"}


def _predict(run: Path, runs: _Runs) -> Any:
    return [answer.top for answer in load_run(run, "cpu").predict(sorted(runs.photos.rglob("*.jpg"))[:3])]


def _report(run: Path, runs: _Runs) -> Any:
    return write_report(run).read_text(encoding="utf-8")


def _inherit(run: Path, runs: _Runs) -> Any:
    """What a run that begins with another, or with one of its files, begins with."""
    files = [run, *sorted((run / "checkpoints").iterdir())]
    begun = []
    for place in files:
        config, changes = parent_settings(place, None)
        settings = start_config(config, changes)
        photos = Photos(runs.photos)
        halves = split_photos(settings, None, photos)
        weights = build_network(settings.model, photos.classes, 32, 0.875).state_dict()
        begun.append(
            (
                settings,
                [half.indices.tolist() for half in halves[:2]],
                {key: tensor.numpy().tobytes() for key, tensor in weights.items()},
            )
        )
    return begun


_QUESTIONS: list[tuple[str, Callable[[Path, _Runs], Any]]] = [
    ("resume", _resume),
    ("evaluate", _evaluate),
    ("predict", _predict),
    ("report", _report),
    ("--from", _inherit),
]

TRIALS = [
    Trial(
        "flips",
        "A damaged file of a run is refused in one line, or changes nothing of what is asked.",
        "damaged files",
        try_flips,
        full=1_500,
        quick=15,
        chunk=750,
    )
]
