"""Every promise of benchmarks/torture, a few cases each; `make torture` tries all."""

from pathlib import Path

import pytest

from benchmarks.torture.__main__ import modules_of
from benchmarks.torture.parts import all_trials
from benchmarks.torture.trial import Trial


@pytest.mark.parametrize("trial", [t for t in all_trials() if t.quick], ids=lambda trial: trial.name)
def test_promise_holds(trial: Trial, tmp_path: Path) -> None:
    tally = trial.run(range(trial.quick), tmp_path)
    assert tally.tried == trial.quick
    assert not tally.failures


@pytest.mark.parametrize(
    ("name", "runs", "runs_not"),
    [
        ("jpeg-mutants", "flowerfast.kernels.jpeg_scan", "flowerfast.training.fit"),
        ("cut packing", "flowerfast.packing.shard_writer", "flowerfast.commands.answers"),
        ("names", "flowerfast.commands.answers", "benchmarks.torture.kills"),
    ],
)
def test_results_stay_while_the_code_that_a_trial_runs_does(name: str, runs: str, runs_not: str) -> None:
    (trial,) = (trial for trial in all_trials() if trial.name == name)
    found = modules_of(trial)
    assert {runs, trial.run.__module__, "flowerfast", "benchmarks.torture.trial"} <= found
    assert runs_not not in found
