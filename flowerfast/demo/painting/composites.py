"""The flowers of the daisy family: rays around a disc, or rays alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowerfast.demo.painting.canvas import Array, Canvas, Rng, mix, pick, tint
from flowerfast.demo.painting.parts import (
    GOLDEN_ANGLE,
    Head,
    Rays,
    curve,
    make_head,
    paint_disc,
    paint_leaf,
    paint_rays,
    paint_stem,
    ring,
    stem_path,
)

_GREEN = (0.30, 0.50, 0.16)
_DAISIES = (
    ((0.98, 0.97, 0.95), 0.84), ((0.95, 0.62, 0.74), 0.09),
    ((0.98, 0.93, 0.62), 0.04), ((0.80, 0.74, 0.92), 0.03),
)  # fmt: skip
_SUNFLOWERS = (
    ((0.99, 0.76, 0.06), 0.60), ((0.98, 0.62, 0.05), 0.22),
    ((0.99, 0.88, 0.32), 0.14), ((0.66, 0.22, 0.08), 0.04),
)  # fmt: skip
_DANDELIONS = (((0.99, 0.82, 0.06), 0.7), ((0.98, 0.72, 0.04), 0.2), ((0.99, 0.90, 0.25), 0.1))


def paint_daisy(canvas: Canvas, rng: Rng, centre: Array, radius: float) -> None:
    """Paint a daisy: a ring of slender, mostly white petals around a yellow dome."""
    head = make_head(centre, radius, rng.uniform(0, 1.05), rng.normal(0, 0.35))
    path = stem_path(canvas, rng, head)
    green = tint(rng, _GREEN)
    for _ in range(rng.integers(0, 4)):
        _basal_leaf(canvas, rng, path, radius, green)
    paint_stem(canvas, path, radius * rng.uniform(0.07, 0.10), green)
    outer = pick(rng, _DAISIES, 0.03)
    disc = rng.uniform(0.22, 0.33)
    count = int(rng.integers(15, 27))
    rays = Rays(
        count, disc * 0.8, 1 - disc * 0.8, 2.3 / count * rng.uniform(0.75, 1.05),
        mix(outer, (0.85, 0.88, 0.70), 0.35), outer, belly=rng.uniform(0.6, 0.78), base=0.4,
        rise=rng.uniform(-0.05, 0.2), curl=rng.uniform(-0.3, 0.05),
    )  # fmt: skip
    paint_rays(canvas, rng, head, replace(rays, shade=0.78, length=rays.length * 0.97, rise=rays.rise - 0.08))
    paint_rays(canvas, rng, head, rays)
    gold = tint(rng, (0.98, 0.76, 0.10))
    stops = np.stack((mix(gold, (0.75, 0.78, 0.15), rng.uniform(0, 0.6)), gold, gold * (0.92, 0.80, 0.8)))
    paint_disc(canvas, rng, head, disc, rng.uniform(0.35, 0.6), stops, int(110 + 90 * min(1.0, radius / 240)))


def _basal_leaf(canvas: Canvas, rng: Rng, path: Array, radius: float, green: Array) -> None:
    foot = path[int(rng.integers(10, 17))]
    way = rng.choice([-1.0, 1.0])
    tip = foot + np.array([way * rng.uniform(0.4, 1.0), -rng.uniform(0.1, 0.7)]) * radius
    leaf = curve(foot, foot + np.array([way * 0.1, -0.5]) * radius, tip, 14)
    u = np.linspace(0, 1, 14)
    half = radius * 0.13 * np.sin(np.pi * u**1.3) ** 0.8 * (1 + 0.25 * np.cos(u * 40))
    paint_leaf(canvas, rng, leaf, half, green * rng.uniform(0.7, 1.0), veins=4)


def paint_sunflower(canvas: Canvas, rng: Rng, centre: Array, radius: float) -> None:
    """Paint a sunflower: a big dark disc of seeds, two or three rows of pointed golden petals."""
    head = make_head(centre, radius, rng.uniform(0, 0.85), rng.normal(0, 0.3))
    green = tint(rng, (0.30, 0.47, 0.14))
    path = stem_path(canvas, rng, head)
    paint_stem(canvas, path, radius * rng.uniform(0.13, 0.18), green)
    for _ in range(rng.integers(1, 4)):
        _heart_leaf(canvas, rng, path[int(rng.integers(5, 16))], radius, green * rng.uniform(0.7, 1.0))
    outer = pick(rng, _SUNFLOWERS, 0.04)
    disc = rng.uniform(0.36, 0.52)
    count = int(rng.integers(19, 27))
    rays = Rays(
        count, disc * 0.88, 1 - disc * 0.88, 2.6 / count * rng.uniform(0.85, 1.1),
        mix(outer, (0.85, 0.40, 0.02), 0.5), outer, belly=0.42, base=0.55, point=1.25,
        rise=rng.uniform(0.0, 0.25), curl=rng.uniform(-0.3, 0.1), cup=0.45, ridges=3.0,
        ridge_depth=0.07, ragged=0.09,
    )  # fmt: skip
    sepals = replace(rays, inner=green * 0.8, outer=green, length=rays.length * 0.8, shade=0.8)
    paint_rays(canvas, rng, head, sepals)
    paint_rays(canvas, rng, head, replace(rays, shade=0.76))
    paint_rays(canvas, rng, head, replace(rays, length=rays.length * 0.92, rise=rays.rise + 0.1))
    brown, rim = tint(rng, (0.22, 0.12, 0.06)), tint(rng, (0.52, 0.30, 0.08))
    heart = mix(brown, (0.42, 0.45, 0.16), rng.uniform(0.1, 0.9))
    stops = np.stack((heart, heart * 0.8, brown, brown * 0.9, rim, mix(rim, (0.9, 0.62, 0.1), 0.4)))
    seeds = int(170 + 190 * min(1.0, radius / 260))
    paint_disc(canvas, rng, head, disc, rng.uniform(0.08, 0.3), stops, seeds)


def _heart_leaf(canvas: Canvas, rng: Rng, foot: Array, radius: float, green: Array) -> None:
    way = rng.choice([-1.0, 1.0])
    tip = foot + np.array([way * rng.uniform(0.8, 1.3), rng.uniform(-0.5, 0.5)]) * radius
    leaf = curve(foot, foot + (tip - foot) * 0.5 + np.array([0, -0.25 * radius]), tip, 26)
    u = np.linspace(0, 1, 26)
    half = radius * 0.42 * np.sin(np.pi * np.clip(u - 0.12, 0, 1) ** 0.62) ** 0.9 + radius * 0.02 * (1 - u)
    paint_leaf(canvas, rng, leaf, half * (1 + 0.06 * (np.arange(26) % 2)), green, veins=6)


def paint_dandelion(canvas: Canvas, rng: Rng, centre: Array, radius: float) -> None:
    """Paint a dandelion: a yellow cushion of very many thin rays or, for a third of them, a seed head."""
    clock = rng.random() < 0.36
    head = make_head(centre, radius * (0.95 if clock else 0.9), rng.uniform(0, 1.1), rng.normal(0, 0.3))
    green = tint(rng, (0.27, 0.46, 0.14))
    path = stem_path(canvas, rng, head)
    for _ in range(rng.integers(1, 5)):
        _toothed_leaf(canvas, rng, path[-1], radius, green * rng.uniform(0.75, 1.05))
    reddish = mix(tint(rng, (0.52, 0.62, 0.28)), (0.6, 0.3, 0.25), 0.25)
    paint_stem(canvas, path, radius * rng.uniform(0.08, 0.11), reddish)
    (_seed_head if clock else _bloom)(canvas, rng, head)


def _bloom(canvas: Canvas, rng: Rng, head: Head) -> None:
    """Paint six whorls of rays, the inner ones shorter and steeper, and the stamens on top."""
    green = tint(rng, (0.27, 0.46, 0.14))
    base = pick(rng, _DANDELIONS, 0.03)
    deep = mix(base, (0.93, 0.60, 0.0), 0.45)
    open_ = rng.uniform(0.75, 1.0)
    sepals = Rays(14, 0.1, 0.75, 0.10, green * 0.7, green, belly=0.4, point=1.1, rise=-0.1, cells=(4, 3))
    paint_rays(canvas, rng, head, sepals)
    for layer, count in zip(np.linspace(0, 1, 6), (54, 50, 45, 38, 28, 18), strict=True):
        paint_rays(
            canvas, rng, head,
            Rays(
                max(9, round(count * (0.4 + 0.6 * canvas.detail))), 0.04, open_ * (1 - 0.70 * layer),
                0.057 * (1 - 0.25 * layer) * (1.5 - 0.5 * canvas.detail), deep, mix(base, deep, 0.35 * layer),
                belly=0.7, base=0.5, point=5.0, rise=0.04 + 0.55 * layer**1.3, curl=-0.10, cup=0.6,
                ridges=1.0, ridge_depth=0.14, ragged=0.06, shade=0.80 + 0.22 * layer, cells=(3, 2),
            ),
        )  # fmt: skip
    _stamens(canvas, rng, head, deep)


def _stamens(canvas: Canvas, rng: Rng, head: Head, colour: Array) -> None:
    count = round(46 * canvas.detail)
    angle, reach = rng.uniform(0, 7, count), 0.30 * np.sqrt(rng.random(count))
    foot = np.stack((reach * np.cos(angle), reach * np.sin(angle), np.full(count, 0.18)), axis=1)
    tip = foot * np.array([1.25, 1.25, 1.0]) + np.array([0, 0, 0.17]) + rng.normal(0, 0.02, (count, 3))
    segments = head.place(np.stack((foot, tip), axis=1))[..., :2]
    width = max(1, round(head.radius / 70))
    canvas.lines(segments + width * 0.7, colour * 0.55, 0.6, width)
    canvas.lines(segments, mix(colour, (1, 0.86, 0.25), 0.5), 0.95, width)


def _seed_head(canvas: Canvas, rng: Rng, head: Head) -> None:
    """Paint the ball of parachutes: each a stalk with a star of hairs, spread evenly over a sphere."""
    out = _seed_directions(rng, round(120 * (0.3 + 0.7 * canvas.detail)))
    out = out[np.argsort((out @ head.rotation)[:, 2])]
    ball = make_head(head.centre, head.radius, 0, 0)
    canvas.glaze(ring(ball, np.linspace(1.0, 0.2, 12)), (0.93, 0.95, 0.96), 0.035)

    def spokes(directions: Array, inner: float, outer: float) -> Array:
        return head.place(np.stack((directions * inner, directions * outer), axis=1))[..., :2]

    canvas.lines(spokes(out, 0.12, 0.78), (0.78, 0.76, 0.68), 0.45)
    knob = np.array([(0.36, 0.29, 0.20), (0.48, 0.40, 0.28), (0.60, 0.53, 0.38)])
    canvas.polygons(ring(ball, [0.13, 0.11, 0.07]), knob)
    depth = (out @ head.rotation)[:, 2]
    canvas.lines(spokes(out[depth > -0.1], 0.10, 0.22), (0.38, 0.28, 0.17), 0.8, 2)
    hairs = head.place(_parachutes(rng, out, hairs=11))[..., :2]
    canvas.lines(hairs[depth <= 0].reshape(-1, 2, 2), (0.80, 0.82, 0.82), 0.35)
    canvas.lines(hairs[depth > 0].reshape(-1, 2, 2), (0.99, 0.99, 0.98), 0.62)


def _seed_directions(rng: Rng, count: int) -> Array:
    """Return unit vectors (n, 3), n <= count, spread over a sphere; at times the wind has taken some."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = k * GOLDEN_ANGLE + rng.uniform(0, 7)
    flat = np.sqrt(1 - z * z)
    out = np.stack((flat * np.cos(angle), flat * np.sin(angle), z), axis=1) + rng.normal(0, 0.04, (count, 3))
    out = out[out[:, 2] > rng.uniform(-0.85, -0.65)]
    if rng.random() < 0.3:
        out = out[(out @ rng.normal(0, 1, 3)) < rng.uniform(0.2, 0.9)]
    return np.asarray(out)


