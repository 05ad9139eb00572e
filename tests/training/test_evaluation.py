"""`evaluate`: all samples of all batches count, once each."""

import pytest
import torch
from torch import nn

from flowerfast.loaders.batch import Batch
from flowerfast.training.evaluation import evaluate
from flowerfast.training.state import Precision


class Brightest(nn.Module):
    """Uint8 images to logits: the class is the brightest channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3)) * self.weight


def test_evaluation_counts_all_samples_of_all_batches_and_leaves_the_mode_alone() -> None:
    images = torch.zeros(7, 3, 4, 4, dtype=torch.uint8)
    answers, labels = torch.tensor([0, 1, 2, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 2, 2])
    images[torch.arange(7), answers] = 9
    indices = torch.arange(7)
    batches = [
        Batch(images[rows], labels[rows], indices[rows]) for rows in (slice(5), slice(0, 0), slice(5, 7))
    ]
    model = Brightest()
    result = evaluate(model, batches, 3, Precision(None))
    assert result.confusion.matrix().tolist() == [[2, 0, 0], [0, 1, 1], [0, 1, 2]]
    assert result.top5 is None
    assert result.accuracy == pytest.approx(5 / 7)
    expected = nn.functional.cross_entropy(model(images), labels).item()
    assert result.loss == pytest.approx(expected)
    assert model.training
    nothing = evaluate(model.eval(), [], 3, Precision(None))
    assert (nothing.loss, nothing.accuracy, nothing.confusion.count.sum()) == (0, 0, 0)
    assert not model.training


def test_top_5_counts_answers_among_the_first_five() -> None:
    torch.manual_seed(0)
    pixels, labels = torch.rand(50, 7), torch.randint(0, 7, (50,))
    batch = Batch(pixels, labels, torch.arange(50))
    network = nn.Linear(7, 7)
    with torch.inference_mode():
        ranks = network(pixels).argsort(1, descending=True)
    result = evaluate(network, [batch], 7, Precision(None))
    assert result.top5 == pytest.approx((ranks[:, :5] == labels[:, None]).any(1).float().mean().item())
    assert result.top5 > result.accuracy
    assert result.confusion.count.sum() == 50
