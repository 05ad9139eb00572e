"""Rendered flowers: the embedded data set, for machines that have no photos at hand.

Every picture is a pure function of (kind, seed, index), like the plans: the same set comes out of any
number of processes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
from PIL import Image, ImageFilter

from flowerfast.arguments import path
from flowerfast.demo.painting import PAINTERS
from flowerfast.demo.painting.canvas import SUPERSAMPLE, Array, Canvas, Rng, backdrop, finish, tint
from flowerfast.demo.painting.parts import paint_grass
from flowerfast.documents import read_json
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.files import writing
from flowerfast.machine import Progress, usable_cores, user_cache_dir

CLASSES: tuple[str, ...] = tuple(PAINTERS)
RENDER_VERSION = 1  # raise it whenever a change of the painters changes pixels
MIN_SIDE, MAX_SIDE = 240, 500  # pixels
MARKER = "synthetic.json"
DEMO_PER_CLASS = 120
"""Rendered flowers of each class in the embedded data set."""

Chunk = tuple[Path, str, int, int, int]  # folder, kind, seed, first index, index after the last

_FULL_DETAIL_RADIUS = 260  # pixels of the canvas: smaller flowers look smooth with fewer polygons
_CHUNK = 20  # pictures a process renders per order: progress moves about twice a second


def render(kind: str, seed: int, index: int) -> Image.Image:
    """Render one picture of a kind of flower.

    Returns an RGB image, both sides within MIN_SIDE..MAX_SIDE pixels. Raises ValueError for an
    unknown kind or an index outside 0..2**48 - 1.
    """
    if kind not in CLASSES:
        raise ValueError(f"kind {kind!r} is unknown: choose one of {', '.join(CLASSES)}")
    if not 0 <= index < 2**48:
        raise ValueError(f"index {index} is out of range: give 0..2**48 - 1")
    key = np.array([seed % 2**64, CLASSES.index(kind) << 48 | index], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    width, height = _size(rng)
    light = np.array([rng.normal(0, 0.45), rng.uniform(-0.9, -0.1), 0.8])
    light /= np.linalg.norm(light)
    several = rng.random() < 0.33
    behind = _behind(rng, kind, (width, height), light, several)
    big = (width * SUPERSAMPLE, height * SUPERSAMPLE)
    # Nearest is exact here: what no flower covers is averaged back to the very same pixels.
    canvas = Canvas(behind.resize(big, Image.Resampling.NEAREST), light)
    for centre, radius in _places(rng, big, several):
        detail = min(1.0, max(0.35, radius / _FULL_DETAIL_RADIUS))
        PAINTERS[kind](replace(canvas, detail=detail), rng, centre, radius)
    if rng.random() < 0.25:
        paint_grass(canvas, rng, int(rng.integers(4, 16)), tint(rng, (0.28, 0.46, 0.14)))
    return finish(rng, canvas.image.reduce(SUPERSAMPLE))


def _size(rng: Rng) -> tuple[int, int]:
    long = rng.integers(320, MAX_SIDE + 1)
    short = max(MIN_SIDE, round(long * rng.uniform(0.62, 1.0)))
    return (int(long), int(short)) if rng.random() < 0.55 else (int(short), int(long))


def _behind(rng: Rng, kind: str, size: tuple[int, int], light: Array, several: bool) -> Image.Image:
    """Paint what is out of focus, at half the size since it is blurred: background, far flowers."""
    half = backdrop(rng, ((size[0] + 1) // 2, (size[1] + 1) // 2))
    if several and rng.random() < 0.6:
        far = Canvas(half, light, detail=0.35)
        for _ in range(rng.integers(1, 4)):
            radius = min(half.size) * rng.uniform(0.07, 0.14)
            PAINTERS[kind](far, rng, rng.uniform(0.1, 0.9, 2) * half.size, radius)
    return half.filter(ImageFilter.GaussianBlur(rng.uniform(2.0, 5.0))).resize(
        size, Image.Resampling.BILINEAR
    )


def _places(rng: Rng, size: tuple[int, int], several: bool) -> list[tuple[Array, float]]:
    """Choose where flowers stand: centres (2,) and radii in pixels, small (far) ones first."""
    short = min(size)
    if not several:
        centre = np.array(size) * (rng.uniform(0.36, 0.64), rng.uniform(0.32, 0.58))
        return [(centre, short * rng.uniform(0.24, 0.46))]
    count = int(rng.integers(2, 5))
    slots = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count
    radii = np.sort(short * rng.uniform(0.15, 0.27, count))
    return [
        (np.array([slot * size[0], rng.uniform(0.22, 0.62) * size[1]]), float(radius))
        for slot, radius in zip(slots, radii, strict=True)
    ]


def synthesize(
    out: Path,
    per_class: int = 120,
    seed: int = 0,
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Render `per_class` pictures of each kind as OUT/<class>/<class>_00000.jpg and return `out`.

    The same arguments give the same bytes, whatever `processes` (default: one per core; 1 renders in
    the calling process). `progress` is called in the calling process with the number of pictures
    finished so far. OUT appears complete or not at all; if it already holds this very set, nothing is
    rendered. Raises UserError when OUT holds anything else, cannot be written, or an argument is below 1;
    RunFailed when its disk is full, broken or read-only.
    """
    for name, value in (("per_class", per_class), ("processes", processes)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value} is below 1: give a whole number of at least 1")
    target = path("out", out).resolve()
    marker = {"per_class": per_class, "seed": seed, "render_version": RENDER_VERSION}
    if _holds(target, marker):
        return out
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{out} exists and is not this set of flowers: remove it or name another folder")
    partial = target.parent / f".{target.name}.partial-{os.getpid()}-{time.time_ns()}"
    try:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            # First, so that a disk without any room is met before seconds are spent on pictures.
            (partial / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")
            for kind in CLASSES:
                (partial / kind).mkdir()
            finished = 0
            for count in _render_all(_chunks(partial, per_class, seed), processes or usable_cores()):
                finished += count
                if progress is not None:
                    progress(finished)
            _move(partial, target, marker)
    except WriteFailed as error:
        raise RunFailed(error.line("try again, or name another folder")) from error
    except OSError as error:
        raise UserError(f"{out} cannot be written ({one_line(error)}): name a folder that can") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def demo_photos(progress: Progress | None = None) -> Path:
    """Folder of rendered flowers in the user's cache, made on first use; `progress`: (done, in all)."""
    total = DEMO_PER_CLASS * len(CLASSES)
    report = None if progress is None else (lambda done: progress(done, total))
    return synthesize(demo_folder(), DEMO_PER_CLASS, progress=report)


def demo_folder() -> Path:
    """Where `demo_photos` are, or will be."""
    return user_cache_dir() / f"flowers-{RENDER_VERSION}-{DEMO_PER_CLASS}"


def _holds(folder: Path, marker: dict[str, int]) -> bool:
    """Tell whether the folder holds exactly the set that the marker describes."""
    try:
        if read_json(folder / MARKER) != marker:
            return False
    except (OSError, ValueError):
        return False
    return all(
        {path.name for path in (folder / kind).glob("*")}
        == {_name(kind, index) for index in range(marker["per_class"])}
        for kind in CLASSES
    )


def _name(kind: str, index: int) -> str:
    return f"{kind}_{index:05d}.jpg"


def _move(partial: Path, target: Path, marker: dict[str, int]) -> None:
    try:
        if target.exists():
            target.rmdir()  # it is empty; Windows does not rename onto a folder
        partial.rename(target)
    except OSError:
        # Another process may have made the same set meanwhile, as the ranks of one run do.
        if not _holds(target, marker):
            raise


def _chunks(folder: Path, per_class: int, seed: int) -> list[Chunk]:
    starts = range(0, per_class, _CHUNK)
    return [(folder, kind, seed, at, min(at + _CHUNK, per_class)) for at in starts for kind in CLASSES]


def _render_all(chunks: list[Chunk], processes: int) -> Iterator[int]:
    """Render chunks and yield the number of pictures of each finished one."""
    if min(processes, len(chunks)) == 1:
        yield from (_render_chunk(*chunk) for chunk in chunks)
        return
    # Spawned, not forked: the caller may already have started threads or CUDA.
    try:
        pool = ProcessPoolExecutor(min(processes, len(chunks)), get_context("spawn"), _follow_parent)
    except OSError:  # no room in /dev/shm for the locks that processes share
        yield from (_render_chunk(*chunk) for chunk in chunks)
        return
    try:
        yield from (done.result() for done in as_completed([pool.submit(_render_chunk, *c) for c in chunks]))
    except BrokenProcessPool:
        raise RunFailed(
            "a rendering process was killed, perhaps for want of memory; free some and try again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """In a rendering process: the caller answers what reaches the whole group; if it dies, this ends too."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _render_chunk(folder: Path, kind: str, seed: int, start: int, stop: int) -> int:
    for index in range(start, stop):
        picture = render(kind, seed, index)
        # By way of memory: of a full disk Pillow would say "encoder error" and no more.
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=90, subsampling="4:2:0")
        (folder / kind / _name(kind, index)).write_bytes(encoded.getbuffer())
    return stop - start
