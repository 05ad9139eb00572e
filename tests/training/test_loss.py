"""The loss: mixed labels, smoothing and weights of classes, against torch's own with shares of classes."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flowerfast.loaders.batch import Batch
from flowerfast.training.loss import balanced_weights, batch_loss, label_weights, right_answers

LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
LABELS, PARTNERS = torch.tensor([0, 1, 2, 2, 0]), torch.tensor([1, 1, 0, 2, 2])
SHARES = torch.tensor([0.9, 0.5, 0.2, 1.0, 0.7])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


def batch(mixed: bool) -> Batch:
    images, indices = torch.zeros(5, 3, 1, 1, dtype=torch.uint8), torch.arange(5)
    return Batch(images, LABELS, indices, *((PARTNERS, SHARES) if mixed else ()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_label_is_that_of_a_target_with_two_shares(smoothing: float) -> None:
    own, other = (F.one_hot(labels, 3).float() for labels in (LABELS, PARTNERS))
    shares = SHARES[:, None] * own + (1 - SHARES[:, None]) * other
    expected = F.cross_entropy(LOGITS, shares, label_smoothing=smoothing)
    loss, counted = batch_loss(LOGITS, batch(mixed=True), smoothing, None)
    torch.testing.assert_close(loss, expected)
    assert float(counted) == pytest.approx(5)


@pytest.mark.parametrize(("smoothing", "weights"), [*product([0.0, 0.1], [None, WEIGHTS])])
def test_a_mixed_label_of_a_share_of_one_is_a_plain_one(
    smoothing: float, weights: torch.Tensor | None
) -> None:
    mixed = batch(mixed=True)
    mixed.weight = torch.ones(5)
    plain = batch_loss(LOGITS, batch(mixed=False), smoothing, weights)
    for found, expected in zip(batch_loss(LOGITS, mixed, smoothing, weights), plain, strict=True):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), check_dtype=False)
    assert plain[0] == F.cross_entropy(LOGITS, LABELS, weights, label_smoothing=smoothing)


def test_a_mixed_label_weighs_as_its_two_classes_by_their_shares() -> None:
    """As if each sample were two, of the shares."""
    logits, labels = LOGITS.repeat(2, 1), torch.cat([LABELS, PARTNERS])
    counts = torch.cat([SHARES, 1 - SHARES]) * WEIGHTS[labels]
    each = F.cross_entropy(logits, labels, reduction="none")
    loss, counted = batch_loss(LOGITS, batch(mixed=True), 0.0, WEIGHTS)
    torch.testing.assert_close(loss, (counts * each).sum() / counts.sum())
    torch.testing.assert_close(counted, counts.sum())


def test_balanced_weights_give_each_class_the_same_part() -> None:
    labels = np.array([0] * 6 + [2] * 2 + [3] * 4)
    weights = balanced_weights(labels, 5)
    assert weights.dtype == torch.float32
    assert (weights * torch.tensor([6, 0, 2, 4, 0])).tolist() == pytest.approx([4, 0, 4, 4, 0])
    assert weights[[1, 4]].tolist() == [0, 0]


HOT = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]]).float()


def several(mixed: bool) -> Batch:
    images, indices = torch.zeros(5, 3, 1, 1, dtype=torch.uint8), torch.arange(5)
    return Batch(images, HOT, indices, *((HOT.flip(0), SHARES) if mixed else ()))


@pytest.mark.parametrize(("mixed", "weights"), [*product([False, True], [None, WEIGHTS])])
def test_several_labels_are_as_many_questions(mixed: bool, weights: torch.Tensor | None) -> None:
    """Each of them a cross-entropy of two classes: that it is there, and that it is not."""
    loss, counted = batch_loss(LOGITS, several(mixed), 0.1, weights)
    share = SHARES[:, None] if mixed else torch.ones(5, 1)
    there = (share * HOT + (1 - share) * HOT.flip(0)) * 0.9 + 0.05
    both = torch.stack([LOGITS, torch.zeros(5, 3)], -1).log_softmax(-1)
    each = -(there * both[..., 0] * (1 if weights is None else weights) + (1 - there) * both[..., 1])
    torch.testing.assert_close(loss, each.mean())
    assert counted == 5


def test_a_label_that_is_there_weighs_as_all_that_are_without_it() -> None:
    weights = label_weights(np.array([5, 2, 10, 0]), 10)
    assert (weights.dtype, weights.tolist()) == (torch.float32, [1.0, 4.0, 1.0, 1.0])


def test_right_answers_of_several_labels_are_the_share_of_right_decisions() -> None:
    logits = torch.tensor([[2.0, -2, -2], [1.0, -1, -1]])
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    assert right_answers(logits, labels).item() == pytest.approx(4 / 3)
    assert right_answers(logits, labels, threshold=0.8).item() == pytest.approx(5 / 3)
    assert right_answers(logits, torch.tensor([0, 1])).item() == 1
