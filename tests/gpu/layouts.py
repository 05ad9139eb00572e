"""Is channels_last really used? Every picture-shaped tensor of a training step, and every kernel's name."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NHWC = re.compile(r"nhwc|channels_?last", re.IGNORECASE)
"""In the name of a kernel that works on channels_last."""
CONVERSION = re.compile(r"nchwtonhwc|nhwctonchw|transform_?tensor|converttensor", re.IGNORECASE)
"""In the name of a kernel that turns one layout into the other: cuDNN's, where it has none for ours."""


class Layouts(TorchDispatchMode):
    """Counts feature maps by layout, forwards and backwards, and operations that change it.

    Attributes:
        maps: tensors (n, c, h, w) with c > 1 and h·w > 1, by `last` or `first`; others lie either way.
        changes: operations that must convert, by name: results lie otherwise than all that they were made of,
            or a convolution is given something channels first, which it converts inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and look at what went in and came out."""
        result = func(*args, **(kwargs or {}))
        before = {layout(x) for x in tree_leaves((args, kwargs))} - {None}
        after = [found for x in tree_leaves(result) if (found := layout(x)) is not None]
        self.maps.update(after)
        if (before and set(after) - before) or ("convolution" in str(func) and "first" in before):
            self.changes[str(func)] += 1
        return result


def layout(x: object) -> str | None:
    """`last` or `first` of a tensor in which that makes a difference; None of anything else."""
    if not isinstance(x, torch.Tensor) or x.dim() != 4 or x.shape[1] == 1 or x.shape[2] * x.shape[3] == 1:
        return None
    if 0 in x.stride():
        return None  # one value for many places, as the gradient of a mean: it lies in no order
    return "last" if x.is_contiguous(memory_format=torch.channels_last) else "first"


def wrong_kernels(kernels: Mapping[str, int]) -> str:
    """What CUDA kernels of a step, counted by name, say against channels_last; empty: nothing."""
    converting = [name for name in kernels if CONVERSION.search(name)]
    if converting:
        return f"a kernel converts layouts: {converting[0][:80]}"
    return "" if any(NHWC.search(name) for name in kernels) else f"none of {len(kernels)} kernels is NHWC"
