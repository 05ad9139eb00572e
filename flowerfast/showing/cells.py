"""What a contact sheet shows: pixels as training sees them, made by its own loaders."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.loaders.batch import place_batch
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.mixing import mixed
from flowerfast.machine import Progress
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Plan, Sampler
from flowerfast.showing.steps import mixed_lines, numbers, plan_until, sentences, wanted_steps
from flowerfast.training.half_loaders import training_loader

REFERENCE = "torchvision"
"""The name, among those of the backends, of torchvision's and Pillow's plain operations on whole photos."""
BACKENDS = ("auto", "cpu", "dali-cpu", "dali", REFERENCE)
TIMES = 16
"""Differences are drawn so many times as large, and cut off at 255."""
MIXING = "mixing"


@dataclass(frozen=True)
class Cell:
    """One picture.

    Attributes:
        title, lines: what is written above and below it.
        pixels: uint8 (S, S, 3).
        epoch, step, backend: what it shows; `step` None: all of them; `backend` None: a difference.
        plan: the plan's numbers, by column; empty for a difference.
    """

    title: str
    lines: tuple[str, ...]
    pixels: np.ndarray
    epoch: int
    step: str | None
    backend: str | None
    plan: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One photo.

    Attributes:
        path: relative to the folder; label: its class.
        photo: whole, upright: uint8 (height, width, 3).
        windows: (left, top, width, height) of the crop, in its pixels, by epoch.
        cells: left to right.
    """

    path: str
    label: str
    photo: np.ndarray
    windows: dict[int, tuple[int, int, int, int]]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Shown:
    """Everything on a sheet, row by row; `notes` are what the user should know, a line each."""

    rows: tuple[Row, ...]
    backends: tuple[str, ...]
    notes: tuple[str, ...]


def show(
    config: Config,
    data: Path | str,
    samples: int = 4,
    epochs: int = 3,
    backends: Sequence[str] = ("auto",),
    steps: bool = False,
    bar: Progress | None = None,
) -> Shown:
    """Pictures of the first photos that training takes, in its first epochs.

    Args:
        config: photos, seed and augmentation, as for training.
        data: the folder.
        samples: photos, fewer where there are not so many.
        epochs: from the first on; with `steps` there is the first alone.
        backends: of `BACKENDS`; beside the pictures of the first stand those of the others, and how far
            these are from it.
        steps: a picture after each step, not only after the last.
        bar: is told (photos done, photos in all).

    Raises UserError when a backend cannot run here, or no photo can be decoded.
    """
    train, _ = Photos.open(data, config.data, bar).split(config.data.val_fraction, config.train.seed)
    with ExitStack() as stack:
        loaders = [stack.enter_context(_loader(config, train, name)) for name in backends]
        names = tuple(
            name if name == REFERENCE else loader.backend
            for name, loader in zip(backends, loaders, strict=True)
        )
        if len({*names}) < len(names):
            raise UserError(f"--backend {','.join(backends)}: auto is {names[backends.index('auto')]} here")
        for loader in loaders if len(loaders) > 1 else ():
            loader.warm_up()  # waits for the compiled loops, which are what is compared
        sampler = loaders[0].plan_sampler
        drawn = _draw(sampler, samples)
        plans = [_plans(sampler, epoch, drawn) for epoch in range(1 if steps else epochs)]
        rows = []
        for done, index in enumerate(drawn, 1):
            rows.append(_row(train, index, [plan.get(index) for plan in plans], loaders, names, steps))
            if bar:
                bar(done, len(drawn))
        notes = dict.fromkeys(note for loader in loaders for note in loader.notes)
    return Shown(tuple(rows), names, tuple(notes))


def _loader(config: Config, photos: Photos, backend: str) -> Loader:
    """As training opens it; a cache on disk, which would be written for all photos, is one in memory here."""
    changes: dict[str, Any] = {"backend": "cpu" if backend == REFERENCE else backend}
    device = pick_device(config.train.device)
    if backend == REFERENCE:
        changes |= {"kernels": "torchvision", "decode_scale": "off", "cache": "none"}
        device = torch.device("cpu")
    elif config.data.cache == "disk":
        changes["cache"] = "ram"
    data = config.data.model_copy(update=changes)
    return training_loader(config.model_copy(update={"data": data}), photos, device)


