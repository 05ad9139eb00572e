"""Parts of plants that several flowers share: ray petals, discs of seeds, stems, leaves.

A flower head lives in its own frame: unit radius, the axis of the flower along +z. `Head.place` turns
that frame into pixels of the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from flowerfast.demo.painting.canvas import Array, Canvas, Rng, mix

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class Head:
    """Where a flower head is: centre (2,) and radius in pixels, rotation (3, 3)."""

    centre: Array
    radius: float
    rotation: Array

    def place(self, points: Array) -> Array:
        """Turn points (..., 3) of the head's frame into pixels with depth (..., 3)."""
        placed: Array = (points * self.radius) @ self.rotation
        placed[..., :2] += self.centre
        return placed

    @property
    def axis(self) -> Array:
        """The direction (3,) into which the flower looks."""
        axis: Array = self.rotation[2]
        return axis


def make_head(centre: ArrayLike, radius: float, tilt: float, roll: float) -> Head:
    """Pose a head: tilt 0 looks at the viewer, pi/2 looks up; roll turns it in the picture plane."""
    c, s = np.cos(tilt), np.sin(tilt)
    lean = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1.0]])
    return Head(
        np.asarray(centre, dtype=float), radius, np.array([[1.0, 0, 0], [0, c, s], [0, -s, c]]) @ lean
    )


@dataclass(frozen=True)
class Rays:
    """A whorl of petals like those of a daisy. Lengths are shares of the head's radius."""

    count: int
    start: float
    length: float
    width: float
    inner: ArrayLike
    outer: ArrayLike
    belly: float = 0.65
    base: float = 0.35
    point: float = 2.4
    rise: float = 0.05
    curl: float = -0.1
    cup: float = 0.25
    ridges: float = 2.0
    ridge_depth: float = 0.08
    ragged: float = 0.045
    shade: float = 1.0
    cells: tuple[int, int] = (7, 6)


def profile(u: Array, belly: float, base: float, point: float) -> Array:
    """Half-width of a petal (0..1) along its length u: `base` at 0, 1 at `belly`, closing at 1.

    `point` shapes the tip: above 2 blunt, 1 pointed.
    """
    opening = base + (1 - base) * np.sin(np.pi / 2 * np.minimum(u / belly, 1))
    closing = (1 - (np.maximum(u - belly, 0) / (1 - belly)) ** point) ** (1 / max(point, 1.0))
    return np.asarray(opening * closing)


def paint_rays(canvas: Canvas, rng: Rng, head: Head, rays: Rays) -> None:
    """Paint one whorl: each petal a curved, ridged sheet, a little unlike its neighbours."""
    n = rays.count
    rows, columns = (max(2, round(c * canvas.detail)) + 1 for c in rays.cells)
    u = 1 - (1 - np.linspace(0, 1, rows)) ** 1.6  # finer towards the round tip
    v = np.linspace(-1, 1, columns)
    wild = rng.normal(0, rays.ragged, (6, n, 1, 1))
    angle = (np.arange(n) + rng.normal(0, 0.18, n)) * 2 * np.pi / n + rng.uniform(0, 7)
    u, v = u[None, :, None], v[None, None, :]
    half = profile(u, rays.belly, rays.base, rays.point) * rays.width * (1 + wild[0])
    length = rays.length * (1 + wild[1])
    # A notch in the rim and a bend to one side take the compass out of the drawing.
    reach = rays.start + length * (u - 0.035 * u**6 * np.cos(v * np.pi * 1.5) * (1 + 8 * wild[2]))
    side = half * v + wild[3] * 0.8 * length * u**2
    height = length * ((rays.rise + wild[4] * 1.5) * u + (rays.curl + wild[5] * 2) * u**2)
    height = height + rays.cup * half * (v**2) + 0.25 * wild[2] * half * v
    turn = angle[:, None, None]
    points = np.stack(
        (reach * np.cos(turn) - side * np.sin(turn), reach * np.sin(turn) + side * np.cos(turn), height),
        axis=-1,
    )
    um, vm = (u[:, 1:] + u[:, :-1]) / 2, (v[..., 1:] + v[..., :-1]) / 2
    ridge = 1 - rays.ridge_depth * (1 - np.cos(vm * np.pi * rays.ridges)) * (0.6 + 0.4 * um)
    tone = ridge * (0.70 + 0.30 * np.minimum(um / 0.35, 1)) * (1 + 0.9 * wild[0]) * rays.shade
    colours = mix(rays.inner, rays.outer, np.broadcast_to(um**0.8, tone.shape)) * tone[..., None]
    order = rng.permutation(n)
    canvas.mesh(head.place(points)[order], colours[order])


