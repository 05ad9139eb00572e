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
from flowerfast.training.finite import all_finite
from flowerfast.training.fit import train_step
from flowerfast.training.model import Classifier, with_normalisation
from flowerfast.training.state import Precision, TrainState, place_model
from tests.training.outcomes import same

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


# ------------------------------------------------------------------------ clipping, accumulation, an average


def batch_of(seeds: range, labels: int = 3) -> Batch:
    made = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=g) for g in made]
    return Batch(torch.stack(images), torch.tensor([s % labels for s in seeds]), torch.arange(len(seeds)))


def plain_model() -> Classifier:
    """Without statistics of a batch, of which a larger one has others."""
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    return Classifier(torch.nn.Sequential(*layers), [0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 3.0])])
@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_batches_that_make_one_step_are_as_one_batch_of_all_their_samples(
    amp: str, weights: torch.Tensor | None
) -> None:
    """Batches of unlike lengths, as the last one and damaged files make them."""
    one, parts = (
        TrainState(
            plain_model(),
            TrainConfig(lr=0.1, accumulate=k, batch_size=4, clip_grad=0.01, amp=amp),
            CPU,
            9,
            1,
            weights,
        )
        for k in (1, 3)
    )
    one.gradients(batch_of(range(9)))
    one.update()
    for seeds in (range(4), range(4, 6), range(6, 9)):
        parts.gradients(batch_of(seeds))
    assert parts.holds_gradients
    parts.update()
    assert not parts.holds_gradients
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if amp == "off" else {"rtol": 1e-2, "atol": 1e-4}
    torch.testing.assert_close(parts.model.state_dict(), one.model.state_dict(), **tolerance)


def test_a_gradient_is_clipped_to_its_norm() -> None:
    free, clipped = (
        TrainState(plain_model(), TrainConfig(lr=1.0, momentum=0, clip_grad=clip), CPU, 4)
        for clip in (None, 0.1)
    )
    before = [weight.detach().clone() for weight in free.model.parameters()]
    for state in (free, clipped):
        state.gradients(batch_of(range(4)))
    norm = torch.nn.utils.get_total_norm([w.grad for w in free.model.parameters() if w.grad is not None])
    free.update()
    assert clipped.update() == pytest.approx(norm.item())
    moved = [
        torch.cat(
            [(weight - old).flatten() for weight, old in zip(state.model.parameters(), before, strict=True)]
        )
        for state in (free, clipped)
    ]
    assert moved[1].norm().item() == pytest.approx(0.1, rel=1e-3)  # the learning rate is 1
    torch.testing.assert_close(moved[1] / moved[1].norm(), moved[0] / moved[0].norm(), rtol=1e-3, atol=1e-5)


def test_a_gradient_too_large_to_be_clipped_is_told_by_the_loss() -> None:
    """Its norm is infinite, and clipped by it the gradient is nothing: no weight would tell."""
    state = opened(clip_grad=1.0)
    state.gradients(batch_of(range(4)))
    for weight in state.model.parameters():
        assert weight.grad is not None
        weight.grad.fill_(1e30)
    loss, _ = train_step(state, batch_of(range(4)))
    assert loss.isnan()
    assert all_finite(state.model.parameters())
    loss, _ = train_step(state, batch_of(range(4)))
    assert loss.isfinite()


def test_the_average_follows_the_weights_by_a_decay_that_rises() -> None:
    state = opened(ema=0.5)
    assert state.evaluated is not state.model
    average = {}
    for step in range(6):
        steps(state, 1)
        decay = min(0.5, 1 - (1 + max(step - 0, 0)) ** (-2 / 3)) if step else 0.0
        for name, weight in state.model.network.named_parameters():
            average[name] = decay * average.get(name, 0) + (1 - decay) * weight.detach()
    found = dict(state.evaluated.network.named_parameters())
    for name, expected in average.items():
        torch.testing.assert_close(found[name].detach(), expected)
    assert not state.evaluated.training
    assert opened().evaluated is not None
    assert state.evaluated.network.bn1.num_batches_tracked == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "ema": 0.9, "accumulate": 3, "clip_grad": 0.1, "amp": "fp16"},
        {
            "optimizer": "muon",
            "schedule": "cosine-batch",
            "warmup_epochs": 2,
            "layer_decay": 0.5,
            "head_lr": 3,
        },
        {"accumulate": 2, "schedule": "onecycle", "decay_norms": False, "weight_decay": 0.1},
        {"freeze": 1, "ema": 0.5, "optimizer": "lamb"},
    ],
)
def test_a_state_with_all_options_goes_on_the_same(settings: dict[str, Any]) -> None:
    """Saved in the midst of the batches that make one step."""

    def go_on(state: TrainState) -> None:
        state.begin_epoch(1)
        state.gradients(batch_of(range(4, 8)))
        state.update()
        steps(state, 2)

    whole, other = opened(**settings), opened(**settings)
    torch.manual_seed(5)  # of the dropout
    steps(whole, 2)
    whole.end_epoch()
    if "accumulate" in settings:
        whole.gradients(batch_of(range(4)))
    saved = copy.deepcopy(whole.state_dict())
    assert ("accumulated" in saved) == ("accumulate" in settings)
    go_on(whole)
    torch.manual_seed(6)
    other.load_state_dict(saved)
    go_on(other)
    assert same(other.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("ema.network", {"fc.bias": torch.ones(2)}),
        ("ema.steps", "x"),
        ("accumulated.counted", torch.ones(3)),
        ("accumulated.gradients", {"fc.bias": torch.ones(2)}),
        ("accumulated.gradients", 3),
    ],
)
def test_a_state_with_options_that_does_not_fit_is_refused(place: str, value: Any) -> None:
    state = opened(ema=0.9, accumulate=2)
    saved = copy.deepcopy(state.state_dict())
    spoil(saved, place, value)
    with pytest.raises(ValueError, match=rf"^trainer\.{re.escape(place)}"):
        opened(ema=0.9, accumulate=2).load_state_dict(saved)


@pytest.mark.parametrize("lacking", ["ema", "accumulated"])
def test_a_state_without_what_the_options_need_is_refused(lacking: str) -> None:
    saved = opened(ema=0.9, accumulate=2).state_dict()
    del saved[lacking]
    with pytest.raises(KeyError, match=lacking):
        opened(ema=0.9, accumulate=2).load_state_dict(saved)
