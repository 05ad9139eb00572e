"""The flowers whose petals wrap around an axis: tulips and roses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowerfast.demo.painting.canvas import Array, Canvas, Rng, mix, pick, tint
from flowerfast.demo.painting.parts import (
    GOLDEN_ANGLE,
    Head,
    Rays,
    curve,
    make_head,
    paint_leaf,
    paint_rays,
    paint_stem,
    ring,
    stem_path,
)

_TULIPS = (
    ((0.86, 0.10, 0.12), 0.22), ((0.98, 0.80, 0.12), 0.18), ((0.95, 0.45, 0.62), 0.18),
    ((0.45, 0.14, 0.45), 0.10), ((0.97, 0.48, 0.12), 0.14), ((0.97, 0.95, 0.90), 0.10),
    ((0.80, 0.16, 0.42), 0.08),
)  # fmt: skip
_ROSES = (
    ((0.78, 0.05, 0.10), 0.28), ((0.95, 0.52, 0.64), 0.20), ((0.97, 0.94, 0.88), 0.14),
    ((0.98, 0.82, 0.32), 0.13), ((0.98, 0.66, 0.48), 0.12), ((0.82, 0.14, 0.40), 0.09),
    ((0.72, 0.52, 0.78), 0.04),
)  # fmt: skip


def _cup(
    rng: Rng, turns: Array, spans: Array, cells: tuple[int, int], rim: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """Return the grid of n petals that wrap around an axis: s (n, U, V), angle (n, U, V), v (V,).

    `rim(v)` is how high the petal reaches at v in -1..1, as a share of its height.
    """
    t, v = np.linspace(0, 1, cells[0] + 1)[:, None], np.linspace(-1, 1, cells[1] + 1)
    phase = rng.uniform(0, 7, (2, len(turns), 1, 1))
    wobble = 1 + 0.022 * np.sin(3.1 * v + phase[0]) + 0.012 * np.sin(7.3 * v + phase[1])
    s = t * rim(v) * wobble
    return s, turns[:, None, None] + spans[:, None, None] * v, v


def _cells(canvas: Canvas, rows: int, columns: int) -> tuple[int, int]:
    share = 0.4 + 0.6 * canvas.detail
    return max(4, round(rows * share)), max(4, round(columns * share))


def _middle(grid: Array) -> Array:
    return (grid[..., 1:, 1:] + grid[..., :-1, :-1]) / 2


def paint_tulip(canvas: Canvas, rng: Rng, centre: Array, radius: float) -> None:
    """Paint a tulip: a cup of six overlapping petals, seen from the side, above long blue-green leaves."""
    tilt = rng.uniform(0.95, 1.5)
    head = make_head(centre + np.array([0, radius * 0.55]), radius * 0.95, tilt, rng.normal(0, 0.16))
    green = tint(rng, (0.33, 0.52, 0.26))
    path = stem_path(canvas, rng, head)
    back, front = rng.integers(0, 3), rng.integers(1, 3)
    for _ in range(back):
        _long_leaf(canvas, rng, path[-1], radius, green * rng.uniform(0.7, 0.9))
    paint_stem(canvas, path, radius * rng.uniform(0.10, 0.14), green * (1.1, 1.1, 0.9))
    _tulip_cup(canvas, rng, head)
    for _ in range(front):
        _long_leaf(canvas, rng, path[-1], 0.8 * radius, green * rng.uniform(0.85, 1.1))


def _tulip_cup(canvas: Canvas, rng: Rng, head: Head) -> None:
    colour = pick(rng, _TULIPS)
    two_coloured = rng.random() < 0.15
    edge = mix(colour, pick(rng, _TULIPS), 0.85) if two_coloured else mix(colour, (1, 0.95, 0.85), 0.14)
    foot = mix(colour, (0.80, 0.82, 0.35), rng.uniform(0.3, 0.8))
    turns = np.tile(np.arange(3) * 2 * np.pi / 3, 2) + np.repeat([0, np.pi / 3], 3) + rng.uniform(0, 7)
    turns = turns + rng.normal(0, 0.06, 6)
    layer = np.repeat([0.93, 1.0], 3)[:, None, None] + rng.normal(0, 0.015, (6, 1, 1))
    power = rng.uniform(1.7, 2.4)
    cells = _cells(canvas, 11, 20)
    s, angle, v = _cup(rng, turns, np.full(6, 1.02), cells, lambda v: 1 - 0.62 * np.abs(v) ** power)
    opening = rng.uniform(-0.55, 0.1) + rng.normal(0, 0.05, (6, 1, 1))
    bowl = 0.62 * np.sin(np.pi / 2 * np.minimum(s / 0.42, 1)) ** 0.75
    bowl = bowl + opening * np.maximum(s - 0.42, 0) ** 1.5
    bowl = np.maximum(bowl * layer - 0.05 * (v**2) * s, 0.02)  # the rim of each petal rolls in
    height = rng.uniform(1.35, 1.65) * s * (1 + rng.normal(0, 0.03, (6, 1, 1)))
    points = head.place(np.stack((bowl * np.cos(angle), bowl * np.sin(angle), height), axis=-1))
    sm, vm = _middle(s), (v[1:] + v[:-1]) / 2
    colours = mix(foot, colour, np.clip(sm / 0.3, 0, 1))
    rim = np.clip((np.abs(vm) - 0.55) * 1.6, 0, 1) * np.clip(sm * 1.6, 0, 1)
    colours = mix(colours, edge, rim)
    veins = 1 - 0.10 * np.exp(-((vm / 0.10) ** 2)) + rng.normal(0, 0.022, (6, 1, len(vm)))
    colours = colours * (veins * (0.80 + 0.20 * sm) * (1 + rng.normal(0, 0.05, (6, 1, 1))))[..., None]
    order = np.argsort(points[..., 2].mean(axis=(1, 2)))
    inside = np.where(np.arange(6) < 3, 0.72, 1.0)  # the far petals show their shaded inside
    canvas.mesh(points[order], colours[order] * inside[:, None, None, None], gloss=0.05)


def _long_leaf(canvas: Canvas, rng: Rng, foot: Array, radius: float, green: Array) -> None:
    way = rng.choice([-1.0, 1.0])
    foot = foot + np.array([way * rng.uniform(0, 0.25) * radius, 0])
    rise, lean = rng.uniform(1.2, 2.6) * radius, way * rng.uniform(0.7, 1.5) * radius
    leaf = curve(foot, foot + np.array([lean * 0.2, -rise * 0.8]), foot + np.array([lean, -rise]), 20)
    half = radius * rng.uniform(0.16, 0.26) * np.sin(np.pi * np.linspace(0.12, 1, 20) ** 0.8) ** 0.85
    paint_leaf(canvas, rng, leaf, half, mix(green, (0.42, 0.58, 0.46), 0.35), veins=7, parallel=True)


def paint_rose(canvas: Canvas, rng: Rng, centre: Array, radius: float) -> None:
    """Paint a rose: many broad petals in a spiral, upright and tight inside, rolled back outside."""
    tilt = rng.uniform(0.1, 1.05)
    head = make_head(centre + np.array([0, 0.25 * radius * np.sin(tilt)]), radius, tilt, rng.normal(0, 0.3))
    green = tint(rng, (0.16, 0.34, 0.13))
    path = stem_path(canvas, rng, head)
    paint_stem(canvas, path, radius * rng.uniform(0.08, 0.12), mix(green, (0.4, 0.3, 0.15), 0.3))
    for _ in range(rng.integers(2, 5)):
        _rose_leaf(canvas, rng, path[int(rng.integers(2, 15))], radius, green * rng.uniform(0.75, 1.2))
    sepals = Rays(5, 0.05, 0.8, 0.12, green * 0.8, green, belly=0.3, point=1.1, rise=-0.1, cells=(5, 3))
    paint_rays(canvas, rng, head, sepals)
    _rose_petals(canvas, rng, head)


def _rose_petals(canvas: Canvas, rng: Rng, head: Head) -> None:
    count = int(rng.integers(19, 26) * (0.6 + 0.4 * canvas.detail))
    t = np.linspace(0, 1, count)
    turns = np.arange(count) * GOLDEN_ANGLE + rng.uniform(0, 7) + rng.normal(0, 0.10, count)
    spans = 2.1 - 1.35 * t**0.6 + rng.normal(0, 0.04, count)
    point = rng.uniform(0.0, 0.06)
    s, angle, v = _cup(
        rng, turns, spans, _cells(canvas, 7, 11),
        lambda v: 1 - 0.30 * np.abs(v) ** 2.4 + point * np.exp(-((v / 0.25) ** 2)),
    )  # fmt: skip
    tt = t[:, None, None]
    lean = -0.10 + rng.uniform(1.1, 1.45) * tt**1.1 + rng.normal(0, 0.05, (count, 1, 1))
    length = (0.72 - 0.04 * tt) * (1 + rng.normal(0, 0.05, (count, 1, 1)))
    curl = 0.05 + 1.0 * tt
    # Closed form of a petal that leans out at its foot and rolls further back towards its rim.
    out = 0.03 + 0.05 * np.minimum(s * 5, 1) + 0.20 * tt**0.7 * np.minimum(s * 3, 1)
    out = out + length * (np.sin(lean) * s + np.cos(lean) * curl * s**4 / 2)
    up = length * (np.cos(lean) * s - np.sin(lean) * curl * s**4 / 2)
    out = np.maximum(out * (1 - 0.07 * v**2 * tt + 0.02 * np.sin(5 * v + 9 * turns[:, None, None]) * s), 0.02)
    points = head.place(np.stack((out * np.cos(angle), out * np.sin(angle), up), axis=-1))
    colour = pick(rng, _ROSES)
    deep = np.clip(colour ** np.array([1.2, 1.5, 1.4]) * (0.86, 0.74, 0.76), 0, 1)
    rim = mix(colour, (1, 0.93, 0.86), rng.uniform(0.10, 0.30))
    sm = _middle(s)
    colours = mix(deep, colour, np.clip(sm * 1.15 - 0.1, 0, 1))
    colours = mix(colours, rim, np.clip((sm - 0.78) * 4.0, 0, 1))
    # Little light reaches between the petals; what does has been coloured by them.
    hollow = 0.25 + 0.75 * np.clip(sm * 1.2, 0, 1) ** 1.4 * (0.80 + 0.20 * tt)
    colours = colours * hollow[..., None] ** (0.9 * (1 - colour) + (0.42, 0.48, 0.60))
    canvas.polygons(ring(head, [0.30, 0.18]), np.stack((deep * 0.5, deep * 0.3)))
    canvas.mesh(points, colours * (1 + rng.normal(0, 0.05, (count, 1, 1, 1))), by_quad=True, gloss=0.05)


def _rose_leaf(canvas: Canvas, rng: Rng, foot: Array, radius: float, green: Array) -> None:
    """Paint a compound leaf: three serrated ovals on one stalk."""
    heading = rng.choice([0.0, np.pi]) + rng.normal(0, 0.5)
    along = np.array([np.cos(heading), np.sin(heading)]) * radius
    joint = foot + along * 0.55
    paint_stem(canvas, curve(foot, foot + along * 0.3 + (0, -8), joint, 6), radius * 0.035, green)
    u = np.linspace(0, 1, 28)
    half = radius * 0.19 * np.sin(np.pi * u**0.85) ** 0.8 * (1 + 0.08 * ((np.arange(28) % 2) * 2 - 1))
    for bend, start in ((1.0, 0.3), (-1.0, 0.3), (0.0, 0.55)):
        angle = heading + bend * 0.95 + rng.normal(0, 0.1)
        base = foot + along * start
        tip = base + np.array([np.cos(angle), np.sin(angle)]) * radius * rng.uniform(0.5, 0.65)
        leaf = curve(base, (base + tip) / 2 + rng.normal(0, 6, 2), tip, 28)
        paint_leaf(canvas, rng, leaf, half, green, veins=5)
