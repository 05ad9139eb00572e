"""Names of models: timm's own, repositories of the hub, folders."""

import errno
import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models._hub import _get_safe_alternatives
from torch import nn

from flowerfast.errors import RunFailed, UserError
from flowerfast.training import architecture as module

THREE = ("daisy", "rose", "tulip")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet81", "did you mean 'resnet"), ("qqqqqq", r"timm\.list_models\(\)"),
     ("test_resnet.nosuchtag", r"no such weights; it has test_resnet\.r160_in1k")],
)  # fmt: skip
def test_unknown_name(build, name, hint):
    with pytest.raises(UserError, match=hint) as caught:
        build(name)
    assert str(caught.value).startswith("model.name=")
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_of_weights_is_named(build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Of those that timm fetches itself, from elsewhere."""

    def fail(*_: object, **__: object) -> nn.Module:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.Architecture, "_fetch", lambda *_: None)
    monkeypatch.setattr(module.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(module.timm, "create_model", fail)
    line = r"hub: cannot be written \(No space left on device: [\d,]+ free\); make room, then try again"
    with pytest.raises(RunFailed, match=line):
        build(pretrained=True)


def test_model_without_weights_on_the_hub(build):
    assert not timm.list_pretrained("test_mambaout*")
    with pytest.raises(UserError, match=r"model\.name=test_mambaout: timm has no weights"):
        build("test_mambaout", pretrained=True)


@pytest.mark.parametrize(
    ("weights", "names"),
    [("pytorch_model.bin", ("model.safetensors", "pytorch_model.bin")), ("model.pth", ("model.pth",)),
     ("open_clip_pytorch_model.bin", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
     ("other.bin", ("other.safetensors", "other.bin"))],
)  # fmt: skip
def test_safetensors_are_looked_for_where_timm_looks(weights: str, names: tuple[str, ...]):
    assert module._names(weights) == names
    assert [*names[:-1]] == [*_get_safe_alternatives(weights)]


# ----------------------------------------------------------------------- descriptions that lie elsewhere


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network with its weights and its description, as timm writes them."""
    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(
        network,
        str(tmp_path / "elsewhere"),
        model_config={"label_names": list(THREE)},
        safe_serialization=True,
    )
    return tmp_path / "elsewhere"


def test_a_folder_names_a_model_and_its_head_is_kept_for_the_same_classes(build, folder: Path):
    weights = load_file(folder / "model.safetensors")
    same = build(f"local-dir:{folder}", pretrained=True).state_dict()
    assert all(torch.equal(same[key], value) for key, value in weights.items())
    other = build(f"local-dir:{folder}", classes=("a", "b", "c"), pretrained=True).state_dict()
    changed = {key for key, value in weights.items() if not torch.equal(other[key], value)}
    assert changed == {"fc.weight", "fc.bias"}
    random = build(f"local-dir:{folder}").state_dict()
    assert not torch.equal(random["conv1.0.weight"], weights["conv1.0.weight"])


@pytest.mark.parametrize("spoilt", ["no folder", "no config", "no json", "other", "no weights"])
def test_a_folder_that_is_no_model_is_refused(build, folder: Path, spoilt: str):
    config = folder / "config.json"
    if spoilt == "no weights":
        (folder / "model.safetensors").unlink()
    elif spoilt == "no json":
        config.write_text("{")
    elif spoilt == "other":
        config.write_text('{"architecture": "nosuch", "pretrained_cfg": {}}')
    elif spoilt == "no config":
        config.unlink()
    name = f"local-dir:{folder if spoilt != 'no folder' else folder / 'none'}"
    with pytest.raises(UserError, match=rf"^model\.name={name}: ") as caught:
        build(name, pretrained=True)
    assert "\n" not in str(caught.value)


def test_a_path_without_its_prefix_is_told_what_to_write(build):
    with pytest.raises(UserError, match=r"of the hub, write hf-hub:timm/resnet18\.a1_in1k, of"):
        build("timm/resnet18.a1_in1k")
