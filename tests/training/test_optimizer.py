"""Optimisers: any of timm's goes on exactly from a save; groups of weights; what cannot be had is refused."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from flowerfast.config import TrainConfig
from flowerfast.errors import UserError
from flowerfast.training.optimizer import check_optimizer, load_optimizer, make_optimizer
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.schedule import make_schedule

OUTSIDE = [name for name in list_optimizers() if isinstance(get_optimizer_info(name).opt_class, str)]
OURS = [name for name in list_optimizers() if name not in {*OUTSIDE, "adahessian"}]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


class Steps:
    """An optimiser of that network with its schedule, and its steps."""

    def __init__(self, **settings: Any) -> None:
        self.network, self.config = network(), TrainConfig(**{"lr": 0.01, "schedule": "onecycle", **settings})
        self.optimizer = make_optimizer(self.network, self.config)
        self.schedule = make_schedule(self.optimizer, self.config, 10)

    def take(self, seeds: range) -> None:
        for seed in seeds:
            made = torch.Generator().manual_seed(seed)
            answers = self.network(torch.randn(4, 3, 8, 8, generator=made))
            nn.functional.cross_entropy(answers, torch.tensor([0, 1, 2, 0])).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()

    def save(self) -> dict[str, Any]:
        """As a file would bring it back."""
        parts = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        file.seek(0)
        saved: dict[str, Any] = torch.load(file, weights_only=True)
        return saved

    def load(self, saved: dict[str, Any]) -> None:
        load_optimizer(self.optimizer, saved["optimizer"], "optimizer")
        self.network.load_state_dict(saved["network"])
        self.schedule.load_state_dict(saved["schedule"])


@pytest.mark.filterwarnings("ignore:It is highly recommended to have .opt_einsum")
@pytest.mark.parametrize(
    ("name", "steps"), [*((name, 3) for name in OURS), *((name, 0) for name in ("adan", "lamb", "kron"))]
)
def test_any_optimiser_goes_on_exactly_from_a_save(name: str, steps: int) -> None:
    whole, resumed = (Steps(optimizer=name, weight_decay=0.01) for _ in range(2))
    with torch.compiler.set_stance("force_eager"):  # one of them compiles, for a minute and a half
        whole.take(range(steps))
        saved = whole.save()
        torch.manual_seed(1)  # of those that draw
        whole.take(range(steps, steps + 3))
        resumed.load(saved)
        torch.manual_seed(1)
        resumed.take(range(steps, steps + 3))
    expected = whole.network.state_dict()
    assert all(torch.equal(found, expected[key]) for key, found in resumed.network.state_dict().items())
    assert not torch.equal(expected["0.weight"], saved["network"]["0.weight"])


def test_sgd_is_torchs_own_over_all_weights_in_one_group() -> None:
    """As it was before there was a choice, so that the saves of that time fit."""
    mine, model = Steps(weight_decay=0.1, schedule="constant"), network()
    theirs = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    found, expected = mine.optimizer.state_dict(), theirs.state_dict()
    (group,) = found["param_groups"]
    assert group.pop("initial_lr") == 0.01  # the schedule's
    assert group | {"fused": None} == expected["param_groups"][0]
    assert type(mine.optimizer) is torch.optim.SGD


# --------------------------------------------------------------------------------------- groups of weights


def groups(name: str = "test_resnet", **settings: Any) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) of each weight by its name."""
    model = timm.create_model(name, num_classes=3)
    made = make_optimizer(model, TrainConfig(**{"lr": 0.1, "weight_decay": 0.2, **settings}))
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {
        names[id(weight)]: (group["lr"], group["weight_decay"])
        for group in made.param_groups
        for weight in group["params"]
    }
    assert found.keys() == set(names.values())
    return found


def test_norms_and_biases_decay_unless_told_otherwise() -> None:
    assert set(groups().values()) == {(0.1, 0.2)}
    spared = {name for name, (_, decay) in groups(decay_norms=False).items() if decay == 0}
    expected = timm.create_model("test_resnet", num_classes=3).named_parameters()
    assert spared == {name for name, weight in expected if weight.ndim == 1}
    assert groups("test_vit", decay_norms=False)["pos_embed"] == (0.1, 0)  # as timm's networks say themselves


def test_the_head_has_a_learning_rate_of_its_own() -> None:
    rates = groups(head_lr=10)
    assert {name for name, (rate, _) in rates.items() if rate == 1.0} == {"fc.weight", "fc.bias"}
    assert {rate for rate, _ in rates.values()} == {0.1, 1.0}
    with pytest.raises(UserError, match=r"^train\.head_lr: timm does not say which layer is"):
        make_optimizer(network(), TrainConfig(head_lr=10))


def test_rates_fall_from_layer_to_layer_towards_the_photo() -> None:
    rates = groups("test_vit", layer_decay=0.5, head_lr=3, decay_norms=False)
    assert rates["head.weight"] == (pytest.approx(0.3), 0.2)
    assert rates["head.bias"] == (pytest.approx(0.3), 0)
    blocks = [rates[f"blocks.{number}.mlp.fc1.weight"][0] for number in range(2)]
    assert blocks[0] == pytest.approx(blocks[1] / 2)
    assert rates["patch_embed.proj.weight"][0] < blocks[0]


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"optimizer": "adamww"},
            r"^train\.optimizer='adamww': no such optimiser here; did you mean 'adamw' or",
        ),
        (
            {"optimizer": "zzz"},
            r"^train\.optimizer='zzz': no such .*; timm\.optim\.list_optimizers\(\) in Python names all$",
        ),
        ({"optimizer": "adahessian"}, r"no such optimiser here"),  # asks for second derivatives
        ({"optimizer": "nesterov", "momentum": 0}, r"^train\.optimizer=nesterov: Nesterov momentum requires"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(
    train_tiny: Callable[..., TrainResult], run_folder: RunFolder, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train_tiny(settings={f"train.{name}": value for name, value in settings.items()})
    assert not run_folder.path.exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_optimisers_of_packages_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^train\.optimizer={name}: .*; choose another, as adamw$"):
        check_optimizer(TrainConfig(optimizer=name))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state["state"][0].pop("exp_avg"), r"^optimizer\.state\.0: no exp_avg$"),
        (lambda state: state["state"][0].update(exp_avg=torch.ones(2)), r"^optimizer\.state\.0\.exp_avg: "),
        (lambda state: state["state"].update({99: {}}), r"^optimizer\.state\.99: of none of the 6 weights$"),
        (
            lambda state: state["param_groups"][0].update(betas=(0.9,)),
            r"^optimizer\.param_groups\.0\.betas: ",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_its_place(
    spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    steps = Steps(optimizer="adamw")
    steps.take(range(1))
    saved = steps.save()["optimizer"]
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        load_optimizer(Steps(optimizer="adamw").optimizer, saved, "optimizer")


@pytest.mark.parametrize("layer_decay", [None, 1.0])
def test_the_learning_rate_follows_the_samples_of_a_step(layer_decay: float | None) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    for scale, expected in ((None, 0.1), (64, 0.1 * 32 * 4 / 64)):
        config = TrainConfig(lr=0.1, batch_size=32, accumulate=4, scale_lr=scale, layer_decay=layer_decay)
        assert make_optimizer(model, config).param_groups[0]["lr"] == pytest.approx(expected)
