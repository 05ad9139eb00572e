"""The reference in place of the GPU's kernels, for tests of what is around them on machines without a GPU."""

import ctypes
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from flowerfast.pixels import gpu
from flowerfast.pixels.gpu import Windows
from flowerfast.pixels.reference import augment
from flowerfast.plans.plan import Plan


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels can be used from now on, and the reference does their work."""
    monkeypatch.setattr(gpu, "kernel_problem", lambda *_: None)
    monkeypatch.setattr("flowerfast.loaders.cached.run_plan", by_reference)
    if find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None:
        monkeypatch.setattr("flowerfast.loaders.dali.graph.run_plan", by_reference)


def by_reference(plan: Plan, windows: Windows, device: torch.device) -> torch.Tensor:
    """Pixels of a plan, uint8 (n, S, S, 3), of what lies at the addresses that the kernels would be given."""
    pixels = np.empty((len(plan), plan.size, plan.size, 3), np.uint8)
    cut = replace(plan, top=np.zeros_like(plan.top), left=np.zeros_like(plan.left))
    for row in range(len(plan)):
        shape = int(plan.height[row]), int(plan.width[row]), 3
        strides = int(windows.pitch[row]), int(windows.step[row]), 1
        reach = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
        before = sum(min(each, 0) for each in reach)  # bytes that come before the first pixel
        length = sum(map(abs, reach)) + 1
        flat = (ctypes.c_uint8 * length).from_address(int(windows.address[row]) + before)
        first = np.frombuffer(flat, np.uint8)[-before:]
        window = np.lib.stride_tricks.as_strided(first, shape, strides)
        augment(window.copy(), cut, row, pixels[row])
    return torch.from_numpy(pixels).to(device)
