"""What is frozen learns nothing and keeps its statistics; let go, it learns."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from flowerfast.config import TrainConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.settings import load_config
from flowerfast.training.compiling import compile_network
from flowerfast.training.fit import train_step
from flowerfast.training.freezing import Freezing
from flowerfast.training.model import Classifier
from flowerfast.training.state import TrainState

SIDE = 32
HEAD = {
    f"5.{name}"
    for name in (
        "0.weight",
        "0.bias",
        "0.running_mean",
        "0.running_var",
        "0.num_batches_tracked",
        "1.weight",
        "1.bias",
    )
}


def opened(freeze: int | str) -> TrainState:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = nn.Sequential(*layers, nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)))
    vars(network)["pretrained_cfg"] = {"classifier": "5"}  # as those of timm say it
    model = Classifier(network, [0.5] * 3, [0.5] * 3)
    config = TrainConfig(freeze=freeze, batch_size=4, lr=0.1, weight_decay=0.1, schedule="constant")
    return TrainState(model, config, torch.device("cpu"), 1)


def step(state: TrainState) -> None:
    images = torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8)
    train_step(state, Batch(images.permute(0, 3, 1, 2), torch.tensor([0, 1, 2, 0]), torch.arange(4)))


def changed(state: TrainState, before: dict[str, torch.Tensor]) -> set[str]:
    now = state.model.network.state_dict()
    return {name for name in now if not torch.equal(now[name], before[name])}


@pytest.mark.parametrize("compiled", [False, True])
def test_the_head_alone_learns_until_the_backbone_is_let_go(compiled: bool) -> None:
    state, counter = opened(1), CompileCounterWithBackend("eager")
    if compiled:
        compile_network(state, SIDE, "on", counter)
    before = copy.deepcopy(state.model.network.state_dict())
    state.begin_epoch(0)
    step(state)
    assert changed(state, before) == HEAD
    assert all(weight.grad is None for weight in state.model.parameters())
    state.begin_epoch(1)
    step(state)
    assert changed(state, before) == before.keys()
    assert counter.frame_count == (2 if compiled else 0)  # once more when there is more to learn
    torch.compiler.reset()


def test_a_backbone_that_is_frozen_for_good_stays_so_after_an_evaluation() -> None:
    state = opened("backbone")
    before = copy.deepcopy(state.model.network.state_dict())
    for epoch in range(3):
        state.model.eval()
        state.begin_epoch(epoch)
        step(state)
        assert state.model.network[5].training
    assert changed(state, before) == HEAD


def test_weights_that_a_network_keeps_to_itself_are_not_let_go() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    network.layer1[0].conv1.weight.requires_grad_(False)
    Freezing(network, TrainConfig(freeze=1)).begin_epoch(1)
    assert not network.layer1[0].conv1.weight.requires_grad


def stages(name: str, **settings: Any) -> TrainState:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, pretrained=False)
    config = TrainConfig(batch_size=4, lr=0.1, weight_decay=0.1, schedule="constant", **settings)
    return TrainState(Classifier(network, [0.5] * 3, [0.5] * 3), config, torch.device("cpu"), 1)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("test_resnet", ("conv1.", "bn1.", "layer1.", "layer2.")),
        ("test_efficientnet", ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")),
        ("test_convnext", ("stem.", "stages.0.", "stages.1.")),
    ],
)
def test_frozen_stages_never_learn_and_all_others_do(name: str, frozen: tuple[str, ...]) -> None:
    state = stages(name, frozen_stages=3)
    before = copy.deepcopy(state.model.network.state_dict())
    for epoch in range(2):
        state.begin_epoch(epoch)
        step(state)
    assert changed(state, before) == {each for each in before if not each.startswith(frozen)}


def test_frozen_stages_stay_frozen_when_the_backbone_is_let_go() -> None:
    state = stages("test_resnet", frozen_stages=2, freeze=1)
    before = copy.deepcopy(state.model.network.state_dict())
    step(state)
    assert changed(state, before) == {"fc.weight", "fc.bias"}
    state.begin_epoch(1)
    step(state)
    assert not any(each.startswith(("conv1.", "bn1.", "layer1.")) for each in changed(state, before))
    assert any(each.startswith("layer2.") for each in changed(state, before))


def test_as_many_stages_as_there_are_before_the_head_can_be_frozen() -> None:
    stages("test_resnet", frozen_stages=5)
    with pytest.raises(
        UserError, match=r"^train\.frozen_stages=6: this network has 5 before its head; set fewer$"
    ):
        stages("test_resnet", frozen_stages=6)


def test_a_network_whose_stages_are_not_known_is_refused() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), [0.5] * 3, [0.5] * 3)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^train\.frozen_stages: timm does not say which stages"):
            TrainState(model, TrainConfig(frozen_stages=1), torch.device("cpu"), 1)
        model.network.group_matcher = timm.create_model("rdnet_tiny", pretrained=False).group_matcher


def test_a_network_whose_head_is_not_known_is_refused() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), [0.5] * 3, [0.5] * 3)
    with pytest.raises(
        UserError, match=r"^train\.freeze: timm does not say which layer is this network's head"
    ):
        TrainState(model, TrainConfig(freeze=1), torch.device("cpu"), 1)


def test_the_recipe_for_a_cpu_freezes_stages_that_its_network_has() -> None:
    recipe = load_config("cpu")
    network = timm.create_model(recipe.model.name, num_classes=5, pretrained=False)
    Freezing(network, recipe.train).begin_epoch(0)
    learning = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert 0 < len(learning) < len([*network.parameters()])
