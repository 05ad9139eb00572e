"""Fixtures of the DALI tests."""

from typing import Any

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def dali(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that make batches with DALI, on the CPU and on CUDA, for `open_loader`."""
    pytest.importorskip("nvidia.dali")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return {"backend": "dali-cpu" if request.param == "cpu" else "dali", "device": request.param}
