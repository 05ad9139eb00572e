"""Painting tools for the rendered flowers: shaded meshes, blurred backgrounds, the camera's finish.

All coordinates are pixels, x to the right, y down, z towards the viewer; all colours are 0..1 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Array = NDArray[np.float64]
Rng = np.random.Generator

SUPERSAMPLE = 2

# (ground colours dark to light, share of soft discs, where the discs' colours lie)
_BACKDROPS: dict[str, tuple[list[tuple[float, float, float]], int]] = {
    "meadow": ([(0.10, 0.20, 0.05), (0.25, 0.42, 0.12), (0.50, 0.65, 0.25)], 10),
    "shade": ([(0.03, 0.07, 0.03), (0.08, 0.17, 0.08), (0.22, 0.34, 0.16)], 8),
    "sky": ([(0.30, 0.52, 0.82), (0.50, 0.70, 0.92), (0.88, 0.93, 0.98)], 0),
    "soil": ([(0.14, 0.09, 0.06), (0.32, 0.23, 0.16), (0.55, 0.44, 0.33)], 14),
    "indoor": ([(0.20, 0.13, 0.09), (0.45, 0.33, 0.24), (0.80, 0.68, 0.52)], 12),
    "wall": ([(0.58, 0.56, 0.53), (0.72, 0.70, 0.67), (0.86, 0.85, 0.82)], 0),
    "studio": ([(0.01, 0.01, 0.02), (0.05, 0.05, 0.07), (0.14, 0.13, 0.16)], 0),
    "garden": ([(0.13, 0.20, 0.10), (0.35, 0.42, 0.25), (0.62, 0.60, 0.48)], 16),
}
_BACKDROP_ODDS = (0.29, 0.12, 0.12, 0.08, 0.10, 0.06, 0.04, 0.19)
_BOKEH = ((0.95, 0.9, 0.6), (0.9, 0.5, 0.55), (0.95, 0.95, 0.95), (0.55, 0.7, 0.3), (0.6, 0.55, 0.8))

# Turns a random byte into normally distributed grain with one table look-up.
_NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])


@dataclass(frozen=True)
class Canvas:
    """A picture being painted, with the direction of its light.

    `light` is a unit vector (3,) that points to the lamp; `detail` in 0..1 thins out meshes that
    will be blurred anyway.
    """

    image: Image.Image
    light: Array
    detail: float = 1.0

    def polygons(self, corners: Array, colours: Array) -> None:
        """Fill opaque polygons in the given order: corners (n, k, 2), colours (n, 3)."""
        draw = ImageDraw.Draw(self.image)
        for outline, ink in zip(corners.reshape(len(corners), -1).tolist(), inks(colours), strict=True):
            draw.polygon(outline, fill=ink)

    def glaze(self, corners: Array, colour: ArrayLike, alpha: float) -> None:
        """Lay translucent polygons over the picture: corners (n, k, 2), one colour, alpha 0..1."""
        draw = ImageDraw.Draw(self.image, "RGBA")
        r, g, b = (np.clip(colour, 0, 1) * 255).astype(int).tolist()
        for outline in corners.reshape(len(corners), -1).tolist():
            draw.polygon(outline, fill=(r, g, b, int(alpha * 255)))

    def lines(self, paths: Array, colour: ArrayLike, alpha: float, width: int = 1) -> None:
        """Draw translucent lines through k points each: paths (n, k, 2), one colour, alpha 0..1."""
        draw = ImageDraw.Draw(self.image, "RGBA")
        r, g, b = (np.clip(colour, 0, 1) * 255).astype(int).tolist()
        for path in paths.reshape(len(paths), -1).tolist():
            draw.line(path, fill=(r, g, b, int(alpha * 255)), width=width)

    def mesh(self, points: Array, colours: Array, by_quad: bool = False, gloss: float = 0.0) -> None:
        """Shade and paint n curved sheets: points (n, U, V, 3), colours (n, U-1, V-1, 3).

        Sheets are painted in the order given, or, with `by_quad`, quad by quad from far to near,
        which lets sheets wrap around one another.
        """
        along = points[:, 1:, :-1] - points[:, :-1, 1:]
        across = points[:, 1:, 1:] - points[:, :-1, :-1]
        normal = np.cross(along, across)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
        normal *= np.where(normal[..., 2:] < 0, -1.0, 1.0)  # both sides of a petal are lit
        facing = normal @ self.light
        # Light also shines through a petal: the side turned away is never black.
        shade = 0.56 + 0.52 * np.maximum(facing, 0) + 0.22 * np.maximum(-facing, 0)
        lit = colours * shade[..., None] + gloss * np.maximum(facing, 0)[..., None] ** 12
        corners = np.stack(
            (points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]), axis=3
        )
        flat, lit = corners.reshape(-1, 4, 3), lit.reshape(-1, 3)
        if by_quad:
            order = np.argsort(flat[:, :, 2].mean(axis=1), kind="stable")
            flat, lit = flat[order], lit[order]
        self.polygons(flat[:, :, :2], lit)


def inks(colours: Array) -> list[int]:
    """Pack (n, 3) colours into Pillow's integer inks, which spare a conversion per polygon."""
    rgb = (np.clip(colours, 0, 1) * 255).astype(np.int64)
    packed: list[int] = (rgb[:, 0] | rgb[:, 1] << 8 | rgb[:, 2] << 16).tolist()
    return packed


