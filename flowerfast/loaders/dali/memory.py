"""Where DALI's graphs on the CPU keep their batches: in a pool of DALI's own, not in malloc's."""

import os

_THRESHOLD = "1M"
_DECIDED_BY = ("DALI_MALLOC_POOL_THRESHOLD", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")
"""Variables that DALI derives the size from, in its order: set by the user, they stand."""


def keep_batches_in_a_pool() -> None:
    """Have DALI take host memory from 1 MiB on from its pool; call it before the first graph on the CPU.

    Photos differ in size, and so do the buffers of each batch. By default DALI takes those below 32 MiB from
    malloc, and glibc's, whose free pieces are scattered over an arena per thread, then holds ever different
    amounts that nothing uses. DALI's pool joins neighbouring free pieces and gives them out to all threads.
    A fixed mmap threshold of malloc would hold memory down too, but each batch's pages would be fresh ones
    that the kernel must clear, and it would hold for everything in the process.

    DALI reads the variable once, when it first needs host memory; later calls change nothing.
    https://docs.nvidia.com/deeplearning/dali/user-guide/docs/env_vars.html
    """
    if not any(name in os.environ for name in _DECIDED_BY):
        os.environ[_DECIDED_BY[0]] = _THRESHOLD
