"""Does anything read what the device computes? Seen on a CPU, where reading costs nothing."""

from collections import Counter
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_OPERATIONS = (
    "_local_scalar_dense",  # item, float, int, bool
    "nonzero",
    "masked_select",
    "bincount",
    "_unique2",
    "unique_consecutive",
    "equal",
    "repeat_interleave",
)
"""Of which the host must read a number before it knows what comes out."""
_BY_MASK = ("index", "index_put", "index_put_", "_index_put_impl_")
_CALLS = (torch.Tensor.tolist, torch.Tensor.cpu)
"""Which do nothing with a tensor of the host's, so that no operation shows them."""


class Reads:
    """Counts, as a context, what on CUDA would wait for the device, in forward and backward passes.

    Attributes:
        found: how often each was seen: operations that must read, indexing by a mask, copies to another
            device, `tolist` and `cpu`.
    """

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._modes = ExitStack()

    def __enter__(self) -> Self:
        self._modes.enter_context(_Operations(self.found))
        self._modes.enter_context(_Calls(self.found))
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._modes.close()


class _Operations(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, given = func.overloadpacket.__name__, kwargs or {}
        tensors = [x for x in tree_leaves((args, given)) if isinstance(x, torch.Tensor)]
        by_mask = name in _BY_MASK and any(x.dtype in (torch.bool, torch.uint8) for x in tensors[1:])
        places = {x.device for x in tensors} | ({given["device"]} if given.get("device") else set())
        if name in _OPERATIONS or by_mask or (tensors and len(places) > 1):
            self._found[name] += 1
        return func(*args, **given)


class _Calls(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CALLS:
            self._found[func.__name__] += 1
        return func(*args, **(kwargs or {}))
