"""Names for stretches of training, for profilers: torch's own, and NVTX for Nsight Systems.

Off they cost a look at a flag. On, torch's profiler shows them as annotations, and on a CUDA machine Nsight
Systems as NVTX ranges (DALI names its own operators there).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_OFF: AbstractContextManager[None] = nullcontext()
_on = False


def name_stages(on: bool = True) -> None:
    """Name stages from now on, in this process; or no longer."""
    global _on
    _on = on


def stage(name: str) -> AbstractContextManager[None]:
    """A stretch of work with a name."""
    return _named(name) if _on else _OFF


@contextmanager
def _named(name: str) -> Iterator[None]:
    nvtx = torch.cuda.is_initialized()
    if nvtx:
        torch.cuda.nvtx.range_push(name)
    try:
        with torch.profiler.record_function(name):
            yield
    finally:
        if nvtx:
            torch.cuda.nvtx.range_pop()
