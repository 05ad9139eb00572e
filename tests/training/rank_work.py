"""What ranks do in tests: a run, noted batch by batch; other pieces of work."""

import os
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from flowerfast.errors import Said
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import WaitStopped
from flowerfast.ranks import meeting
from flowerfast.ranks.meeting import RankLost, joined
from flowerfast.ranks.telling import exchange, from_first
from flowerfast.ranks.who import current, started
from flowerfast.training import run as run_module
from flowerfast.training.callbacks import Callback, RunFacts
from flowerfast.training.lockstep import Lockstep
from flowerfast.training.run import train
from flowerfast.training.state import TrainState

SETTINGS: dict[str, Any] = {
    "model.name": "test_convnext",  # no batch normalisation
    "model.pretrained": False,
    "data.image_size": 32,
    "data.workers": 1,
    "data.kernels": "torchvision",  # without the seconds that numba takes to load
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.lr": 0.01,
    "train.device": "cpu",
}


def noted_run(
    data: Path | None,
    out: Path,
    settings: dict[str, Any],
    stops: tuple[int, int] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train: what each batch held, sample by sample, its loss; the end, and the weights as a number.

    `stops`: (rank, how often it has been asked) that is asked to stop by SIGTERM.
    """
    steps: list[tuple[list[tuple[int, int]], float]] = []
    gradients = TrainState.gradients
    kept: list[TrainState] = []

    def noted(state: TrainState, batch: Batch, due: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        loss, correct = gradients(state, batch, due)
        pictures = [zlib.crc32(picture.permute(1, 2, 0).contiguous().numpy()) for picture in batch.images]
        steps.append(([*zip(batch.indices.tolist(), pictures, strict=True)], loss.item()))
        kept[:] = [state]
        return loss, correct

    asked, mine = count(1), stops is not None and stops[0] == started().rank
    given = {"data": data, "settings": settings} if options.get("resume") else {"data": data}
    if not options.get("resume"):
        given["settings"] = {**SETTINGS, **settings}
    stop = nullcontext(
        lambda: signal.SIGTERM if mine and stops is not None and next(asked) >= stops[1] else None
    )
    ended: dict[str, Any] = {"steps": steps}
    with patch.object(TrainState, "gradients", noted), patch.object(run_module, "draw", lambda *_: None):
        try:
            ended["summary"] = train(out=out, stop=stop, **given, **options).summary
        except Said as error:
            ended["error"] = type(error).__name__, str(error), error.everywhere
    if kept:
        held = b"".join(tensor.numpy().tobytes() for tensor in kept[0].evaluated.state_dict().values())
        ended["weights"] = zlib.crc32(held)
    return ended


def run_of_its_own(data: Path, out: Path) -> dict[str, Any]:
    """A run whose learning rate is another on each rank."""
    return noted_run(data, out, {"train.lr": 0.01 * (1 + started().rank)})


@dataclass
class Told(Callback):
    """Notes in a file by which rank it is called; with `fails` it raises after the first epoch."""

    file: Path
    fails: bool = False

    def on_start(self, run: RunFacts) -> None:
        """Note it."""
        self._note("start")

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        """Note it, or fail."""
        self._note(f"epoch {metrics['epoch']}")
        if self.fails:
            raise ValueError("no tracker there")

    def on_end(self, summary: dict[str, Any]) -> None:
        """Note it."""
        self._note(f"end of {summary['ranks']} ranks")

    def _note(self, what: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{current().rank}: {what}\n")


def struck_rank(how: int) -> str:
    """Ranks talk with each other, and rank 1 gets a signal after the third word: what the others are told."""
    meeting.STEP_SECONDS, meeting.NAMING_SECONDS = 2.0, 3.0
    try:
        with joined() as here:
            for word in count(1):
                exchange([word])
                if here.rank == 1 and word == 3:
                    os.kill(os.getpid(), how)
    except RankLost as error:
        return str(error)
    raise AssertionError


def late_rank() -> str:
    """Rank 2 is killed when rank 0 has done all and leaves, and rank 1 has one word to wait for."""
    meeting.STEP_SECONDS, meeting.NAMING_SECONDS = 2.0, 4.0
    try:
        with joined() as here:
            exchange([0])
            if here.rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if here.rank == 1:
                exchange([1])
    except RankLost as error:
        return str(error)
    return ""


def stopped_rank(victim: int, parting: bool) -> str:
    """A rank hangs after the last step: while the first makes something for all, or when all part."""
    meeting.STEP_SECONDS, meeting.NAMING_SECONDS = 2.0, 4.0
    try:
        with joined() as here:
            exchange([0])
            if here.rank == victim:
                os.kill(os.getpid(), signal.SIGSTOP)
            if not parting:
                return from_first(lambda: "made", in_step=True)
    except RankLost as error:
        return str(error)
    return "parted"


def slow_rank(folder: Path, asked: bool) -> dict[str, Any]:
    """Rank 1 waits for each of its batches; with `asked` rank 0 is asked to stop meanwhile."""
    with joined() as here:
        photos, told = Photos(folder), count(1)
        waits = here.rank == 1
        lockstep = Lockstep(lambda: signal.SIGINT if asked and not waits and next(told) > 2 else None, photos)

        def slowly(batches: Iterator[Batch]) -> Iterator[Batch]:
            for batch in batches:
                for _ in range(3 if waits else 0):
                    if lockstep.waiting():
                        raise WaitStopped
                yield batch

        seen: list[tuple[int, int]] = []
        with Loader(photos, size=32, batch_size=4, device="cpu") as loader:
            try:
                for batch in lockstep.batches(slowly(loader.epoch(0))):
                    seen.append((len(batch), lockstep.samples))
            except WaitStopped:
                return {"seen": seen, "stopped": lockstep.stop()}
            sampler = loader.plan_sampler
            return {"seen": seen, "part": (sampler.rank, sampler.world_size), "batches": len(loader)}


Work = Callable[..., dict[str, Any]]
