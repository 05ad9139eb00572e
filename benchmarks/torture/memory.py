"""How much memory a trial takes beyond what its process had taken before."""

import ctypes
import re
from contextlib import suppress
from pathlib import Path


class Growth:
    """Growth of resident memory from now on, whatever the process, or the one that started it, took earlier.

    The kernel's own peak is of a process's whole life, and a process that is started inherits the peak of
    the one that starts it: neither says what a trial took.
    """

    def __init__(self) -> None:
        with suppress(AttributeError):  # musl
            ctypes.CDLL(None).malloc_trim(0)  # what malloc keeps for later would hide what is taken
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
        self._before = _peak()

    def most(self) -> int:
        """Bytes by which the peak has grown."""
        return _peak() - self._before


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024
