"""The photos of a run's report: those it was wrong about, and some as training saw them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.config import Config
from flowerfast.errors import RunFailed, UserError, memory_line, one_line
from flowerfast.loaders.batch import place_batch
from flowerfast.loaders.mixing import mixed
from flowerfast.machine import ProgressBars
from flowerfast.photos.layout import nfc
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import one_by_one
from flowerfast.places import url_of
from flowerfast.ranks.who import current
from flowerfast.training.half_loaders import training_loader
from flowerfast.training.loss import several_targets
from flowerfast.training.page import short
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.seal import Damaged
from flowerfast.training.split_file import read_split
from flowerfast.training.thumbnails import data_uri, thumbnails

MISTAKE_SIDE, SAMPLE_SIDE = 144, 224
"""Pixels of a picture's long side, at most."""
SAMPLES = 12
"""Augmented samples; an even number, for samples are mixed in pairs."""


@dataclass
class Pictures:
    """What there is to see of a run's photos.

    Attributes:
        mistakes: data URIs of photos, by the path that summary.json has.
        samples: (data URI, label in words) of the first samples of the first epoch.
        problems: why something is missing, a line each.
        source, size: where the photos are, or were, and pixels of a training image's side; None: not known.
    """

    mistakes: dict[str, str] = field(default_factory=dict)
    samples: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    source: str | None = None
    size: int | None = None


def run_pictures(run: Path, summary: dict[str, Any], photos: Photos | None, bars: ProgressBars) -> Pictures:
    """Pictures of a run's photos, as far as they can be had: a report does without them.

    Args:
        run: its folder.
        summary: content of its summary.json.
        photos: those it was trained on, where they are open; None: opened as its settings say.
        bars: makes progress bars.

    Raises Damaged when a file of the run is not as it was written.
    """
    made = Pictures()
    folder = RunFolder(run)
    with _noting(made):
        config = folder.open()
        made.source, made.size, halves = config.data.path, config.data.image_size, None
        if photos is None:
            photos = _opened(config, bars)
            halves = folder.split
        with bars("drawing") as bar:
            paths = [row["path"] for row in summary.get("mistakes", [])]
            found = _rows(photos, paths)
            drawn = thumbnails(photos, sorted({*found.values()}), bar, MISTAKE_SIDE)
            made.mistakes = {path: drawn[row] for path, row in found.items() if row in drawn}
            if paths and not drawn:
                made.problems.append(f"{photos.source}: none of these photos can be read any more")
        with _noting(made):
            train = photos if halves is None else read_split(halves, photos)[0]
            made.samples = _samples(config, train, summary)
    return made


@contextmanager
def _noting(made: Pictures) -> Iterator[None]:
    """Within, what keeps pictures from being made becomes a line of the report."""
    try:
        yield
    except Damaged:
        raise
    except (UserError, RunFailed) as error:
        made.problems.append(str(error))
    except OSError as error:
        made.problems.append(f"{error.filename or 'photos'}: {one_line(error)}")
    except (MemoryError, RuntimeError) as error:
        line = memory_line(error)
        if line is None:
            raise
        made.problems.append(line)


def _opened(config: Config, bars: ProgressBars) -> Photos:
    place = config.data.path
    if place is None:
        raise UserError("config.yaml names no photos")
    if url_of(place) is None and not Path(place).exists():
        raise UserError(f"{place}: the photos of this run are not there any more")
    settings = config.data.model_copy(update={"on_bad": "skip", "max_bad": 1.0})
    with bars("reading headers") as bar:
        return Photos.open(place, settings, bar)


def _rows(photos: Photos, paths: list[str]) -> dict[str, int]:
    """Sample index by path, of those that are there."""
    wanted = {nfc(path): path for path in paths}
    if not wanted:
        return {}
    places = enumerate(map(nfc, photos.table.paths()))
    return {wanted[path]: row for row, path in places if path in wanted}


def _samples(config: Config, train: Photos, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The first samples of the first epoch, made again by the cpu backend; those that fail are left out."""
    # From a cache, which may hold smaller photos, come other pixels. Ranks are refused one in memory.
    kept = summary.get("cache", "none") != "none" and current().local_size == 1
    options = {"backend": "cpu", "cache": "ram" if kept else "none", "workers": 1}
    data = config.data.model_copy(update=options)
    with training_loader(config.model_copy(update={"data": data}), train, torch.device("cpu")) as loader:
        plan = next(loader.plan_sampler.plans(0))
        plan = plan.select(np.arange(min(len(plan), SAMPLES)))
        problems = one_by_one(plan.indices, train.problem, train.place)
        plan = plan.select(np.array([problem is None for problem in problems], bool))
        if not len(plan):
            return []
        batch = mixed(place_batch(torch.from_numpy(loader.execute(plan)), train, plan))
        pictures = [data_uri(one, SAMPLE_SIDE) for one in batch.images.permute(0, 2, 3, 1).numpy()]
    if train.multilabel:
        named = [_labels(train.classes, row) for row in several_targets(batch).tolist()]
        return list(zip(pictures, named, strict=True))
    labels = batch.labels.tolist()
    partners = labels if batch.partner_labels is None else batch.partner_labels.tolist()
    weights = [1.0] * len(labels) if batch.weight is None else batch.weight.tolist()
    return [
        (uri, _label(train.classes, *about))
        for uri, *about in zip(pictures, labels, partners, weights, strict=True)
    ]


def _label(classes: tuple[str, ...], own: int, partner: int, weight: float) -> str:
    if own == partner or weight == 1:
        return short(classes[own])
    return f"{short(classes[own])} {weight:.0%}, {short(classes[partner])} {1 - weight:.0%}"


def _labels(classes: tuple[str, ...], shares: list[float]) -> str:
    """Of a photo with several labels, 0 to 1 each: those that are not 0, with what is not whole."""
    named = [
        short(name) + (f" {share:.0%}" if share < 1 else "")
        for name, share in zip(classes, shares, strict=True)
        if share > 0
    ]
    return ", ".join(named) or "no label"
