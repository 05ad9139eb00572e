"""Training on the device: mixed precision, memory format, torch.compile."""

import itertools
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Place
from flowerfast.checkpoint import RunFolder
from flowerfast.config import Config, load_config
from flowerfast.loaders.batch import Batch
from flowerfast.model import build_network, with_normalisation
from flowerfast.progress import Totals
from flowerfast.runs import train_run
from flowerfast.train import train_step
from flowerfast.trainer import Trainer, to_device

LOSS_APART = 0.03
"""Mean difference of losses from float32's, as a share of their mean, that mixed precision may make."""
LEARNED = 0.9
"""The last losses must be below this share of the first, or there was nothing to get wrong."""
_ENDS = 10  # losses that count as the first and the last
_CYCLE = 8  # batches, over and over: losses surely fall
# With the recipe's own rate the first steps are chaotic: float32's last bits decide where they lead.
_CALM_LR = 0.003


class Silent:
    """A reporter that says nothing."""

    def start_epoch(self, epoch: int, batches: int, done: int) -> None:
        """Say nothing."""

    def step(self, samples: int, read: Totals) -> None:
        """Say nothing."""

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def settings(place: Place, **changes: object) -> Config:
    """The recipe that learns rendered flowers from random weights, on the place's photos and device."""
    fixed = {
        "data.path": place.sets["flowers"],
        "data.backend": place.backend,
        "data.cache": "none",
        "data.image_size": place.sizes.train_size,
        "model.name": place.sizes.model,
        "model.weights": place.weights,
        "train.device": place.device,
        "train.epochs": place.sizes.train_epochs,
    }
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config("demo", (), fixed | named)


def start(config: Config, device: torch.device, classes: int) -> Trainer:
    """A training from the same weights each time, with a constant learning rate."""
    torch.manual_seed(config.train.seed)
    names = [str(number) for number in range(classes)]
    network = build_network(config.model, names, config.data.image_size, config.eval.crop_pct)
    model = to_device(with_normalisation(network), config.train, device)
    return Trainer(model, config.train.model_copy(update={"schedule": "constant"}), device, 1)


def batches(place: Place, count: int) -> list[Batch]:
    """Training batches of the flowers, kept on the device."""
    loader = place.open("flowers", "cpu")
    drawn = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
    found = list(itertools.islice(drawn, count))
    loader.close()
    return found


def mixed_precision(place: Place, amp: str) -> Outcome:
    """Losses of the first steps in mixed precision beside those in float32, on the same batches."""
    # cuDNN would do float32's convolutions in TF32, which is no reference.
    torch.backends.cudnn.allow_tf32 = False
    steps, kept = place.sizes.steps, batches(place, _CYCLE)
    classes, losses = len(place.manifest("flowers").classes), {}
    for name in ("off", amp):
        trainer = start(settings(place, train__amp=name, train__lr=_CALM_LR), place.torch_device, classes)
        losses[name] = [train_step(trainer, kept[step % _CYCLE])[0] for step in range(steps)]
        scale = trainer.scaler.get_scale()
    read = {name: [loss.item() for loss in each] for name, each in losses.items()}
    outcome = losses_agree(read["off"], read[amp])
    ends = "; ".join(f"{name}: {fmean(x[:_ENDS]):.3f} to {fmean(x[-_ENDS:]):.3f}" for name, x in read.items())
    detail = f"{steps} steps, {ends}" + (f", loss scale {scale:g}" if amp == "fp16" else "")
    unseen = "" if place.cuda else "cuDNN's kernels for these types"
    return Outcome(outcome.holds, outcome.figure, outcome.bound, detail, unseen)


def losses_agree(reference: Sequence[float], found: Sequence[float]) -> Outcome:
    """Mean absolute difference of two runs' losses, as a share of the reference's mean; both must fall."""
    apart = fmean(abs(a - b) for a, b in zip(reference, found, strict=True)) / fmean(reference)
    fell = [fmean(x[-_ENDS:]) < LEARNED * fmean(x[:_ENDS]) for x in (reference, found)]
    bound = f"≤ {LOSS_APART:g} of the float32 loss, both fall by a tenth"
    return Outcome(apart <= LOSS_APART and all(fell), round(apart, 5), bound)  # no number fails too


def compiled(place: Place) -> Outcome:
    """Two runs from the same start, eager and compiled: the same accuracy on the validation photos."""
    ends, photos = {}, 0
    for compile_ in (False, True):
        folder = Path(place.scratch) / f"compile-{compile_}"
        shutil.rmtree(folder, ignore_errors=True)
        config = settings(place, train__compile=compile_)
        summary = train_run(config, RunFolder(folder), Silent())
        ends[compile_] = float(summary["best_val_acc"]), float(summary["seconds"])
        photos = int(summary["val_samples"])
    (plain, plain_seconds), (fast, fast_seconds) = ends[False], ends[True]
    apart, bar = abs(plain - fast), place.sizes.accuracy
    allowed = spread((plain + fast) / 2, photos)
    detail = (
        f"eager {plain:.1%} in {plain_seconds:.0f} s, compiled {fast:.1%} in {fast_seconds:.0f} s, "
        f"{place.sizes.train_epochs} epochs, {photos} validation photos"
    )
    bound = f"accuracies ≤ {allowed:.3f} apart, both ≥ {bar:g}"
    unseen = "" if place.cuda else "Triton's kernels"
    return Outcome(apart <= allowed and min(plain, fast) >= bar, round(apart, 4), bound, detail, unseen)


def spread(accuracy: float, photos: int) -> float:
    """Two standard errors of the difference of two accuracies about that value, each of so many photos."""
    sure = min(accuracy, 1 - 1 / photos)  # all right in both runs does not make one mistake an error
    return 2 * math.sqrt(2 * sure * (1 - sure) / photos)
