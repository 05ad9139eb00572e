"""Parity: do two backends give the same pixels on the user's own photos?

The same plans go to both executors, whole and cut off after each step. Differences are counted as they come,
so that no pixels are kept, whatever the number of photos.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from flowerfast.config import Config, DataConfig
from flowerfast.data.manifest import BadFile, Manifest, iter_chunks, load_manifest
from flowerfast.data.plan import EvalPlan, Plan, epoch_order, make_eval_plan, make_plan
from flowerfast.errors import UserError
from flowerfast.loaders import BadFiles, Choice, Loader, Recipe, choose_backend, make_loader
from flowerfast.loaders.decode import DecodeError, decode
from flowerfast.loaders.torchvision import usable_cores
from flowerfast.predict import Trained, load_trained
from flowerfast.runs import Bar, demo_data, device_name, pick_device, versions

REFERENCE = "torchvision"
"""The plain operations of that backend, on whole photos: its compiled loops can be compared with them too."""
STEPS = ("decode", "crop+resize", "flip+rotate", "jitter", "whole chain", "evaluation")
"""What is compared, in order. From crop+resize on each step includes those before it; evaluation is the
resize and centre crop of validation images, and decode the central window of the photo as it is stored."""


@dataclass(frozen=True)
class Bounds:
    """Largest differences, in levels of 255, at which two backends count as equal, and where they hold."""

    mean: float = 0.5
    p99: float = 3.0
    steps: tuple[str, ...] = ("whole chain", "evaluation")

    def hold(self, mean: float, p99: float) -> bool:
        """Whether differences of this mean and 99th percentile are small enough."""
        return mean <= self.mean and p99 <= self.p99


_CPU = torch.device("cpu")
BOUNDS = Bounds()
"""The published bounds; nothing else in the project states them."""


@dataclass(frozen=True)
class Difference:
    """How far two backends are apart after one step, over all pixels of all samples.

    Attributes:
        step: one of `STEPS`.
        samples: pictures compared.
        mean, p99, max: of the absolute difference, in levels of 255.
        worst_photo, worst_mean: the picture of the largest mean, and that mean.
        top1_differs: share of the samples whose most likely class differs; None without a model.
    """

    step: str
    samples: int
    mean: float
    p99: float
    max: int
    worst_photo: str
    worst_mean: float
    top1_differs: float | None = None


@dataclass(frozen=True)
class Parity:
    """What a comparison found.

    Attributes:
        backend, reason: the executor that was compared with the reference, and why that one.
        decoder: where it decodes random plans' photos: cpu, or gpu (nvJPEG).
        steps: those of which there was a sample.
        photos: different photos among the samples.
        bad: files left out on both sides.
        notes: what the user should know, one line each.
        environment: data folder's name, settings, device and versions, for the record.
    """

    backend: str
    reason: str
    decoder: str
    steps: tuple[Difference, ...]
    photos: int
    bad: tuple[BadFile, ...]
    notes: tuple[str, ...]
    environment: dict[str, Any]
    bounds: Bounds = BOUNDS

    @property
    def ok(self) -> bool:
        """Every step for which the bounds hold is within them."""
        return all(
            self.bounds.hold(step.mean, step.p99) for step in self.steps if step.step in self.bounds.steps
        )

    def to_json(self) -> dict[str, Any]:
        """The whole result in types that JSON knows."""
        return {
            "ok": self.ok,
            "backend": self.backend,
            "reference": REFERENCE,
            "backend_reason": self.reason,
            "decoder": self.decoder,
            "photos": self.photos,
            "bounds": asdict(self.bounds),
            "steps": [asdict(step) for step in self.steps],
            "bad_files": [asdict(bad) for bad in self.bad],
            "notes": list(self.notes),
            **self.environment,
        }


class Histogram:
    """Absolute differences of uint8 values, counted: exact statistics of any number of pixels in 2 KB."""

    def __init__(self) -> None:
        self.counts = np.zeros(256, np.int64)

    def add(self, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Count the differences of two uint8 arrays of one shape; returns them, uint8."""
        apart: np.ndarray = np.maximum(found, expected) - np.minimum(found, expected)
        self.counts += np.bincount(apart.ravel(), minlength=256)
        return apart

    def mean(self) -> float:
        """Mean absolute difference."""
        return float(self.counts @ np.arange(256) / self.counts.sum())

    def percentile(self, q: float) -> float:
        """As `numpy.percentile` (linear interpolation) of all values, 0 <= q <= 100."""
        ends = np.cumsum(self.counts)
        rank = q / 100 * (int(ends[-1]) - 1)
        below = int(rank)
        low, high = np.searchsorted(ends, [below, min(below + 1, int(ends[-1]) - 1)], side="right").tolist()
        return float(low + (high - low) * (rank - below))

    def max(self) -> int:
        """Largest absolute difference."""
        return int(np.flatnonzero(self.counts)[-1])


