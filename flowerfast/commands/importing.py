"""What commands import late."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """For imports alone: torch and timm make objects by the hundred thousand, all of which stay.

    Python would go through them again and again to find some that do not.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
