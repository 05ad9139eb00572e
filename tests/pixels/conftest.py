"""Fixtures of the executor tests."""

from collections.abc import Callable

import numpy as np
import pytest

from flowerfast.kernels import End
from flowerfast.pixels.executor import Executor
from flowerfast.plans.plan import Plan

Executed = tuple[np.ndarray, dict[int, str]]


@pytest.fixture(scope="session")
def execute() -> Callable[..., Executed]:
    """Function (executor, plan, until=End.all) → (rows, why some failed), in two spans; rows begin as 77."""

    def run(executor: Executor, plan: Plan, until: End = End.all) -> Executed:
        rows = np.full((len(plan), plan.size, plan.size, 3), 77, np.uint8)
        prepared, half = executor.source.prepare(plan), len(plan) // 2
        failed = executor.fill(prepared, rows, range(half), until)
        return rows, failed | executor.fill(prepared, rows, range(half, len(plan)), until)

    return run
