"""How the five kinds of flowers are painted."""

from collections.abc import Callable

from flowerfast.demo.painting.canvas import Array, Canvas, Rng
from flowerfast.demo.painting.composites import paint_daisy, paint_dandelion, paint_sunflower
from flowerfast.demo.painting.cups import paint_rose, paint_tulip

__all__ = ["PAINTERS"]

# Each paints one whole plant on a canvas: (canvas, rng, centre (2,) of the flower, its radius in pixels).
PAINTERS: dict[str, Callable[[Canvas, Rng, Array, float], None]] = {
    "daisy": paint_daisy,
    "dandelion": paint_dandelion,
    "rose": paint_rose,
    "sunflower": paint_sunflower,
    "tulip": paint_tulip,
}
