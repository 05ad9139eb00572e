"""Networks, their normalisation, and where their weights come from."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from flowerfast.config import ModelConfig
from flowerfast.errors import UserError
from flowerfast.training import model as module
from flowerfast.training.model import build_network, own_crop_pct, pretrained_cfg, with_normalisation

THREE = ("daisy", "rose", "tulip")


def build(
    name: str = "test_resnet", classes: tuple[str, ...] = THREE, size: int = 32, **config: Any
) -> nn.Module:
    settings = ModelConfig(**{"name": name, "pretrained": False, **config})
    return build_network(settings, classes, size, 0.875)


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


# ---------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])  # of different mean and deviation
def test_uint8_pixels_give_the_logits_of_normalised_floats(name):
    network = build(name).eval()
    cfg = timm.get_pretrained_cfg(name)
    images = torch.randint(
        0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (cfg.mean, cfg.std))
    model = with_normalisation(network).eval()
    with torch.inference_mode():
        expected = network((images.double() / 255 - mean).div(std).float())
        found = model(images)
        strided = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(strided, found, rtol=1e-4, atol=1e-5)
    assert found.shape == (4, 3)


def test_normalisation_is_exact_at_the_ends_of_the_range():
    model = with_normalisation(build("test_efficientnet"))
    model.network = nn.Identity()
    black, white = (torch.full((1, 3, 1, 1), v, dtype=torch.uint8) for v in (0, 255))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(model(black).flatten(), -mean / std)
    torch.testing.assert_close(model(white).flatten(), (1 - mean) / std)


def test_normalisation_follows_the_models_dtype_and_is_no_weight():
    model = with_normalisation(build())
    assert all(key.startswith("network.") for key in model.state_dict())
    assert model.double()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).dtype == torch.float64


# ------------------------------------------------------------------------------------- building networks


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_network_describes_its_preprocessing(name):
    cfg = pretrained_cfg(build(name, size=48))
    assert cfg["input_size"] == (3, 48, 48)
    assert (cfg["crop_pct"], cfg["interpolation"], cfg["num_classes"]) == (0.875, "bilinear", 3)
    assert (cfg["mean"], cfg["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_crop_of_the_models_own_preprocessing():
    own = build_network(ModelConfig(name="test_resnet", pretrained=False), THREE, 32, None)
    assert pretrained_cfg(own)["crop_pct"] == own_crop_pct("test_resnet") == own_crop_pct("resnet18") == 0.95
    assert own_crop_pct("resnet10t") == timm.get_pretrained_cfg("resnet10t").crop_pct


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet81", "resnet18"),
        ("ResNet-18", "resnet18"),
        ("resnet18_imagenet", "resnet18"),
        ("efficientnet_lite", "efficientnet_lite0"),
        ("tf_efficientnet_lite.in1k", "tf_efficientnet_lite0"),
        ("mobilenet_v2", "mobilenetv2_035"),
        ("convnext_tinny", "convnext_tiny"),
        ("resnext", "resnext26ts"),
        ("vit", "vit_base_mci_224"),
        ("densenet_9000_special", "densenet121"),
        ("yolov8", None),
        ("zzz", None),
    ],
)
def test_an_unknown_model_is_refused_with_one_like_it_or_none(typed: str, meant: str | None) -> None:
    with pytest.raises(UserError) as caught:
        own_crop_pct(typed)
    line = str(caught.value)
    assert line.startswith(f"model.name={typed!r}: timm has no such model")
    if meant is None:
        assert line.endswith(", and none that is spelt alike; timm.list_models() in Python names all")
    else:
        assert f"; did you mean '{meant}'" in line


def test_networks_do_not_share_their_description():
    first, second = build(size=32), build(size=64, classes=("a", "b"))
    assert pretrained_cfg(first)["input_size"] == (3, 32, 32)
    assert pretrained_cfg(second)["num_classes"] == 2
    assert timm.get_pretrained_cfg("test_resnet").input_size == (3, 160, 160)


def test_random_weights_come_from_torchs_seed():
    networks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        networks.append(build())
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


@pytest.mark.parametrize("name", ["test_vit", "test_coatnet"])
def test_network_of_a_fixed_size_is_built_for_the_image_size(name):
    network = build(name, size=96).eval()
    with torch.inference_mode():
        assert with_normalisation(network)(torch.zeros(2, 3, 96, 96, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet81", "did you mean 'resnet"), ("qqqqqq", r"timm\.list_models\(\)"), ("", "."),
     ("test_resnet.nosuchtag", r"no such weights; it has test_resnet\.r160_in1k")],
)  # fmt: skip
def test_unknown_name(name, hint):
    with pytest.raises(UserError, match=hint) as caught:
        build(name)
    assert str(caught.value).startswith("model.name=")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------ local weights


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_head_is_kept_when_the_classes_are_as_many(tmp_path, suffix, name):
    source = randomised(build(name))
    found = build(name, weights=saved(source, tmp_path / f"w{suffix}"))
    assert equal(found, source)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("name", "head"),
    [("test_resnet", "fc."), ("test_convnext", "head.fc."), ("test_efficientnet", "classifier.")],
)
def test_head_is_replaced_when_they_are_not(tmp_path, suffix, name, head):
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


def test_half_a_head_is_replaced_as_a_whole(tmp_path):
    source = randomised(build())
    state = OrderedDict((k, v) for k, v in source.state_dict().items() if k != "fc.bias")
    found = build(weights=saved(source, tmp_path / "w.pth", state))
    assert equal(found, source, but=("fc.",))
    assert not torch.equal(found.state_dict()["fc.weight"], state["fc.weight"])


def test_weights_without_a_head_are_taken(tmp_path):
    source = randomised(build())
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}
    assert equal(build(weights=saved(source, tmp_path / "w.pth", state)), source, but=("fc.",))


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_other_trainers_are_unwrapped(tmp_path, wrapper, prefix):
    source = randomised(build())
    content = {wrapper: {prefix + k: v for k, v in source.state_dict().items()}, "epoch": 3}
    assert equal(build(weights=saved(source, tmp_path / "w.pth", content)), source)


def test_weights_file_wins_over_the_hub(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_from_hub", None)
    source = randomised(build())
    assert equal(build(weights=saved(source, tmp_path / "w.pth"), pretrained=True), source)


def test_weights_of_another_model_are_refused(tmp_path):
    weights = saved(build("test_convnext"), tmp_path / "w.safetensors")
    with pytest.raises(
        UserError, match=r"model\.weights=.*w\.safetensors.*model\.name=test_resnet.*missing.*unknown"
    ):
        build(weights=weights)


def test_weights_of_another_shape_are_refused_with_tensor_and_shapes(tmp_path):
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
def test_code_in_a_pth_is_refused_and_not_run(tmp_path, how):
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
def test_unreadable_weights(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"^model\.weights=.*give a \.safetensors file or a \.pth") as caught:
        build(weights=str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_as_weights(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        build(weights=str(tmp_path))


# ------------------------------------------------------------------------------------------------ the hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights kept from earlier, and a hub that refuses connections."""
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(module.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda repo, name: None)


