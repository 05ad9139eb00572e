"""Made pictures, with what decoders and resizes can get wrong."""

import numpy as np
from PIL import Image, ImageDraw

ORIENTATION = 0x112
"""EXIF's tag."""


def structured(width: int, height: int, seed: int) -> Image.Image:
    """RGB picture with slopes, noise and hard edges: what a resize can get wrong differs between them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    slopes = rng.uniform(-200, 200, (2, 3))
    pixels = rng.uniform(40, 215, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    pixels = pixels + rng.normal(0, rng.choice([2, 25]), pixels.shape)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse):
        left, right = sorted(rng.uniform(0, width, 2))
        top, bottom = sorted(rng.uniform(0, height, 2))
        shape((left, top, right, bottom), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def orientation(number: int) -> Image.Exif:
    """EXIF that says how a photo is stored, 1 to 8."""
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif
