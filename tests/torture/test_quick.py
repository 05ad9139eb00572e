"""Every promise of benchmarks/torture, a few cases each; `make torture` tries all."""

from pathlib import Path

import pytest

from benchmarks.torture.parts import all_trials
from benchmarks.torture.trial import Trial


@pytest.mark.parametrize("trial", [t for t in all_trials() if t.quick], ids=lambda trial: trial.name)
def test_promise_holds(trial: Trial, tmp_path: Path) -> None:
    tally = trial.run(range(trial.quick), tmp_path)
    assert tally.tried == trial.quick
    assert not tally.failures