def mix(a: ArrayLike, b: ArrayLike, share: ArrayLike) -> Array:
    """Blend colours a and b; `share` of b has the leading axes of the result."""
    t = np.asarray(share, dtype=float)[..., None]
    return np.asarray(np.asarray(a) * (1 - t) + np.asarray(b) * t, dtype=float)


def tint(rng: Rng, colour: ArrayLike, spread: float = 0.05) -> Array:
    """Return the colour with brightness and each channel jittered."""
    return np.clip(
        np.asarray(colour) * rng.uniform(1 - spread, 1 + spread) + rng.normal(0, spread / 2, 3), 0, 1
    )


def pick(
    rng: Rng, palette: tuple[tuple[tuple[float, float, float], float], ...], spread: float = 0.06
) -> Array:
    odds = np.array([odd for _, odd in palette])
    return tint(rng, palette[rng.choice(len(palette), p=odds / odds.sum())][0], spread)


def soft_noise(rng: Rng, shape: tuple[int, int], cells: float) -> Array:
    """Return smooth noise, about 0..1, of the shape (height, width), with `cells` bumps on the short side."""
    scale = cells / min(shape)
    small = rng.random((max(2, round(shape[0] * scale)), max(2, round(shape[1] * scale))))
    picture = Image.fromarray((small * 255).astype(np.uint8))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=float) / 255


def backdrop(rng: Rng, size: tuple[int, int]) -> Image.Image:
    """Paint a background, not yet blurred, for a picture of this (width, height)."""
    name = list(_BACKDROPS)[rng.choice(len(_BACKDROPS), p=_BACKDROP_ODDS)]
    (dark, middle, bright), discs = _BACKDROPS[name]
    width, height = (size[0] + 1) // 2, (size[1] + 1) // 2
    field = 0.55 * soft_noise(rng, (height, width), rng.uniform(2, 5))
    field = field + 0.45 * soft_noise(rng, (height, width), rng.uniform(8, 25))
    ramp = np.linspace(0, 1, height)[:: rng.choice([-1, 1]), None]
    field = np.clip((field - 0.5) * (0.4 if name in ("wall", "studio") else 1.3) + 0.25 + 0.5 * ramp, 0, 1)
    low, high = (
        mix(tint(rng, dark), tint(rng, middle), field),
        mix(tint(rng, middle), tint(rng, bright), field),
    )
    pixels = low + (high - low) * field[..., None]
    image = Image.fromarray((pixels * 255).clip(0, 255).astype(np.uint8)).resize(
        size, Image.Resampling.BILINEAR
    )
    canvas = Canvas(image, np.array([0.0, 0.0, 1.0]))
    if name in ("meadow", "garden", "shade"):
        _blades(canvas, rng, middle, bright, count=60)
    _bokeh(canvas, rng, mix(middle, bright, 0.6), int(rng.integers(0, discs + 1)))
    return image


def _blades(canvas: Canvas, rng: Rng, dark: ArrayLike, bright: ArrayLike, count: int) -> None:
    """Scatter blades of grass that rise from the lower part of the picture."""
    width, height = canvas.image.size
    foot = np.stack((rng.uniform(0, width, count), rng.uniform(0.4, 1.2, count) * height), axis=1)
    tip = foot + np.stack(
        (rng.normal(0, 0.12, count) * width, -rng.uniform(0.2, 0.6, count) * height), axis=1
    )
    half = np.stack((rng.uniform(0.004, 0.015, count) * width, np.zeros(count)), axis=1)
    canvas.polygons(np.stack((foot - half, foot + half, tip), axis=1), mix(dark, bright, rng.random(count)))


def _bokeh(canvas: Canvas, rng: Rng, base: Array, count: int) -> None:
    """Lay translucent discs over the picture, as lights out of focus look."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    ring = np.stack((np.cos(turn), np.sin(turn)), axis=1)
    short = min(canvas.image.size)
    for _ in range(count):
        centre = rng.uniform(0, 1, 2) * canvas.image.size
        colour = mix(base, _BOKEH[rng.integers(len(_BOKEH))], rng.uniform(0, 0.7))
        canvas.glaze((centre + ring * short * rng.uniform(0.02, 0.10))[None], colour, rng.uniform(0.15, 0.5))


def finish(rng: Rng, image: Image.Image) -> Image.Image:
    """Give a painted picture the traces of a camera: uneven light, white balance, softness, grain."""
    width, height = image.size
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.7)))
    y, x = np.mgrid[-1:1:12j, -1:1:12j]
    slope = rng.normal(0, 0.10, 2)
    glow = 1 + slope[0] * x + slope[1] * y - rng.uniform(0, 0.22) * (x * x + y * y)
    gain = np.exp(rng.normal(0, 0.10)) * np.exp(rng.normal(0, 0.035, 3)) * 1.12
    # Whole-picture arithmetic stays in Pillow's uint8: in numpy it cost a third of a picture's time.
    headroom = 1.3
    image = image.point([min(255, round(i * headroom)) for i in range(256)] * 3)
    lamp = (glow[..., None] * gain * (255 / headroom)).clip(0, 255).astype(np.uint8)
    image = ImageChops.multiply(
        image, Image.fromarray(lamp).resize((width, height), Image.Resampling.BILINEAR)
    )
    ladder = 128 + _NORMAL_QUANTILES * rng.uniform(1, 5)
    bits = np.frombuffer(rng.bytes(height * width), dtype=np.uint8).reshape(height, width)
    grain = Image.fromarray(ladder.round().astype(np.uint8)[bits])
    return ImageChops.add(image, Image.merge("RGB", (grain,) * 3), scale=1, offset=-128)
