"""What makes pixels of plans on the calling thread, and which of the two ways at the moment."""

from importlib.util import find_spec
from typing import Protocol

import numpy as np

from flowerfast.errors import UserError
from flowerfast.kernels import End, numba_problem, place
from flowerfast.kernels.ready import COMPILING, LOOPS, MEANWHILE, loops_usable
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


class Executors:
    """The executor of the moment for one source: whoever asks for each batch changes over between two.

    Args:
        kernels: `data.kernels`. auto: the plain executor until the compiled loops are there, which
            `kernels.ready` sees to; numba: compiled loops from the first batch on.
        photos: the set that plans speak of.
        source: gives the photos.

    Raises UserError when numba is asked for and is not there.
    """

    def __init__(self, kernels: str, photos: Photos, source: Source) -> None:
        from flowerfast.pixels.reference import PlainExecutor

        self._photos, self._source, self._may_change = photos, source, kernels != "torchvision"
        self._executor: Executor = PlainExecutor(photos, source)
        if kernels == "numba":
            problem = numba_problem()
            if problem is not None:
                raise UserError(f"data.kernels=numba: {problem}, or use auto")
            LOOPS.demand()

    @property
    def now(self) -> Executor:
        """The executor for a batch that begins now."""
        if self._may_change and loops_usable():
            from flowerfast.pixels.compiled import CompiledExecutor

            self._executor, self._may_change = CompiledExecutor(self._photos, self._source), False
        return self._executor


def compiling_notes(kernels: str, waited: bool = True) -> list[str]:
    """What the user should know before `data.kernels` are first used on this machine, one line each.

    `waited`: the compiled loops are waited for, though the setting is auto.
    """
    if kernels == "torchvision" or place.is_compiled():
        return []
    if kernels == "auto" and place.KEEP and not waited:
        return [MEANWHILE] if find_spec("numba") is not None else []  # to import it takes half a second
    return [COMPILING] if numba_problem() is None else []
