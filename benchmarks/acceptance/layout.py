"""Is channels_last really used? Every picture-shaped tensor of a training step, and every kernel's name."""

import re
from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Place
from benchmarks.acceptance.training import batches, settings, start
from flowerfast.loaders.batch import Batch
from flowerfast.train import train_step
from flowerfast.trainer import Trainer

_STEPS, _WARM_UP = 3, 3
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


def channels_last(place: Place) -> Outcome:
    """No operation of a step converts a feature map, and on a GPU no kernel does it inside of one."""
    # On a CPU the setting's `auto` is off.
    config = settings(place, **({} if place.cuda else {"train__channels_last": "on"}))
    trainer = start(config, place.torch_device, len(place.manifest("flowers").classes))
    data = batches(place, _WARM_UP + _STEPS)
    for batch in data[:_WARM_UP]:
        train_step(trainer, batch)
    with Layouts() as seen:
        for batch in data[_WARM_UP:]:
            train_step(trainer, batch)
    kernels = kernel_names(trainer, data[_WARM_UP:]) if place.cuda else Counter[str]()
    return verdict(seen, kernels, place.cuda)


def kernel_names(trainer: Trainer, data: list[Batch]) -> "Counter[str]":
    """CUDA kernels of a few training steps, by name: how often each ran."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for batch in data:
            train_step(trainer, batch)
        torch.cuda.synchronize()
    return Counter({event.key: event.count for event in profiled.key_averages()})


def verdict(seen: Layouts, kernels: "Counter[str]", cuda: bool) -> Outcome:
    """The row of what was seen in `_STEPS` steps."""
    ours = sum(count for name, count in kernels.items() if NHWC.search(name))
    converting = Counter({name: n for name, n in kernels.items() if CONVERSION.search(name)})
    strange = seen.changes.total() + converting.total()
    worst = [f"{name[:60]} {count}" for name, count in (seen.changes + converting).most_common(3)]
    detail = f"{seen.maps['last']} feature maps channels_last, {seen.maps['first']} not"
    detail += f"; {ours} NHWC kernels of {kernels.total()}" if cuda else ""
    detail += f"; conversions: {', '.join(worst)}" if worst else ""
    holds = strange == 0 and seen.maps["last"] > 0 and (ours > 0 or not cuda)
    bound = "0 layout conversions per step" + (", some NHWC kernels" if cuda else "")
    unseen = "" if cuda else "CUDA kernels: only the tensors' strides were looked at"
    return Outcome(holds, round(strange / _STEPS, 2), bound, detail, unseen)
