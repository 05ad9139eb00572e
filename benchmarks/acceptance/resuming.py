"""A run that Ctrl-C stops in mid-epoch goes on with the other backend at the very next sample."""

import shutil
import signal
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Place
from benchmarks.acceptance.training import Silent, settings
from flowerfast import train
from flowerfast.checkpoint import RunFolder
from flowerfast.data.manifest import load_manifest
from flowerfast.data.split import read_split
from flowerfast.loaders.batch import Batch, Recipe
from flowerfast.loaders.sampling import Sampler
from flowerfast.progress import Stopped
from flowerfast.runs import resume_config, train_run
from flowerfast.trainer import Trainer

_EPOCHS = 2


class Steps:
    """Stands for `train_step`: notes the samples of each step, and interrupts the process after some."""

    def __init__(self, stop_after: int) -> None:
        self._step = train.train_step
        self.seen: list[list[int]] = []
        self.stop_after = stop_after

    def __call__(self, trainer: Trainer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """One step."""
        self.seen.append(batch.indices.tolist())
        if len(self.seen) == self.stop_after:
            signal.raise_signal(signal.SIGINT)
        return self._step(trainer, batch)


def resume(place: Place, first: str, second: str) -> Outcome:
    """Interrupt a run on one backend in its first epoch, finish it on the other: `under test` or a name."""
    folder = RunFolder(Path(place.scratch) / f"resume-{second}")
    shutil.rmtree(folder.path, ignore_errors=True)
    backends = [place.backend if name == "under test" else name for name in (first, second)]
    config = settings(place, train__epochs=_EPOCHS, train__schedule="step", data__backend=backends[0])
    per_epoch = -(-len(place.manifest("flowers")) // config.train.batch_size)
    steps, stopped = Steps(max(per_epoch // 3, 1)), False
    with patch.object(train, "train_step", steps):
        try:
            train_run(config, folder, Silent())
        except Stopped as stop:
            stopped = stop.signum == signal.SIGINT
        before = len(steps.seen)
        again = resume_config(folder.open(), (), {"data.backend": backends[1]})
        summary = train_run(again, folder, Silent(), resume=True)
    planned = plan_of(place, folder)
    wrong = sum(a != b for a, b in zip(steps.seen, planned, strict=False)) + abs(
        len(steps.seen) - len(planned)
    )
    detail = (
        f"{backends[0]} stopped by Ctrl-C after {before} of {len(planned)} batches, {summary['backend']} "
        f"went on; {summary['epochs_run']} epochs"
    )
    holds = stopped and wrong == 0 and summary["backend"] == backends[1]
    return Outcome(holds, wrong, "0 batches other than planned", detail, "" if place.cuda else "the GPU")


def plan_of(place: Place, folder: RunFolder) -> list[list[int]]:
    """Samples of each step, had nothing intervened."""
    config = folder.open()
    manifest = load_manifest(Path(place.sets["flowers"]))
    split = read_split(folder.split, manifest)
    recipe = Recipe(
        config.data.image_size, config.train.batch_size, config.train.seed, config.augment, shuffle=True
    )
    sampler = Sampler(manifest, split.train, recipe)
    return [plan.indices.tolist() for epoch in range(_EPOCHS) for plan in sampler.plans(epoch)]
