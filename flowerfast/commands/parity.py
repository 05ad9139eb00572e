"""Parity: do two backends give the same pixels on the user's own photos?

The same plans go to both executors, whole and cut off after each step. Differences are counted as they come,
so that no pixels are kept, whatever the number of photos.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.commands.differences import BOUNDS, Bounds, Difference, Tally
from flowerfast.config import Config, DataConfig
from flowerfast.demo.synthetic import demo_photos
from flowerfast.errors import UserError
from flowerfast.kernels import numba_problem
from flowerfast.loaders.device import device_name, pick_device
from flowerfast.loaders.engine import choose_backend, workplace
from flowerfast.loaders.loader import Loader
from flowerfast.machine import Progress, usable_cores, versions
from flowerfast.photos.photos import Photos
from flowerfast.photos.table import BadFile
from flowerfast.photos.workers import Workers, iter_chunks, results
from flowerfast.plans.plan import Plan, Sampler, epoch_order, make_eval_plan, still_plan
from flowerfast.training.model import own_crop_pct
from flowerfast.training.trained import TrainedModel, load_run

REFERENCE = "torchvision"
"""What a backend is compared with: torchvision's and Pillow's plain operations, on whole photos."""
STEPS = ("decode", "crop+resize", "flip+rotate", "jitter", "whole chain", "evaluation")
"""What is compared, in order. From crop+resize on each step includes those before it; evaluation is the
resize and centre crop of validation images, and decode the central window of the photo as it is stored."""
MORE = "more operations"
"""The whole chain and what is done to its finished squares: compared too where settings turn any of it on."""


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


def compare_backends(
    config: Config, samples: int = 512, epochs: int = 1, run: Path | None = None, bar: Progress | None = None
) -> Parity:
    """Execute the same plans on `config.data.backend` and on the reference, and compare them step by step.

    Args:
        config: photos, backend, augmentation and size. `auto` is DALI: on the GPU where there is one, else on
            the CPU; without DALI it is the compiled loops of `cpu`. Decoded caches are left aside, since they
            may shrink photos.
        samples: most photos to draw, evenly by the seed.
        epochs: random plans per photo.
        run: run folder of a trained model, whose size, crop and exif are taken, and whose answers are
            compared.
        bar: is told (batches done, batches in all).

    Raises UserError when the backend cannot run here, or when there is nothing to compare.
    """
    started = time.perf_counter()
    device = pick_device(config.train.device)
    backend, reason = _choose(config.data, device)
    trained = load_run(run, device) if run is not None else None
    data = Path(config.data.path) if config.data.path is not None else demo_photos(bar)
    exif = config.data.exif if trained is None else trained.exif
    whole = Photos.open(data, config.data.model_copy(update={"exif": exif}), bar, min_classes=1)
    photos = _draw(whole, samples, config)
    place = workplace(backend, device)
    size, crop_pct = _sizes(config, trained)
    own = config.data.model_copy(update={"backend": backend, "cache": "none"})
    plain = own.model_copy(update={"backend": "cpu", "kernels": "torchvision", "decode_scale": "off"})

    def opened(options: DataConfig, where: torch.device) -> Loader:
        return Loader(
            photos,
            size=size,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            augment=config.augment,
            crop_pct=crop_pct,
            device=where,
            options=options,
        )

    tallies = {step: Tally(trained if step in BOUNDS.steps else None) for step in (*STEPS, MORE)}
    with opened(own, place) as tested, opened(plain, torch.device("cpu")) as reference:
        tested.warm_up()  # waits for the compiled loops, which are what is compared
        sampler = tested.plan_sampler
        chunks = list(product(range(epochs), iter_chunks(photos.indices, sampler.batch_size)))
        for done, (epoch, chunk) in enumerate(chunks):
            for step, plan in step_plans(sampler, chunk, epoch):
                tallies[step].add(plan, tested.execute(plan), reference.execute(plan))
            if bar:
                bar(done + 1, len(chunks))
        notes = [*tested.notes, *([f"compared: {reason}"] if backend != config.data.backend else [])]
        gpu_kernels = tested.gpu_kernels
    if not tallies["decode"].samples:
        notes.append(f"decode: not compared, no photo drawn has {size}x{size} pixels or more")
    environment = _environment(config, sampler, data, run, place)
    environment |= {"gpu_kernels": gpu_kernels, "epochs": epochs, "seconds": time.perf_counter() - started}
    return Parity(
        backend=backend,
        reason=reason,
        decoder=_decoder(backend, config.data),
        steps=tuple(tally.result(step, photos) for step, tally in tallies.items() if tally.samples),
        photos=len(photos),
        bad=photos.bad,
        notes=tuple(notes),
        environment=environment,
    )


def step_plans(sampler: Sampler, indices: np.ndarray, epoch: int) -> Iterator[tuple[str, Plan]]:
    """(step, plan) of some samples; what has no randomness comes in epoch 0 only.

    The steps after the one named are neutral in its plan. Samples smaller than the output are missing from
    decode, and a step without samples is left out.
    """
    size, sizes = sampler.size, sampler.photos.sizes(indices)
    finished = sampler.plan(epoch, indices)
    whole = replace(finished, finish=None)
    still = replace(whole, shift_x=np.zeros_like(whole.shift_x), shift_y=np.zeros_like(whole.shift_y))
    plain = replace(still, brightness=np.ones_like(whole.brightness), contrast=np.ones_like(whole.contrast))
    upright = replace(plain, flip=np.zeros_like(whole.flip), angle=np.zeros_like(whole.angle))
    if epoch == 0:
        big = indices[np.minimum(*sizes) >= size]
        if len(big):
            yield "decode", _native(big, sampler)
        yield "evaluation", make_eval_plan(indices, sizes, size, sampler.crop_pct)
    yield from zip(STEPS[1:5], (upright, plain, still, whole), strict=True)
    if finished.finish is not None:
        yield MORE, finished


def _native(indices: np.ndarray, sampler: Sampler) -> Plan:
    """The central window of the output's size: no resize, nothing after it."""
    width, height = sampler.photos.sizes(indices)
    plan, side = still_plan(indices, (width, height), sampler.size), np.full(len(indices), sampler.size)
    top, left = (height - side) // 2, (width - side) // 2
    return replace(plan, top=top, left=left, height=side, width=side, augmented=True)


