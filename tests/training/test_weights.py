"""Weights from local files: whose they are, how they are wrapped, what is refused."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flowerfast.config import ModelConfig
from flowerfast.errors import UserError
from flowerfast.training.architecture import Architecture
from flowerfast.training.model import build_network

THREE = ("daisy", "rose", "tulip")


def saved(network: nn.Module, file: Path, content: Any = None) -> str:
    """Write a network's state dict (or `content`) in the format of the file's suffix."""
    state = {k: v.clone() for k, v in network.state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(content if content is not None else state, file)
    return str(file)


def randomised(network: nn.Module) -> nn.Module:
    """The network with every tensor away from its initial value, so that a load that does nothing shows."""
    made = torch.Generator().manual_seed(9)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=made) + 0.1
    return network


def equal(left: nn.Module, right: nn.Module, but: tuple[str, ...] = ()) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if not k.startswith(but))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_head_is_kept_when_the_classes_are_as_many(build, tmp_path, suffix, name):
    source = randomised(build(name))
    found = build(name, weights=saved(source, tmp_path / f"w{suffix}"))
    assert equal(found, source)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("name", "head"),
    [("test_resnet", "fc."), ("test_convnext", "head.fc."), ("test_efficientnet", "classifier.")],
)
def test_head_is_replaced_when_they_are_not(build, tmp_path, suffix, name, head):
    source = randomised(build(name, classes=tuple(map(str, range(10)))))
    weights = saved(source, tmp_path / f"w{suffix}")
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(build(name, weights=weights))
    assert all(equal_but_head(network, source, head) for network in found)
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])
    weight = found[0].state_dict()[f"{head}weight"]
    # torch's init of a linear layer, however few the classes.
    assert weight.abs().max() <= weight.shape[1] ** -0.5
    assert weight.abs().max() > 0.8 * weight.shape[1] ** -0.5


def equal_but_head(found: nn.Module, source: nn.Module, head: str) -> bool:
    shapes = {k: tuple(v.shape) for k, v in found.state_dict().items() if k.startswith(head)}
    assert shapes.keys() == {f"{head}weight", f"{head}bias"}
    assert all(shape[0] == len(THREE) for shape in shapes.values())
    return equal(found, source, but=(head,))


def test_half_a_head_is_replaced_as_a_whole(build, tmp_path):
    source = randomised(build())
    state = OrderedDict((k, v) for k, v in source.state_dict().items() if k != "fc.bias")
    found = build(weights=saved(source, tmp_path / "w.pth", state))
    assert equal(found, source, but=("fc.",))
    assert not torch.equal(found.state_dict()["fc.weight"], state["fc.weight"])


def test_weights_without_a_head_are_taken(build, tmp_path):
    source = randomised(build())
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}
    assert equal(build(weights=saved(source, tmp_path / "w.pth", state)), source, but=("fc.",))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "student.backbone."]
)
def test_checkpoints_of_other_trainers_are_unwrapped(build, tmp_path, wrapper, prefix):
    source, said = randomised(build()), []
    content = {wrapper: {prefix + k: v for k, v in source.state_dict().items()}, "epoch": 3}
    file = saved(source, tmp_path / "w.pth", content)
    settings = ModelConfig(name="test_resnet", pretrained=False, weights=file)
    assert equal(build_network(settings, THREE, 32, 0.875, said.append), source)
    assert len(said) == bool(prefix)
    if prefix:
        assert prefix.replace("_orig_mod.", "") in said[0]
        assert said[0].endswith(f"stripped from the names in {file}")


def test_what_stands_beside_the_network_is_left_out_and_said(build, tmp_path):
    source, said = randomised(build()), []
    state = {f"backbone.{k}": v for k, v in source.state_dict().items() if not k.startswith("fc.")}
    state |= {"projection.weight": torch.zeros(4, 4), "loss.scale": torch.ones(1)}
    state["backbone.layer1._orig_mod.0.conv1.weight"] = state.pop("backbone.layer1.0.conv1.weight")
    file = saved(source, tmp_path / "w.pth", state)
    settings = ModelConfig(name="test_resnet", pretrained=False, weights=file)
    assert equal(build_network(settings, THREE, 32, 0.875, said.append), source, but=("fc.",))
    assert said == [
        f"weights: _orig_mod. and backbone. stripped from the names, 2 tensors without it left out in {file}"
    ]


def test_a_head_for_other_classes_of_the_same_number_is_replaced(build, tmp_path):
    source = randomised(build())
    (tmp_path / "config.json").write_text('{"label_names": ["daisy", "rose", "thistle"]}')
    weights = saved(source, tmp_path / "w.safetensors")
    assert equal(build(weights=weights), source, but=("fc.",))
    assert not equal(build(weights=weights), source)
    assert equal(build(weights=weights, classes=("daisy", "rose", "thistle")), source)


def test_weights_file_wins_over_the_hub(build, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Architecture, "create_pretrained", None)
    source = randomised(build())
    assert equal(build(weights=saved(source, tmp_path / "w.pth"), pretrained=True), source)


def test_weights_of_another_model_are_refused(build, tmp_path):
    weights = saved(build("test_convnext"), tmp_path / "w.safetensors")
    with pytest.raises(
        UserError,
        match=r"model\.weights=.*w\.safetensors.*model\.name=test_resnet: none of its \d+ tensors \(first: ",
    ):
        build(weights=weights)


def test_weights_of_another_shape_are_refused_with_tensor_and_shapes(build, tmp_path):
    source = build()
    state = source.state_dict()
    key = next(k for k, v in state.items() if v.ndim == 4)
    want = tuple(state[key].shape)
    state[key] = torch.zeros(7, *want[1:])
    weights = saved(source, tmp_path / "w.pth", state)
    with pytest.raises(UserError) as caught:
        build(weights=weights)
    message = str(caught.value)
    assert f"1 of another shape (first: {key} {(7, *want[1:])}, expected {want})" in message
    assert "\n" not in message


class Evil:
    """Touches a file when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize("how", ["torch", "pickle", "nested"])
def test_code_in_a_pth_is_refused_and_not_run(build, tmp_path, how):
    trap, file = tmp_path / "trap", tmp_path / "w.pth"
    if how == "pickle":
        file.write_bytes(pickle.dumps({"fc.weight": Evil(trap)}, protocol=2))
    else:
        torch.save(Evil(trap) if how == "torch" else {"state_dict": {"fc.weight": Evil(trap)}}, file)
    with pytest.raises(UserError, match=r"w\.pth: holds more than tensors, refused"):
        build(weights=str(file))
    assert not trap.exists()


def stream(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [("absent.pth", None), ("absent.safetensors", None), ("empty.pth", b""), ("empty.safetensors", b""),
     ("junk.pth", b"no weights in here"), ("junk.safetensors", b"no weights in here"), ("junk", bytes(64)),
     ("cut.pth", stream({"a": torch.zeros(99)})[:200]), ("list.pth", stream([1, 2])),
     ("tensor.pth", stream(torch.zeros(3))), ("numbers.pth", stream({"epoch": 3}))],
)  # fmt: skip
def test_unreadable_weights(build, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"^model\.weights=.*give a \.safetensors file or a \.pth") as caught:
        build(weights=str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_as_weights(build, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        build(weights=str(tmp_path))
