"""No training step waits for the device: what it computes is read when an epoch ends."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from flowerfast.commands.display import TrainDisplay
from flowerfast.loaders.batch import Batch
from flowerfast.training import fit
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.evaluation import evaluate
from flowerfast.training.progress import Totals
from flowerfast.training.run import TrainResult
from flowerfast.training.state import Precision
from tests.training.syncs import Reads

Train = Callable[..., TrainResult]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.long().bincount(),
        lambda x: x.nonzero(),
        lambda x: x.to("meta"),
        lambda x: x.tolist(),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_reads_the_device_is_seen(read: Callable[[torch.Tensor], Any]) -> None:
    x = torch.arange(3.0)
    with Reads() as seen:
        x[torch.tensor([2, 0])].relu().to(torch.bfloat16)
        assert not seen.found
        read(x)
    assert seen.found


@pytest.mark.parametrize(
    ("settings", "terminal"),
    [({}, False), ({"train.schedule": "onecycle", "train.label_smoothing": 0.1, "train.amp": "bf16"}, True)],
    ids=["plain", "terminal"],
)
def test_steps_and_their_display_read_nothing(
    train_tiny: Train, photos: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], terminal: bool
) -> None:
    (photos / "red/03.jpg").write_bytes((photos / "red/03.jpg").read_bytes()[:700])  # a shorter batch
    epoch, seen, counts = fit.train_epoch, Reads(), list[list[int]]()

    class Watched(TrainDisplay):
        def start_epoch(self, epoch: int, batches: int, done: int) -> None:
            super().start_epoch(epoch, batches, done)
            counts.append([])

        def step(self, samples: int, totals: Totals) -> None:
            super().step(samples, totals)
            counts[-1].append(seen.found.total())

    def watched(run: TrainingRun) -> None:
        with seen:
            epoch(run)

    monkeypatch.setattr(fit, "train_epoch", watched)
    monkeypatch.setattr("flowerfast.commands.display._LIVE_SECONDS", 3600.0)
    shown = Watched(Console(file=io.StringIO(), force_terminal=terminal))
    try:
        train_tiny(settings={"data.kernels": "torchvision", "data.max_bad": 0.2, **settings}, reporter=shown)
    finally:
        shown.close()
    assert counts == [[0] * 4, [2] * 4]  # losses and weights, once an epoch: are they numbers?


def test_evaluation_reads_when_it_is_over() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    images, labels = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 0])

    def batches(seen: Reads) -> Iterator[Batch]:
        for samples in (5, 3, 0, 5):
            yield Batch(images[:samples], labels[:samples], torch.arange(samples))
            assert not seen.found

    with Reads() as seen:
        result = evaluate(model, batches(seen), 3, Precision(None))
    guessed = model(images).argmax(1)
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for true, guess in [*zip(labels.tolist(), guessed.tolist(), strict=True)] * 2:
        expected[true, guess] += 1
    for true, guess in zip(labels[:3].tolist(), guessed[:3].tolist(), strict=True):
        expected[true, guess] += 1
    assert result.confusion.matrix().tolist() == expected.tolist()
