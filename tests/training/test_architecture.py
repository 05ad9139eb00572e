"""Names of models: timm's own, repositories of the hub, folders."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
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


# ------------------------------------------------------------------------------------------------ the hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights kept from earlier, and a hub that refuses connections."""
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(module.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda repo, name, **_: None)


WAYS_OUT = r"model\.weights=FILE.*model\.pretrained=false"


def test_unreachable_hub_is_told_before_its_client_retries(build, offline, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> nn.Module:
        raise AssertionError("asked the hub's client")

    monkeypatch.setattr(module.timm, "create_model", refuse)
    with pytest.raises(UserError, match=rf"cannot reach http://127\.0\.0\.1:9 for test_resnet.*{WAYS_OUT}"):
        build(pretrained=True)


def test_a_disk_that_is_full_of_weights_is_named(build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def fail(*_: object, **__: object) -> nn.Module:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_check_reachable", lambda _: None)
    monkeypatch.setattr(module.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(module.timm, "create_model", fail)
    line = r"hub: cannot be written \(No space left on device: [\d,]+ free\); make room, then try again"
    with pytest.raises(RunFailed, match=line):
        build(pretrained=True)


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("no\nconnection"), ConnectionError("reset"), TimeoutError()]
)
def test_hub_that_fails_later(build, offline, monkeypatch: pytest.MonkeyPatch, error):
    def fail(*_: object, **__: object) -> nn.Module:
        raise error

    monkeypatch.setattr(module, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(module.timm, "create_model", fail)
    with pytest.raises(UserError, match=rf"no weights of test_resnet.*{WAYS_OUT}") as caught:
        build(pretrained=True)
    assert "\n" not in str(caught.value)


def test_weights_kept_from_earlier_need_no_hub(build, offline, monkeypatch: pytest.MonkeyPatch):
    asked = []
    create = timm.create_model

    def from_cache(name: str, pretrained: bool, **options: Any) -> nn.Module:
        asked.append((name, pretrained))
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(module, "try_to_load_from_cache", lambda repo, name, **_: f"/kept/{repo}/{name}")
    monkeypatch.setattr(module.timm, "create_model", from_cache)
    build(pretrained=True)
    assert asked == [("test_resnet", True)]


def test_model_without_weights_on_the_hub(build, offline):
    assert not timm.list_pretrained("test_mambaout*")
    with pytest.raises(UserError, match=r"model\.name=test_mambaout: timm has no weights"):
        build("test_mambaout", pretrained=True)


def test_proxies_are_left_to_the_hubs_client(offline, monkeypatch: pytest.MonkeyPatch):
    assert not module._reachable("http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert module._reachable("http://127.0.0.1:9")


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


def test_a_repository_of_the_hub_names_a_model(build, folder: Path, offline, monkeypatch: pytest.MonkeyPatch):
    def fetched(repo_id: str, filename: str, **_: Any) -> str:
        assert repo_id == "someone/flowers"
        return str(folder / filename)

    monkeypatch.setattr(module, "_reachable", lambda endpoint: True)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", fetched)
    found = build("hf-hub:someone/flowers", pretrained=True).state_dict()
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_repository_of_the_hub_that_is_out_of_reach(build, offline, pretrained: bool):
    with pytest.raises(UserError, match=r"^model\.name=hf-hub:someone/flowers: cannot reach") as caught:
        build("hf-hub:someone/flowers", pretrained=pretrained)
    assert "\n" not in str(caught.value)


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
