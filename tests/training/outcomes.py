"""What two runs leave, compared bit by bit."""

from typing import Any

import torch

STEPS = 4  # per epoch; train_tiny has two


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert found["rows"] == expected["rows"]
    for name in found.keys() - {"rows"}:
        assert found[name].keys() == expected[name].keys()
        assert all(torch.equal(found[name][key], expected[name][key]) for key in found[name])
