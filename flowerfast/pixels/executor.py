"""What makes pixels of plans on the calling thread, and which of the two ways."""

from typing import Protocol

import numpy as np

from flowerfast.errors import UserError
from flowerfast.kernels import End, numba_problem
from flowerfast.photos.photos import Photos
from flowerfast.pixels.source import Source
from flowerfast.plans.plan import Plan


class Executor(Protocol):
    """Fills rows of a batch with the pixels of a plan; threads may share it.

    Attributes:
        source: gives it the photos.
    """

    source: Source

    def fill(self, plan: Plan, rows: np.ndarray, span: range, until: End = End.all) -> dict[int, str]:
        """Pixels of some samples into `rows`, uint8 (n, S, S, 3); why rows failed.

        The plan is one that `source.prepare` has made. With an earlier end the rows hold nothing of use, and
        a photo that comes decoded costs no `read`.
        """
        ...


def open_executor(kernels: str, photos: Photos, source: Source) -> tuple[Executor, list[str]]:
    """Executor for `data.kernels`, and what the user should know of it, one line each.

    Raises UserError when numba is asked for and is not there.
    """
    from flowerfast.pixels.reference import PlainExecutor

    if kernels == "torchvision":
        return PlainExecutor(photos, source), []
    problem = numba_problem()
    if problem is not None:
        if kernels == "numba":
            raise UserError(f"data.kernels=numba: {problem}, or use auto")
        slower = "torchvision and Pillow make the photos ready, at half the speed or less"
        return PlainExecutor(photos, source), [f"{slower}: {problem}"]
    from flowerfast.pixels.compiled import CompiledExecutor

    return CompiledExecutor(photos, source), compiling_notes(kernels)


def compiling_notes(kernels: str) -> list[str]:
    """What the user should know before `data.kernels` are first used on this machine, one line each."""
    if kernels == "torchvision" or numba_problem() is not None:
        return []
    from flowerfast.kernels.compiling import is_compiled  # numba takes half a second to import

    return (
        []
        if is_compiled()
        else ["compiling the CPU loops for this machine, this once: it may take a minute or two"]
    )
