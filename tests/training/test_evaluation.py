"""`evaluate`: all samples of all batches count, once each."""

from typing import Any

import pytest
import torch
from torch import nn

from flowerfast.loaders.batch import Batch
from flowerfast.training import evaluation as module
from flowerfast.training.evaluation import answer, evaluate, evaluate_labels, probabilities
from flowerfast.training.label_scores import LabelScores
from flowerfast.training.mistakes import confident_mistakes
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


def test_parts_of_ranks_are_put_together_and_each_sample_counts_once() -> None:
    network, batches, _ = random_batches(4)
    alone = evaluate(network, batches, 4, Precision(None))
    parts: list[Any] = []
    for part in (batches[:1], batches[1:], []):
        evaluate(network, part, 4, Precision(None), gather=lambda mine: parts.append(mine) or [mine])
    result = evaluate(network, batches[:1], 4, Precision(None), gather=lambda _: parts)
    assert result.loss == pytest.approx(alone.loss)
    assert result.confusion.to_json() == alone.confusion.to_json()
    assert result.answers.calibration() == alone.answers.calibration()
    assert confident_mistakes(result.answers) == confident_mistakes(alone.answers)


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


def random_batches(classes: int) -> tuple[nn.Module, list[Batch], torch.Tensor]:
    """(network, batches, all its probabilities for the images as they are)."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, classes))
    images, labels = torch.rand(20, 3, 4, 4), torch.randint(0, classes, (20,))
    batches = [
        Batch(images[rows], labels[rows], torch.arange(20)[rows]) for rows in (slice(12), slice(12, 20))
    ]
    with torch.inference_mode():
        return network, batches, network(images).softmax(1)


def test_with_flip_probabilities_of_an_image_and_its_mirror_image_are_averaged() -> None:
    network, batches, chances = random_batches(4)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.inference_mode():
        mean = (chances + network(images.flip(3)).softmax(1)) / 2
    result = evaluate(network, batches, 4, Precision(None), flip=True)
    assert result.answers.predicted.tolist() == mean.argmax(1).tolist()
    assert result.answers.confidence == pytest.approx(mean.amax(1).numpy())
    assert result.loss == pytest.approx(nn.functional.nll_loss(mean.log(), labels).item())
    assert result.loss != pytest.approx(evaluate(network, batches, 4, Precision(None)).loss)
    again = [Batch(batch.images.flip(3), batch.labels, batch.indices) for batch in batches]
    assert evaluate(network, again, 4, Precision(None), flip=True).loss == pytest.approx(result.loss)


@pytest.mark.parametrize(("most", "kept"), [(80, True), (79, False)])
def test_answers_are_kept_and_logits_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: bool
) -> None:
    monkeypatch.setattr(module, "MOST_LOGITS", most)
    network, batches, chances = random_batches(4)
    answers = evaluate(network, batches, 4, Precision(None)).answers
    assert answers.confidence == pytest.approx(chances.amax(1).numpy())
    assert answers.own == pytest.approx(chances.gather(1, torch.from_numpy(answers.labels)[:, None])[:, 0])
    assert answers.indices.tolist() == [*range(20)]
    assert answers.labels.tolist() == torch.cat([batch.labels for batch in batches]).tolist()
    assert (answers.logits is not None) == kept
    if answers.logits is not None:
        assert torch.equal(answers.logits.softmax(1).argmax(1), chances.argmax(1))


def test_several_labels_of_all_ranks_are_ranked_together() -> None:
    """The average precision of a whole is no mean of those of its parts."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 2, (9, 3, 4, 4), dtype=torch.uint8, generator=generator)
    labels = (torch.rand(9, 3, generator=generator) < 0.5).float()
    rows = [slice(4), slice(4, 4), slice(4, 9)]
    batches = [Batch(images[each], labels[each], torch.arange(9)[each]) for each in rows]
    model = Brightest()
    whole = evaluate_labels(model, batches, 3, Precision(None), threshold=0.6)
    logits = model(images)
    assert whole.loss == pytest.approx(nn.functional.binary_cross_entropy_with_logits(logits, labels).item())
    expected = LabelScores.of(labels.bool().numpy(), logits.sigmoid().detach().numpy(), 0.6)
    assert whole.scores.to_json() == expected.to_json()
    parts: list[Any] = []
    for part in (batches[:1], batches[1:], []):
        evaluate_labels(model, part, 3, Precision(None), gather=lambda mine: parts.append(mine) or [mine])
    again = evaluate_labels(model, batches[:1], 3, Precision(None), gather=lambda _: parts, threshold=0.6)
    assert again.scores.to_json() == whole.scores.to_json()
    assert again.loss == pytest.approx(whole.loss)
    assert model.training
    assert evaluate_labels(model, [], 3, Precision(None)).figures()["map"] == 0


def test_a_mirror_image_is_averaged_label_by_label() -> None:
    class Left(Brightest):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images[..., 0].float().mean(2) - 90) * self.weight

    generator, model = torch.Generator().manual_seed(2), Left()
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=generator)
    expected = (model(images).sigmoid() + model(images.flip(-1)).sigmoid()) / 2
    torch.testing.assert_close(
        probabilities(answer(model, images, True, several=True), several=True), expected, atol=1e-6, rtol=1e-5
    )
