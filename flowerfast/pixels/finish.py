"""A `Finish` in the numbers that loops and tensors take, and the loops on pictures in host memory."""

import numpy as np

from flowerfast.kernels.operations import Operation
from flowerfast.plans.finish import Finish

_FIXED = 65536.0
_WEIGHTS = 1 << 14


def hue_shift(finish: Finish) -> np.ndarray:
    """By how many 1/256 of the circle hues are turned, int64 (n,), 0 to 255; -1: not at all."""
    shift = (finish.hue.astype(np.float64) * 255).astype(np.int64) & 255
    return np.where(finish.hue != 0, shift, -1)


def amounts(finish: Finish) -> np.ndarray:
    """Factor, bits or level of each operation: float64 (n, K)."""
    magnitude, operation = finish.magnitude.astype(np.float64), finish.operation
    enhances = (operation >= Operation.brightness) & (operation <= Operation.sharpness)
    level = np.where(operation == Operation.solarize, 255 * magnitude, magnitude)
    return np.where(enhances, 1 + magnitude, level)


def paths(finish: Finish, side: int) -> np.ndarray:
    """Where operations that move pixels take them from, int64 (n, K, 6): see `kernels.finish.FinishSteps`.

    In 16.16 fixed-point numbers, as Pillow makes them (Geometry.c) of torchvision's matrices.
    """
    operation, amount = finish.operation, finish.magnitude.astype(np.float64)

    def of(which: Operation, value: np.ndarray) -> np.ndarray:
        return np.where(operation == which, value, 0)

    angle = -np.radians(of(Operation.rotate, amount) % 360.0)
    cos, sin, centre = np.cos(angle), np.sin(angle), side / 2.0
    right_x, right_y = cos, -sin + of(Operation.shear_y, amount)
    down_x, down_y = sin + of(Operation.shear_x, amount), cos
    x = centre - cos * centre - sin * centre - of(Operation.translate_x, np.trunc(amount))
    y = centre + sin * centre - cos * centre - of(Operation.translate_y, np.trunc(amount))
    first = x + right_x * 0.5 + down_x * 0.5, y + right_y * 0.5 + down_y * 0.5
    numbers = np.stack([*first, right_x, right_y, down_x, down_y], axis=-1)
    return np.floor(numbers * _FIXED + 0.5).astype(np.int64)


def blur_taps(sigma: np.ndarray, side: int) -> np.ndarray:
    """Weights of a Gaussian blur along one axis, int32 (n, T), in 1/16384; all 0 where sigma, (n,), is 0.

    They reach over a tenth of the picture, as SimCLR has it (Chen et al., ICML 2020): of 224 pixels T is 23.
    The middle one makes the sum whole.
    """
    reach = side // 20
    places = np.arange(-reach, reach + 1)
    exponents = (places / np.where(sigma > 0, sigma, 1)[:, None].astype(np.float64)) ** 2 / -2
    bell = np.exp(exponents)
    taps = np.rint(bell / bell.sum(axis=1, keepdims=True) * _WEIGHTS).astype(np.int32)
    taps[:, reach] += _WEIGHTS - taps.sum(axis=1, dtype=np.int32)
    return np.where(sigma[:, None] > 0, taps, 0).astype(np.int32)


def finish_rows(images: np.ndarray, finish: Finish, rows: np.ndarray) -> None:
    """Finish the images `rows`, int64 (m,), of uint8 (n, S, S, 3), in compiled loops on this thread."""
    from flowerfast.kernels.finish import FinishSteps  # numba: when used
    from flowerfast.kernels.finish import finish as loops

    chosen, side = finish.select(rows), images.shape[1]
    made = {
        "hue": hue_shift(chosen),
        "amount": amounts(chosen),
        "path": paths(chosen, side),
        "taps": blur_taps(chosen.sigma, side),
    }
    steps = [made[name] if name in made else getattr(chosen, name) for name in FinishSteps._fields]
    loops(images, rows, FinishSteps(*steps))
