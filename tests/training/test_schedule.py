"""The rise at the beginning, schedules by step, and optimisers without momentum."""

from typing import Any

import pytest
import torch

from flowerfast.config import TrainConfig
from flowerfast.errors import UserError
from flowerfast.training.optimizer import make_optimizer
from flowerfast.training.schedule import goes_by_step, make_schedule


def rates(steps: int, per_epoch: int = 4, **settings: Any) -> list[float]:
    """The learning rate of each step."""
    config = TrainConfig(**{"lr": 1.0, "epochs": 3, **settings})
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    schedule = make_schedule(optimizer, config, per_epoch)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if goes_by_step(config) or step % per_epoch == per_epoch - 1:
            schedule.step()
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant", "warmup_epochs": 1.5}, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1]),
        ({"schedule": "constant", "warmup_epochs": 0.1}, [1.0] * 4),  # less than a step
        ({"step_size": 1, "warmup_epochs": 1}, [0.25, 0.5, 0.75, 1, *[0.1] * 4, *[0.01] * 4]),
        ({"schedule": "cosine", "warmup_epochs": 0.5}, [0.5, *[1] * 3, *[0.75] * 4, *[0.25] * 4]),
        ({"schedule": "cosine-batch", "epochs": 1}, [1, 0.8535534, 0.5, 0.1464466]),
        ({"schedule": "cosine-batch", "epochs": 1, "warmup_epochs": 0.5}, [0.5, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_rates_step_by_step(settings: dict[str, Any], expected: list[float]) -> None:
    assert rates(len(expected), **settings) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_without_a_rise_epochs_go_as_they_would_behind_a_short_one(schedule: str) -> None:
    plain, risen = (rates(12, schedule=schedule, step_size=1, warmup_epochs=e) for e in (0, 0.25))
    assert plain == pytest.approx(risen)


@pytest.mark.parametrize("name", ["adagrad", "adan", "muon"])
def test_onecycle_takes_optimisers_with_and_without_momentum(name: str) -> None:
    found = rates(12, schedule="onecycle", optimizer=name)
    assert max(found) == pytest.approx(1.0, rel=0.05)
    assert found[0] < 0.1 > found[-1]


def test_onecycle_has_a_rise_of_its_own() -> None:
    with pytest.raises(
        UserError, match=r"^TrainConfig: warmup_epochs=1: onecycle rises by itself; leave it at"
    ):
        TrainConfig(schedule="onecycle", warmup_epochs=1)
