"""Whether DALI can be used here."""

import sys

import pytest
import torch

from flowerfast.loaders.dali import probe

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_problem_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")
    assert probe.dali_problem(CPU) is None
    monkeypatch.setattr(probe, "_installed", lambda: False)
    assert 'pip install "flowerfast[dali]", or use data.backend=cpu' in str(probe.dali_problem(CPU))
    monkeypatch.setattr(probe, "_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "use data.backend=dali-cpu or cpu" in str(probe.dali_problem(CUDA))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux only; use data.backend=cpu" in str(probe.dali_problem(CPU))