def _parachutes(rng: Rng, out: Array, hairs: int) -> Array:
    """Return the hairs of each seed from hub to tip: (n, hairs, 2, 3)."""
    aside = np.cross(out, rng.normal(0, 1, 3))
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    upward = np.cross(out, aside)
    turn = np.linspace(0, 2 * np.pi, hairs, endpoint=False)[:, None]
    star = aside[:, None] * np.cos(turn) + upward[:, None] * np.sin(turn)
    tip = out[:, None] * rng.uniform(0.9, 1.0, (len(out), hairs, 1)) + star * 0.26
    return np.stack((np.broadcast_to(out[:, None] * 0.78, tip.shape), tip), axis=2)


def _toothed_leaf(canvas: Canvas, rng: Rng, foot: Array, radius: float, green: Array) -> None:
    foot = foot + np.array([rng.normal(0, 0.1) * canvas.image.width, 0])
    way = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0)
    tip = foot + np.array([way * 1.7 * radius, -rng.uniform(0.7, 1.7) * radius])
    leaf = curve(foot, foot + np.array([way * 0.2, -1.0]) * radius, tip, 34)
    u = np.linspace(0, 1, 34)
    teeth = 1 - 0.75 * ((u * 7) % 1.0)
    half = radius * 0.26 * np.sin(np.pi * u**1.6) ** 0.7 * (0.25 + 0.75 * teeth)
    paint_leaf(canvas, rng, leaf, half, green, veins=0)
