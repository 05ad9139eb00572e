"""What runs leave: compared bit by bit, or changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowerfast.training.run_folder import RunFolder

STEPS = 4  # per epoch; train_tiny has two


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert found["rows"] == expected["rows"]
    for name in found.keys() - {"rows"}:
        assert found[name].keys() == expected[name].keys()
        assert all(torch.equal(found[name][key], expected[name][key]) for key in found[name])


def same(found: Any, expected: Any) -> bool:
    """Whether two nested states hold the same tensors bit by bit."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in expected)
    return torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


def change_last(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what was saved."""
    folder = RunFolder(run)
    state = folder.load_last()
    change(state)
    folder.save_last(state)