def ring(head: Head, radius: ArrayLike, height: float = 0.0, corners: int = 36) -> Array:
    """Return circles of the head's frame as outlines in pixels: (n, corners, 2)."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    size = np.atleast_1d(radius)[:, None]
    flat = np.stack(
        (size * np.cos(turn), size * np.sin(turn), np.full((len(size), corners), height)), axis=-1
    )
    return head.place(flat)[..., :2]


def paint_disc(
    canvas: Canvas, rng: Rng, head: Head, radius: float, dome: float, stops: Array, count: int
) -> None:
    """Paint a domed disc of seeds in golden-angle spirals.

    `stops` (k, 3) are its colours from the centre to the rim; `dome` is the height over the radius.
    """
    canvas.glaze(ring(head, radius * np.array([1.22, 1.14, 1.07])), (0.10, 0.06, 0.02), 0.16)
    canvas.polygons(ring(head, radius, corners=48), stops[-1:] * 0.45)
    count = max(40, round(count * canvas.detail))
    k = np.arange(count, 0, -1) - 0.5
    share = np.sqrt(k / count)
    angle = k * GOLDEN_ANGLE + rng.uniform(0, 7)
    outward = np.stack((np.cos(angle), np.sin(angle), np.zeros(count)), axis=1)
    sideways = np.stack((-np.sin(angle), np.cos(angle), np.zeros(count)), axis=1)
    up = np.array([0, 0, 1.0])
    spot = outward * (share * radius)[:, None] + up * (dome * radius * (1 - share**2))[:, None]
    normal = outward * (2 * dome * share)[:, None] + up
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True) @ head.rotation
    shade = 0.45 + 0.65 * np.maximum(normal @ canvas.light, 0)
    at = share * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    colours = mix(stops[low], stops[low + 1], at - low) * (shade * rng.uniform(0.75, 1.2, count))[:, None]
    size = radius * 1.25 / np.sqrt(count)
    kite = [(1.25, 0.0), (0.1, 0.85), (-0.9, 0.0), (0.1, -0.85)]
    for scale, gain, lift in ((1.0, 0.72, 0.0), (0.62, 1.25, 0.35)):
        shape = [spot + size * (scale * (a * outward + b * sideways) + lift * up) for a, b in kite]
        corners = head.place(np.stack(shape, axis=1))
        order = np.argsort(corners[:, :, 2].mean(axis=1), kind="stable")
        canvas.polygons(corners[order][..., :2], (colours * gain)[order])


def curve(start: ArrayLike, control: ArrayLike, end: ArrayLike, steps: int = 14) -> Array:
    """Return a quadratic Bezier curve as points (steps, 2)."""
    t = np.linspace(0, 1, steps)[:, None]
    first, second, third = np.asarray(start), np.asarray(control), np.asarray(end)
    return np.asarray((1 - t) ** 2 * first + 2 * t * (1 - t) * second + t**2 * third)


def stem_path(canvas: Canvas, rng: Rng, head: Head, foot: Array | None = None) -> Array:
    """Return a stem from the back of the head to the lower rim of the picture (or to `foot`)."""
    width, height = canvas.image.size
    start = head.centre - head.axis[:2] * head.radius * 0.02
    if foot is None:
        foot = np.array([head.centre[0] + rng.normal(0, 0.10) * width, height + 8])
    drop = max(40.0, float(foot[1] - start[1]))
    down = start - head.axis[:2] * drop * 0.5 + np.array([0, drop * 0.25])
    return curve(start, down, foot, 18)


def _sideways(path: Array) -> Array:
    step = np.gradient(path, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True) + 1e-9
    return np.stack((-step[:, 1], step[:, 0]), axis=1)


def paint_stem(canvas: Canvas, path: Array, width: float, colour: Array) -> None:
    """Paint a round stem of `width` pixels along path (n, 2)."""
    side = _sideways(path)
    edges = np.linspace(-1, 1, 6)
    middle = (edges[1:] + edges[:-1]) / 2
    outlines, tones = [], []
    for low, high, v in zip(edges[:-1], edges[1:], middle, strict=True):
        bulge = np.sqrt(1 - v * v)
        outlines.append(
            np.concatenate((path + side * width / 2 * low, (path + side * width / 2 * high)[::-1]))
        )
        tones.append(0.55 + 0.5 * max(0.0, float(v * side[0] @ canvas.light[:2]) + bulge * canvas.light[2]))
    canvas.polygons(np.stack(outlines), colour * np.array(tones)[:, None])


def paint_leaf(
    canvas: Canvas,
    rng: Rng,
    path: Array,
    half_width: Array,
    colour: Array,
    veins: int = 6,
    parallel: bool = False,
) -> None:
    """Paint a leaf along its midrib: path (n, 2), half_width (n,) in pixels.

    `veins` side veins on either side, or, with `parallel`, veins from base to tip (tulips, grass).
    """
    side = _sideways(path)
    edges = np.linspace(-1, 1, 7)
    offset = side * half_width[:, None]
    middle = (edges[1:] + edges[:-1]) / 2
    fold = np.sign(float(side[len(side) // 2] @ canvas.light[:2]) or 1.0)
    outlines = [np.concatenate((path + offset * a, (path + offset * b)[::-1])) for a, b in pairwise(edges)]
    tone = 0.82 + 0.16 * fold * np.sign(middle) - 0.12 * np.abs(middle) + rng.normal(0, 0.02, len(middle))
    canvas.polygons(np.stack(outlines), colour * tone[:, None])
    pale = np.clip(colour * 1.25 + 0.06, 0, 1)
    if parallel:
        canvas.lines(np.stack([path + offset * v for v in np.linspace(-0.8, 0.8, veins)]), pale, 0.25)
    elif veins:
        at = np.linspace(0.08, 0.85, veins) * (len(path) - 1)
        ahead = np.minimum(at + 0.13 * len(path), len(path) - 1)
        start, end, reach = path[at.astype(int)], path[ahead.astype(int)], offset[ahead.astype(int)] * 0.82
        both = np.concatenate(
            (np.stack((start, end + reach), axis=1), np.stack((start, end - reach), axis=1))
        )
        canvas.lines(both, pale, 0.35)
    canvas.lines(path[None], pale, 0.6, width=2)


def paint_grass(canvas: Canvas, rng: Rng, count: int, colour: Array) -> None:
    """Paint sharp blades of grass that grow out of the lower rim of the picture."""
    width, height = canvas.image.size
    for _ in range(count):
        x = rng.uniform(-0.05, 1.05) * width
        rise = height * rng.uniform(0.12, 0.5)
        lean = rng.normal(0, 0.12) * width
        path = curve((x, height + 4), (x + lean * 0.2, height - rise * 0.7), (x + lean, height - rise), 8)
        half = np.linspace(1, 0, 8) ** 0.7 * width * rng.uniform(0.004, 0.010)
        outline = np.concatenate(
            (path + _sideways(path) * half[:, None], (path - _sideways(path) * half[:, None])[::-1])
        )
        tone = colour * rng.uniform(0.7, 1.25)
        canvas.polygons(
            np.stack((outline, np.concatenate((path, outline[8:])))), np.stack((tone, tone * 0.75))
        )