def _draw(sampler: Sampler, samples: int) -> list[int]:
    """The first samples of the first epoch that can be decoded. Raises UserError when there are none."""
    photos = sampler.photos
    drawn: dict[int, None] = {}
    for index in (each for batch in sampler.batches(0) for each in batch.tolist()):
        if index in drawn:
            continue
        problem = photos.problem(index)
        if problem is None:
            drawn[index] = None
        else:
            photos.report_bad(index, problem)
        if len(drawn) == samples:
            break
    if not drawn:
        first = photos.bad[-1]
        raise UserError(f"{photos.source}: {first.path}: {first.error}; none can be decoded: mend them")
    return [*drawn]


def _plans(sampler: Sampler, epoch: int, drawn: list[int]) -> dict[int, Plan]:
    """Of each sample its plan in an epoch, and that of its partner where it is mixed: two rows then.

    A sample that comes several times is shown as it comes first; with balanced sampling it may be missing.
    """
    found: dict[int, Plan] = {}
    for number, batch in enumerate(sampler.batches(epoch)):
        here = [index for index in drawn if index not in found and (batch == index).any()]
        if not here:
            continue
        plan = next(sampler.plans(epoch, number))
        for index in here:
            row = int(np.flatnonzero(batch == index)[0])
            partner = row if plan.mix is None else int(plan.mix.partners()[row])
            if partner != row and sampler.photos.problem(int(batch[partner])) is not None:
                partner = row  # as where a batch has lost it
            found[index] = plan.select(np.array([row] if partner == row else [row, partner]))
        if len(found) == len(drawn):
            break
    return found


def _row(
    photos: Photos,
    index: int,
    plans: list[Plan | None],
    loaders: list[Loader],
    names: tuple[str, ...],
    steps: bool,
) -> Row:
    cells: list[Cell] = []
    windows = {}
    for epoch, plan in enumerate(plans):
        if plan is None:  # balanced sampling takes others in this epoch
            continue
        left, top, width, height = (
            int(getattr(plan, name)[0]) for name in ("left", "top", "width", "height")
        )
        windows[epoch] = left, top, width, height
        for step, part, lines in _parts(photos, plan, loaders[0].plan_sampler, steps):
            title = f"epoch {epoch}" if step is None else step
            pictures = [_pixels(loader, part) for loader in loaders]
            for name, pixels in zip(names, pictures, strict=True):
                heading = f"{title}, {name}" if len(names) > 1 else title
                cells.append(Cell(heading, lines, pixels, epoch, step, name, numbers(part, 0)))
            for name, pixels in zip(names[1:], pictures[1:], strict=True):
                cells.append(_difference(name, names[0], pixels, pictures[0], epoch, step))
    label = photos.table.named(int(photos.table.label[index]))
    return Row(photos.path(index), label, photos.decode(index), windows, tuple(cells))


def _parts(
    photos: Photos, plan: Plan, sampler: Sampler, steps: bool
) -> Iterator[tuple[str | None, Plan, tuple[str, ...]]]:
    """(step, plan up to it, what is written of it); without `steps` the whole plan alone."""
    told = sentences(plan, 0)
    mixing = () if len(plan) == 1 else mixed_lines(plan, 0, photos.path(int(plan.indices[1])))
    wanted = wanted_steps(sampler.augment) if sampler.augment is not None else ()
    if not steps:
        lines = [told[step] for step in wanted if step in told]
        yield None, plan, (*lines, *mixing)
        return
    for step in wanted:
        yield step, replace(plan_until(plan, step), mix=None), (told.get(step, "left alone"),)
    if mixing:
        yield MIXING, plan, mixing


def _pixels(loader: Loader, plan: Plan) -> np.ndarray:
    """What training sees of a plan's first sample: uint8 (S, S, 3)."""
    if plan.mix is None and len(plan) > 1:
        plan = plan.select(np.arange(1))
    images = torch.from_numpy(loader.execute(plan))
    batch = mixed(place_batch(images, loader.photos, plan))
    pixels: np.ndarray = batch.images[0].permute(1, 2, 0).numpy().copy()  # the loader uses its memory again
    return pixels


def _difference(
    name: str, first: str, pixels: np.ndarray, expected: np.ndarray, epoch: int, step: str | None
) -> Cell:
    apart = np.abs(pixels.astype(np.int16) - expected)
    lines = (f"{name} - {first}", f"mean {apart.mean():.3f}, largest {int(apart.max())} of 255")
    drawn = np.minimum(apart * TIMES, 255).astype(np.uint8)
    return Cell(f"difference x{TIMES}", lines, drawn, epoch, step, None, {})
