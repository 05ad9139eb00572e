"""Calibration error and temperature: by hand, and against another way to find it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from flowerfast.training import calibration as module
from flowerfast.training.calibration import BINS, Answers, Calibration, fit_temperature


def answers(logits: torch.Tensor, labels: torch.Tensor, keep: bool = True) -> Answers:
    confidence, predicted = logits.softmax(1).max(1)
    kept = logits if keep else None
    return Answers(labels.numpy(), predicted.numpy(), confidence.numpy(), *extra(len(labels)), kept)


def extra(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the labels, and sample indices."""
    return np.zeros(samples, np.float32), np.arange(samples)


def drawn(samples: int, classes: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `temperature` times too large, and labels drawn from what they should be."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(samples, classes, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * temperature, labels


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.66, 0.65, 0.7, 1.0], np.float32)  # the tenth bin ends at 2/3, the last with 1
    right = np.array([True, False, True, True])
    found = Answers(np.zeros(4, np.int64), np.where(right, 0, 1), confidence, *extra(4), None).calibration()
    tenth, eleventh, last = (found.bins[n] for n in (9, 10, 14))
    assert len(found.bins) == BINS == 15
    assert [one.count for one in (tenth, eleventh, last)] == [2, 1, 1]
    assert sum(one.count for one in found.bins) == 4
    assert (tenth.accuracy, tenth.confidence) == (0.5, pytest.approx(0.655))
    expected = (2 * abs(0.5 - 0.655) + abs(1 - 0.7) + 0) / 4
    assert found.ece == pytest.approx(expected, abs=1e-7)
    assert (found.temperature, found.scaled_ece) == (None, None)


def test_no_photos_have_no_error_and_no_temperature() -> None:
    found = answers(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).calibration()
    assert (found.ece, found.temperature, sum(one.count for one in found.bins)) == (0, None, 0)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("part", [7, 1 << 20])
def test_the_temperature_has_the_least_loss_and_undoes_what_was_done(
    monkeypatch: pytest.MonkeyPatch, temperature: float, part: int
) -> None:
    monkeypatch.setattr(module, "_PART", part * 4)
    samples = 300 if part == 7 else 20_000
    logits, labels = drawn(samples, 4, temperature)
    best = minimize_scalar(
        lambda t: F.cross_entropy(logits.double() / t, labels).item(), bounds=(0.1, 10), method="bounded",
        options={"xatol": 1e-7},
    )  # fmt: skip
    found = answers(logits, labels).calibration()
    assert found.temperature == pytest.approx(best.x, rel=1e-4)
    assert found.scaled_loss == pytest.approx(best.fun, rel=1e-5)
    if samples == 20_000:
        assert found.temperature == pytest.approx(temperature, rel=0.05)
        assert found.scaled_ece is not None
        assert found.scaled_ece < 0.02
        assert (found.ece > 0.05) == (temperature != 1.0)


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2, 0]], ids=["all right", "all wrong"])
def test_where_no_temperature_is_best_there_is_none(labels: list[int]) -> None:
    logits = torch.eye(3) * 5
    assert fit_temperature(logits, torch.tensor(labels)) is None
    found = answers(logits, torch.tensor(labels)).calibration()
    assert found.problem == "none fits, as where all answers are right, or none is better than a guess"


def test_answers_that_are_no_numbers_have_no_confidence() -> None:
    logits = torch.tensor([[float("nan"), 0.0], [1.0, 0.0]])
    found = answers(logits, torch.tensor([0, 0])).calibration()
    assert [found.bins[0].count, found.bins[0].confidence, found.temperature] == [1, 0.0, None]
    assert np.isfinite(found.ece)


def test_too_many_logits_to_keep_leave_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(50, 3, 1.0)
    whole, without = answers(logits, labels).calibration(), answers(logits, labels, keep=False).calibration()
    assert without == Calibration(
        whole.ece, whole.bins, problem="more than 16,777,216 logits: none is fitted"
    )
