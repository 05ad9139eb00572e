"""What malloc does with the memory of tensors that are no longer needed."""

import ctypes
import os

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory(device: torch.device) -> bool:
    """For a network on a CPU: have the process keep what it frees for what comes next; whether it now does.

    glibc gives large pieces back at once. Each step of a network on a CPU then has the system clear the pages
    of its feature maps anew, which takes a good part of the step; how much memory the process has at most is
    the same. Where the user has set up malloc (MALLOC_..., GLIBC_TUNABLES), and on systems with another one,
    nothing changes.
    """
    if device.type != "cpu":
        return False
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
