"""Fixtures of the plan tests."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def torch_seed() -> Iterator[None]:
    """torchvision draws from torch's global generator: fix it, and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