WAYS_OUT = r"model\.weights=FILE.*model\.pretrained=false"


def test_unreachable_hub_is_told_before_its_client_retries(offline, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> nn.Module:
        raise AssertionError("asked the hub's client")

    monkeypatch.setattr(module.timm, "create_model", refuse)
    with pytest.raises(UserError, match=rf"cannot reach http://127\.0\.0\.1:9 for test_resnet.*{WAYS_OUT}"):
        build(pretrained=True)


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("no\nconnection"), ConnectionError("reset"), TimeoutError()]
)
def test_hub_that_fails_later(offline, monkeypatch: pytest.MonkeyPatch, error):
    def fail(*_: object, **__: object) -> nn.Module:
        raise error

    monkeypatch.setattr(module, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(module.timm, "create_model", fail)
    with pytest.raises(UserError, match=rf"no weights of test_resnet.*{WAYS_OUT}") as caught:
        build(pretrained=True)
    assert "\n" not in str(caught.value)


def test_weights_kept_from_earlier_need_no_hub(offline, monkeypatch: pytest.MonkeyPatch):
    asked = []
    create = timm.create_model

    def from_cache(name: str, pretrained: bool, **options: Any) -> nn.Module:
        asked.append((name, pretrained))
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(module, "try_to_load_from_cache", lambda repo, name: f"/kept/{repo}/{name}")
    monkeypatch.setattr(module.timm, "create_model", from_cache)
    build(pretrained=True)
    assert asked == [("test_resnet", True)]


def test_model_without_weights_on_the_hub(offline):
    assert not timm.list_pretrained("test_mambaout*")
    with pytest.raises(UserError, match=r"model\.name=test_mambaout: timm has no weights"):
        build("test_mambaout", pretrained=True)


def test_proxies_are_left_to_the_hubs_client(offline, monkeypatch: pytest.MonkeyPatch):
    assert not module._reachable("http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert module._reachable("http://127.0.0.1:9")
