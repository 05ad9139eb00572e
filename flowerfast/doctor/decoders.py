"""What decodes and augments on the CPU: libjpeg-turbo, simplejpeg, and the compiled loops."""

import time
from collections.abc import Iterator

from flowerfast.doctor.line import Line, told
from flowerfast.doctor.packages import installed

COMPILE = "flowerfast parity --backend cpu --samples 8"
"""Compiles the loops, waits for them, and says whether their pixels are right."""
_FIRST = "the first run does so beside its work, in a minute or two"


def jpeg_lines() -> Iterator[Line]:
    """Pillow's JPEG library, and simplejpeg's, which is asked for a picture."""
    import numpy as np
    from PIL import features

    turbo = features.version_feature("libjpeg_turbo")
    if turbo is None:
        found = "this Pillow has libjpeg without turbo: slower, and pixels may differ"
        yield Line("libjpeg-turbo", "warn", found, "pip install --force-reinstall pillow")
    else:
        yield Line("libjpeg-turbo", "ok", f"{turbo} (Pillow's)")
    import simplejpeg

    grey = np.full((16, 16, 3), 128, np.uint8)
    apart = int(np.abs(simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(grey)).astype(int) - grey).max())
    if apart > 1:
        raise RuntimeError(f"simplejpeg gives back a grey picture {apart} levels off")
    yield Line("simplejpeg", "ok", installed("simplejpeg") or "of unknown version")


def loop_lines() -> Iterator[Line]:
    """The compiled loops: whether they are there for this machine, or can be kept."""
    from flowerfast.kernels import numba_problem, place

    problem = numba_problem()
    if problem is not None:
        what, mend = told(problem)
        yield Line("compiled loops", "warn", f"{what}: torchvision and Pillow do it, slower", mend)
    elif not place.KEEP:
        found = f"{place.CODE} cannot be written: every run compiles anew"
        yield Line("compiled loops", "warn", found, "export FLOWERFAST_CACHE=FOLDER, one that can be written")
    elif (seconds := load_loops()) is None:
        found = f"not compiled for this machine yet; {_FIRST}"
        yield Line("compiled loops", "warn", found, COMPILE)
    else:
        yield Line("compiled loops", "ok", f"loaded in {seconds:.1f} s from {place.CODE}")


def load_loops() -> float | None:
    """Load the compiled loops: seconds that took; None: they are not all there for this machine."""
    from flowerfast.kernels import place

    if not place.is_compiled():
        return None
    from flowerfast.kernels.ahead import prepare
    from flowerfast.kernels.machine_code import Missing, only_loading

    started = time.perf_counter()
    try:
        with only_loading():
            prepare()
    except Missing:
        return None
    return time.perf_counter() - started