class Executor(Loader, Protocol):
    """A loader that also executes single plans, as all backends' do."""

    def execute(self, plan: Plan | EvalPlan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        ...


@dataclass
class _Tally:
    """The sums of one step; `trained` answers for both sides, where it is there."""

    trained: Trained | None
    histogram: Histogram = field(default_factory=Histogram)
    samples: int = 0
    worst: tuple[float, int] = (-1.0, 0)  # mean, sample
    differ: int = 0

    def add(self, plan: Plan | EvalPlan, found: np.ndarray, expected: np.ndarray) -> None:
        apart = self.histogram.add(found, expected)
        means = apart.reshape(len(plan), -1).mean(axis=1)
        row = int(means.argmax())
        self.worst = max(self.worst, (float(means[row]), int(plan.indices[row])))
        self.samples += len(plan)
        if self.trained is not None:
            self.differ += int((_top1(self.trained, found) != _top1(self.trained, expected)).sum())

    def result(self, step: str, manifest: Manifest) -> Difference:
        h, share = self.histogram, self.differ / self.samples if self.trained is not None else None
        worst_mean, index = self.worst
        path, p99 = manifest.path(index), h.percentile(99)
        return Difference(step, self.samples, h.mean(), p99, h.max(), path, worst_mean, share)


@torch.inference_mode()
def _top1(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(pixels).to(trained.device).permute(0, 3, 1, 2)
    best: np.ndarray = trained.model(images).argmax(1).cpu().numpy()
    return best


def compare_backends(
    config: Config, samples: int = 512, epochs: int = 1, run: Path | None = None, bar: Bar | None = None
) -> Parity:
    """Execute the same plans on `config.data.backend` and on the reference, and compare them step by step.

    Args:
        config: photos, backend, augmentation and size. `auto` is DALI: on the GPU where there is one, else on
            the CPU. Decoded caches are left aside, since they may shrink photos.
        samples: most photos to draw, evenly by the seed.
        epochs: random plans per photo.
        run: run folder of a trained model, whose size and crop are taken and whose answers are compared.
        bar: is told (batches done, batches in all).

    Raises UserError when the backend cannot run here, or when there is nothing to compare.
    """
    started = time.perf_counter()
    device = pick_device(config.train.device)
    choice = _choose(config.data, device)
    trained = load_trained(run, device) if run is not None else None
    data = Path(config.data.path) if config.data.path is not None else demo_data(bar)
    manifest = load_manifest(data, config.data.max_pixels, bar, min_classes=1)
    bad = BadFiles(manifest, config.data.on_bad, config.data.max_bad)
    indices, recipe = _draw(manifest, samples, config, bad), _recipe(config, trained)
    place = device if choice.backend == "dali" else _CPU

    def open_(backend: str, settings: DataConfig, device: torch.device) -> Executor:
        loader = make_loader(Choice(backend, ""), manifest, indices, recipe, settings, device, bad)
        return cast(Executor, loader)

    tallies = {step: _Tally(trained if step in BOUNDS.steps else None) for step in STEPS}
    plain = config.data.model_copy(update={"kernels": "torchvision", "decode_scale": "off"})
    opened = open_(choice.backend, config.data, place), open_(REFERENCE, plain, _CPU)
    with closing(opened[0]) as tested, closing(opened[1]) as reference:
        chunks = list(product(range(epochs), iter_chunks(indices, recipe.batch_size)))
        for done, (epoch, chunk) in enumerate(chunks):
            for step, plan in step_plans(manifest, chunk, recipe, epoch):
                tallies[step].add(plan, tested.execute(plan), reference.execute(plan))
            if bar:
                bar(done + 1, len(chunks))
        notes = list(tested.notes)
    if not tallies["decode"].samples:
        side = recipe.image_size
        notes.append(f"decode: not compared, no photo drawn has {side}x{side} pixels or more")
    environment = _environment(config, recipe, data, run, place)
    environment |= {"epochs": epochs, "seconds": time.perf_counter() - started}
    return Parity(
        backend=choice.backend,
        reason=choice.reason,
        decoder=_decoder(choice, config.data),
        steps=tuple(tally.result(step, manifest) for step, tally in tallies.items() if tally.samples),
        photos=len(indices),
        bad=(*manifest.bad, *bad.found.values()),
        notes=tuple(notes),
        environment=environment,
    )


def step_plans(
    manifest: Manifest, indices: np.ndarray, recipe: Recipe, epoch: int
) -> Iterator[tuple[str, Plan | EvalPlan]]:
    """(step, plan) of some samples; what has no randomness comes in epoch 0 only.

    The steps after the one named are neutral in its plan. Samples smaller than the output are missing from
    decode, and a step without samples is left out.
    """
    assert recipe.augment is not None
    sizes = manifest.width[indices], manifest.height[indices]
    whole = make_plan(recipe.seed, epoch, indices, sizes, recipe.augment, recipe.image_size)
    still = replace(whole, shift_x=np.zeros_like(whole.shift_x), shift_y=np.zeros_like(whole.shift_y))
    plain = replace(still, brightness=np.ones_like(whole.brightness), contrast=np.ones_like(whole.contrast))
    upright = replace(plain, flip=np.zeros_like(whole.flip), angle=np.zeros_like(whole.angle))
    if epoch == 0:
        big = indices[np.minimum(*sizes) >= recipe.image_size]
        if len(big):
            yield "decode", _native(manifest, big, recipe)
        yield "evaluation", make_eval_plan(indices, sizes, recipe.image_size, recipe.crop_pct)
    yield from zip(STEPS[1:5], (upright, plain, still, whole), strict=True)


def _native(manifest: Manifest, indices: np.ndarray, recipe: Recipe) -> Plan:
    """The central window of the output's size: no resize, nothing after it."""
    width, height, side = manifest.width[indices], manifest.height[indices], recipe.image_size
    n = len(indices)
    off, zero, one = np.zeros(n, bool), np.zeros(n, np.int32), np.ones(n, np.float32)
    full, top, left = np.full(n, side, np.int32), (height - side) // 2, (width - side) // 2
    return Plan(indices, top, left, full, full, off, one * 0, one, one, off, zero, zero, side)


def _choose(data: DataConfig, device: torch.device) -> Choice:
    choice = choose_backend(data, device)
    if data.backend != "auto" or choice.backend != REFERENCE:
        return choice
    # The reference agrees with itself; what is in question is DALI, by the same graph on the CPU.
    return replace(
        choose_backend(data.model_copy(update={"backend": "dali-cpu"}), device), reason=choice.reason
    )


def _decoder(choice: Choice, data: DataConfig) -> str:
    if choice.backend != "dali":
        return "cpu"
    from flowerfast.loaders.dali_settings import choose_decoder  # imports DALI: only when it is there

    return choose_decoder(data.decoder)


def _draw(manifest: Manifest, samples: int, config: Config, bad: BadFiles) -> np.ndarray:
    """Sample indices that can be decoded, ascending: int64. Raises UserError when there are none."""
    indices = np.sort(epoch_order(config.train.seed, 0, len(manifest))[:samples])
    with ThreadPoolExecutor(config.data.workers or usable_cores()) as pool:
        errors = list(pool.map(lambda i: _problem(manifest, i), indices.tolist()))
    for index, error in zip(indices.tolist(), errors, strict=True):
        if error is not None:
            bad.add(index, error)
    good = indices[[error is None for error in errors]]
    if not len(good):
        first = next(iter(bad.found.values()))
        raise UserError(
            f"{manifest.root / first.path}: {first.error}; none of the {len(indices)} photos drawn can be "
            "decoded: mend them, or draw more with --samples"
        )
    return good


def _problem(manifest: Manifest, index: int) -> str | None:
    try:
        decode(manifest.read(index), int(manifest.width[index]), int(manifest.height[index]))
    except (OSError, DecodeError) as error:
        return str(error)
    return None


def _recipe(config: Config, trained: Trained | None) -> Recipe:
    base = Recipe(config.data.image_size, config.train.batch_size, config.train.seed, config.augment)
    if trained is not None:
        return replace(base, image_size=trained.image_size, crop_pct=trained.crop_pct)
    return replace(base, crop_pct=config.eval.crop_pct or base.crop_pct)


def _environment(
    config: Config, recipe: Recipe, data: Path, run: Path | None, place: torch.device
) -> dict[str, Any]:
    settings = config.model_dump(mode="json", include={"data", "augment"})
    settings["data"].pop("path")  # a record to publish names the folder, not where it lies
    return {
        "data": data.resolve().name,
        "run": run.resolve().name if run is not None else None,
        "image_size": recipe.image_size,
        "crop_pct": recipe.crop_pct,
        "seed": recipe.seed,
        "settings": settings,
        "device": device_name(place),
        "versions": versions(),
    }
