"""What changes from step to step: schedules, precision, memory format; saved and brought back."""

import copy
import math
import re
from typing import Any

import pytest
import timm
import torch

from flowerfast.config import TrainConfig
from flowerfast.loaders.batch import Batch
from flowerfast.training.fit import train_step
from flowerfast.training.model import Classifier, with_normalisation
from flowerfast.training.state import Precision, TrainState, place_model

CPU = torch.device("cpu")


def model() -> Classifier:
    torch.manual_seed(0)
    return with_normalisation(timm.create_model("test_resnet", num_classes=3, drop_rate=0.5))


def opened(batches: int = 4, **settings: Any) -> TrainState:
    return TrainState(model(), TrainConfig(**{"lr": 0.1, "epochs": 4, **settings}), CPU, batches)


def steps(state: TrainState, count: int) -> None:
    for seed in range(count):
        made = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=made)
        train_step(state, Batch(images, torch.tensor([0, 1, 2, 0]), torch.arange(4)))


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "step", "step_size": 2, "gamma": 0.1}, [0.1, 0.1, 0.01, 0.01]),
        ({"schedule": "constant"}, [0.1] * 4),
        ({"schedule": "cosine"}, [0.1, 0.0853553, 0.05, 0.0146447]),
    ],
)
def test_schedules_by_epoch(settings: dict[str, Any], rates: list[float]) -> None:
    state, found = opened(**settings), []
    for _ in range(4):
        found.append(state.optimizer.param_groups[0]["lr"])
        steps(state, 1)
        state.end_epoch()
    assert found == pytest.approx(rates, rel=1e-5)


def test_onecycle_goes_by_batch() -> None:
    state, found = opened(schedule="onecycle", epochs=2), []
    for _ in range(2):
        for _ in range(4):
            found.append(state.optimizer.param_groups[0]["lr"])
            steps(state, 1)
        state.end_epoch()
    assert max(found) == pytest.approx(0.1, rel=0.05)
    assert found[0] < 0.01
    assert found[-1] < found[0]
    assert len(set(found)) == 8


@pytest.mark.parametrize("schedule", ["step", "onecycle"])
def test_a_state_that_is_brought_back_goes_on_the_same(schedule: str) -> None:
    settings = {"schedule": schedule, "step_size": 1, "weight_decay": 0.01}
    whole = opened(**settings)
    torch.manual_seed(5)  # of the dropout
    steps(whole, 2)
    whole.end_epoch()
    saved = copy.deepcopy(whole.state_dict())
    steps(whole, 2)
    torch.manual_seed(6)
    other = opened(**settings)
    other.load_state_dict(saved)
    steps(other, 2)
    expected, found = whole.state_dict(), other.state_dict()
    assert found.keys() == expected.keys() == {"network", "optimizer", "scheduler", "scaler", "rng"}
    assert all(torch.equal(found["network"][key], expected["network"][key]) for key in expected["network"])
    assert torch.equal(found["rng"], expected["rng"])
    assert found["scheduler"] == expected["scheduler"]
    momenta = [state["optimizer"]["state"][0]["momentum_buffer"] for state in (found, expected)]
    assert torch.equal(*momenta)


def spoil(state: dict[str, Any], place: str, value: Any) -> None:
    *above, last = [int(name) if name.isdecimal() else name for name in place.split(".")]
    for name in above:
        state = state[name]
    state[last] = value


GROUP, MOMENTUM = "optimizer.param_groups.0", "optimizer.state.0.momentum_buffer"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((f"{GROUP}.lr", value) for value in ("x", None, [1], torch.ones(2), math.nan, 2**60)),
        *((f"{GROUP}.{name}", value) for name in ("momentum", "weight_decay") for value in ("x", None)),
        (f"{GROUP}.params", [1]),
        ("optimizer.param_groups", []),
        *((MOMENTUM, value) for value in ("x", torch.ones(2), torch.ones(2).to_sparse())),
        ("optimizer.state.9999", {"momentum_buffer": None}),
        ("optimizer.state", {"a": {}}),
        *((f"scheduler.{name}", "x") for name in ("last_epoch", "_step_count", "base_lrs", "_last_lr")),
        ("scheduler.last_epoch", 1.5),
        ("scheduler", [1]),
        ("scaler", 1),
        ("rng", torch.ones(3)),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_its_place(place: str, value: Any) -> None:
    state = opened()
    steps(state, 1)
    saved = copy.deepcopy(state.state_dict())
    spoil(saved, place, value)
    with pytest.raises(ValueError, match=rf"^trainer\.{re.escape(place.rpartition('.')[0])}"):
        opened().load_state_dict(saved)


def test_of_a_schedule_only_what_changes_is_taken() -> None:
    """Whatever else a save holds: it would take the place of methods."""
    saved = copy.deepcopy(opened(schedule="onecycle").state_dict())
    saved["scheduler"] |= {"step": 5, "optimizer": None, "get_lr": "x", "total_steps": 1}
    state = opened(schedule="onecycle")
    state.load_state_dict(saved)
    steps(state, 2)
    assert state.scheduler.last_epoch == 2


@pytest.mark.parametrize(
    ("amp", "dtype", "name"),
    [
        ("auto", None, "off"),
        ("off", None, "off"),
        ("bf16", torch.bfloat16, "bf16"),
        ("fp16", torch.float16, "fp16"),
    ],
)
def test_precision_on_a_cpu(amp: str, dtype: torch.dtype | None, name: str) -> None:
    precision = Precision.choose(amp, CPU)
    assert (precision.dtype, precision.name) == (dtype, name)
    with precision.autocast(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (dtype or torch.float32)


@pytest.mark.parametrize(("setting", "last"), [("on", True), ("off", False), ("auto", False)])
def test_memory_format_of_a_model_on_a_cpu(setting: str, last: bool) -> None:
    placed = place_model(model(), TrainConfig(channels_last=setting), CPU)
    kernels = [p for p in placed.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) == last for p in kernels)
