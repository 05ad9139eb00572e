"""Fixtures of the tests that run whole benches."""

from collections.abc import Iterator

import pytest

from flowerfast.bench import suites
from flowerfast.bench.measure import Pace
from flowerfast.bench.stages import one_thread


@pytest.fixture
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Figures need not be good; torch on one thread, since two wait for each other on a busy machine."""
    for pace in ("QUICK", "FULL"):
        monkeypatch.setattr(suites, pace, Pace(rounds=5, seconds=0.03))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with one_thread():
        yield
