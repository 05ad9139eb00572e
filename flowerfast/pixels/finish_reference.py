"""The reference of what is done to finished squares: Pillow's operations, torchvision's on such images.

The blur is the one exception: torchvision has it in float32, here it is in whole numbers, which are the same
everywhere, and differs from torchvision's by a level at most.
"""

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from flowerfast.kernels.operations import Operation
from flowerfast.pixels.finish import blur_taps, hue_shift
from flowerfast.plans.finish import Finish

_ENHANCERS: dict[int, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    Operation.brightness: ImageEnhance.Brightness,
    Operation.colour: ImageEnhance.Color,
    Operation.contrast: ImageEnhance.Contrast,
    Operation.sharpness: ImageEnhance.Sharpness,
}


def finish_square(pixels: np.ndarray, finish: Finish, row: int) -> None:
    """Finish one picture, uint8 (S, S, 3), in place."""
    image = Image.fromarray(pixels)
    if finish.vflip[row]:
        image = ImageOps.flip(image)
    if finish.saturation[row] != 1:
        image = ImageEnhance.Color(image).enhance(float(finish.saturation[row]))
    if finish.hue[row] != 0:
        image = _turn_hue(image, int(hue_shift(finish)[row]))
    if finish.grey[row]:
        image = image.convert("L").convert("RGB")
    for operation, magnitude in zip(finish.operation[row].tolist(), finish.magnitude[row], strict=True):
        image = operate(image, operation, float(magnitude))
    finished = np.asarray(image)
    if finish.sigma[row] > 0:
        finished = blur(finished, blur_taps(finish.sigma[row : row + 1], len(pixels))[0])
    pixels[:] = finished
    top, left = int(finish.erase_top[row]), int(finish.erase_left[row])
    pixels[top : top + int(finish.erase_height[row]), left : left + int(finish.erase_width[row])] = 0


def _turn_hue(image: Image.Image, shift: int) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(shift))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def operate(image: Image.Image, operation: int, magnitude: float) -> Image.Image:
    """One of a policy's operations, as torchvision's RandAugment applies it to an image of Pillow's."""
    if operation in _ENHANCERS:
        return _ENHANCERS[operation](image).enhance(1 + magnitude)
    match operation:
        case Operation.shear_x:
            return _moved(image, (1, magnitude, 0, 0, 1, 0))
        case Operation.shear_y:
            return _moved(image, (1, 0, 0, magnitude, 1, 0))
        case Operation.translate_x:
            return _moved(image, (1, 0, -int(magnitude), 0, 1, 0))
        case Operation.translate_y:
            return _moved(image, (1, 0, 0, 0, 1, -int(magnitude)))
        case Operation.rotate:
            return image.rotate(magnitude, Image.Resampling.NEAREST, fillcolor=(0, 0, 0))
        case Operation.posterize:
            return ImageOps.posterize(image, int(magnitude))
        case Operation.solarize:
            return ImageOps.solarize(image, math.ceil(255 * magnitude))  # levels are whole numbers
        case Operation.auto_contrast:
            return ImageOps.autocontrast(image)
        case Operation.equalize:
            return ImageOps.equalize(image)
    return image


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    return image.transform(image.size, affine, matrix, nearest, fillcolor=(0, 0, 0))


def blur(pixels: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Weighted sums of uint8 (S, S, 3) along rows, then along columns, in whole numbers; edges reflect."""
    reach, side = len(taps) // 2, len(pixels)
    summed = pixels.astype(np.int32)
    for bits in (7, 21):
        turned = summed.swapaxes(0, 1)  # first along rows, then, turned once more, along columns
        padded = np.pad(turned, ((reach, reach), (0, 0), (0, 0)), mode="reflect")
        parts = (tap * padded[k : k + side] for k, tap in enumerate(taps) if tap)
        summed = (reduce(np.add, parts) + (1 << (bits - 1))) >> bits
    return summed.astype(np.uint8)