def _choose(data: DataConfig, device: torch.device) -> tuple[str, str]:
    backend, reason = choose_backend(data, device)
    if data.backend != "auto" or backend != "cpu":
        return backend, reason
    # What is in question is DALI, by the same graph on the CPU; else the compiled loops.
    try:
        return choose_backend(data.model_copy(update={"backend": "dali-cpu"}), device)[0], reason
    except UserError as error:
        problem = numba_problem()
        if problem is not None:
            raise UserError(f"{error}; nothing else is there to compare, for {problem}") from None
        return "cpu", f"the compiled loops, since dali-cpu cannot run here: {error}"


def _decoder(backend: str, data: DataConfig) -> str:
    if backend != "dali":
        return "cpu"
    from flowerfast.loaders.dali.settings import choose_decoder  # imports DALI: only when it is there

    return choose_decoder(data.decoder)


def _draw(photos: Photos, samples: int, config: Config) -> Photos:
    """Some of the photos, ascending, all of which can be decoded. Raises UserError when there are none."""
    drawn = np.sort(epoch_order(config.train.seed, 0, len(photos))[:samples])
    with closing(Workers(config.data.workers or usable_cores(), "flowerfast-draw")) as pool:
        tasks = [pool.submit(one, photos.problem, int(one[0])) for one in iter_chunks(drawn, 1)]
        problems = results(tasks, photos.place)
    for index, error in zip(drawn.tolist(), problems, strict=True):
        if error is not None:
            photos.report_bad(index, error)
    good = drawn[[error is None for error in problems]]
    if not len(good):
        first = photos.bad[-1]
        raise UserError(
            f"{photos.table.inside(first.path)}: {first.error}; none of the {len(drawn)} photos drawn can be "
            "decoded: mend them, or draw more with --samples"
        )
    return photos.subset(good)


def _sizes(config: Config, trained: TrainedModel | None) -> tuple[int, float]:
    """(image size, crop_pct) of the evaluation: those of the run's model, else of the settings."""
    if trained is not None:
        return trained.image_size, trained.crop_pct
    crop_pct = config.eval.crop_pct
    return config.data.image_size, own_crop_pct(config.model.name) if crop_pct is None else crop_pct


def _environment(
    config: Config, sampler: Sampler, data: Path, run: Path | None, place: torch.device
) -> dict[str, Any]:
    settings = config.model_dump(mode="json", include={"data", "augment"})
    settings["data"].pop("path")  # a record to publish names the folder, not where it lies
    return {
        "data": data.resolve().name,
        "run": run.resolve().name if run is not None else None,
        "image_size": sampler.size,
        "crop_pct": sampler.crop_pct,
        "seed": sampler.seed,
        "settings": settings,
        "device": device_name(place),
        "versions": versions(),
    }
