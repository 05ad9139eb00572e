"""One of four ranks is killed at any moment, and the run goes on with two and with one."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.torture import crew
from benchmarks.torture.small import SHORT, history, options, paint
from benchmarks.torture.trial import Tally, Trial
from flowerfast.commands import cli
from flowerfast.ranks import meeting
from flowerfast.training import run as run_module

_SETTINGS = {**SHORT, "model.name": "test_convnext", "train.lr": 0.01, "train.epochs": 3}
"""Of a network without batch normalisation, whose figures hang on no number of ranks but for rounding."""
_RANKS = 4
_ROUNDING = 1e-4
_PATIENCE = 60.0  # seconds within which all have ended once one was killed


def _command(*arguments: str) -> tuple[int, float]:
    """A command on this rank: its exit code, and when it ended (time.time)."""
    meeting.STEP_SECONDS, meeting.NAMING_SECONDS = 4.0, 8.0  # a full trial is to end today
    run_module.draw = lambda *_: None
    sys.argv = ["flowerfast", *arguments]
    return cli.run(), time.time()


def _train(count: int, folder: Path, *arguments: str) -> crew.Crew:
    return crew.start(count, folder, _command, "train", *arguments)


def _begin(photos: Path, folder: Path, out: str) -> crew.Crew:
    return _train(_RANKS, folder, str(photos), "--out", out, *options(_SETTINGS))


def _differs(run: Path, expected: list[dict[str, float]]) -> str | None:
    """What is other than expected in the metrics of a run."""
    rows = history(run)
    if len(rows) != len(expected):
        return f"{len(rows)} epochs"
    for row, other in zip(rows, expected, strict=True):
        for key, value in other.items():
            if abs(row[key] - value) > _ROUNDING * max(1, abs(value)):
                return f"epoch {row['epoch']}: {key} is {row[key]}, not {value}"
    return None


def _wait_for_words(begun: crew.Crew) -> float:
    """Until the first rank has said what it trains on, and so all have met: when that was."""
    while "data: " not in begun.said(0) and begun.processes[0].exitcode is None:
        time.sleep(0.01)
    return time.monotonic()


def rank_kills(cases: range, folder: Path) -> Tally:
    """A rank is killed."""
    tally = Tally(len(cases))
    photos = paint(folder / "photos", 12, (56, 48), classes=3)
    _begin(photos, folder, "warm").results()
    whole = _begin(photos, folder, "whole")
    since = _wait_for_words(whole)
    if [code for code, _ in whole.results()] != [0] * _RANKS:
        tally.fail(cases.start, f"undisturbed: {whole.said(0)[-300:]}")
        return tally
    seconds, expected = time.monotonic() - since, history(folder / "whole")
    for case in cases:
        rng = np.random.default_rng([17, case])
        out, victim = f"run-{case}", int(rng.integers(_RANKS))
        struck = _begin(photos, folder, out)
        _wait_for_words(struck)
        time.sleep(rng.random() * seconds)
        process = struck.processes[victim]
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        killed = time.time()
        ended = struck.results(_PATIENCE)
        others = [each for rank, each in enumerate(ended) if rank != victim]
        if None in others:
            tally.fail(case, f"rank {victim} was killed, and others did not end: {struck.said(0)[-300:]}")
        else:
            tally.count("most seconds to the end", max(0.0, *(when - killed for _, when in others)))
        failed = [rank for rank, each in enumerate(ended) if each is not None and each[0]]
        silent = [rank for rank in failed if f"rank {victim} has ended" not in struck.said(rank)]
        tally.count("named", len(failed) > len(silent))
        tally.count("ended before", all(each is not None and each[0] == 0 for each in others))
        if silent and ended[victim] is None:
            said = struck.said(silent[0])[-300:]
            tally.fail(case, f"rank {victim} is not named by rank {silent[0]}: {said}")
        for count in (2, 1):
            again, given = f"{out}-{count}", ("--resume",)
            if (folder / out / "checkpoints/last.pt").exists():
                shutil.copytree(folder / out, folder / again)
            else:
                given = (str(photos), *options(_SETTINGS))
            resumed = _train(count, folder, *given, "--out", again)
            codes = [each and each[0] for each in resumed.results()]
            if codes != [0] * count:
                tally.fail(case, f"resumed by {count}: exit codes {codes}: {resumed.said(0)[-300:]}")
            elif (wrong := _differs(folder / again, expected)) is not None:
                tally.fail(case, f"resumed by {count}: {wrong}")
            shutil.rmtree(folder / again, ignore_errors=True)
        shutil.rmtree(folder / out, ignore_errors=True)
        for left in folder.glob("crew-*"):
            shutil.rmtree(left)
    return tally


RANK_KILLS = Trial(
    "rank-kills",
    "When one of four ranks is killed at any moment, the others end, and each that fails names it; two, "
    "or one, go on from the last save to the metrics of the undisturbed run, up to rounding.",
    "ranks killed",
    rank_kills,
    full=20,
    quick=0,  # a case takes longer than its part of the tests
    chunk=5,
)
