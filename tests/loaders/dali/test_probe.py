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
    assert str(probe.dali_problem(CPU)).endswith('not installed; pip install "flowerfast[dali]"')
    monkeypatch.setattr(probe, "_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(probe.dali_problem(CUDA)).endswith("needs a CUDA GPU, and torch finds none")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert str(probe.dali_problem(CPU)).endswith("Linux only")
