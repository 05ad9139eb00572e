"""A network's config.json from others: nothing is built, fetched or run by one that is hostile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import load_file, save_file

from flowerfast.errors import UserError
from flowerfast.training import trained
from flowerfast.training.trained import load_run


@pytest.fixture(scope="session")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A best/ as a run leaves it; read only."""
    folder = tmp_path_factory.mktemp("received") / "best"
    network = timm.create_model("test_resnet", num_classes=2)
    about = {"label_names": ["rose", "tulip"], "exif": "apply"}
    timm.models.save_for_hf(network, str(folder), model_config=about, safe_serialization=True)
    return folder


@pytest.fixture
def received(best: Path, tmp_path: Path) -> Callable[..., Path]:
    """Function (path of keys, value) → a copy of `best` with that in its config.json."""

    def make(*keys: str, value: Any) -> Path:
        stored = json.loads((best / "config.json").read_text())
        place = stored
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        (tmp_path / "best").mkdir()
        (tmp_path / "best/config.json").write_text(json.dumps(stored))
        (tmp_path / "best/model.safetensors").write_bytes((best / "model.safetensors").read_bytes())
        return tmp_path / "best"

    return make


def test_a_run_that_came_whole_is_read(best: Path) -> None:
    run = load_run(best, "cpu")
    assert (run.classes, run.image_size, run.exif) == (("rose", "tulip"), 160, "apply")


HOSTILE: list[tuple[tuple[str, ...], Any]] = [
    (("architecture",), "hf-hub:someone/evil"),
    (("architecture",), "local-dir:/etc"),
    (("architecture",), "../../x"),
    (("architecture",), "nosuch"),
    (("architecture",), 3),
    (("num_classes",), 10**9),
    (("num_classes",), -1),
    (("num_classes",), 3),
    (("label_names",), []),
    (("label_names",), ["a", 3]),
    (("label_names",), None),
    (("model_args", "num_classes"), 10**9),
    (("model_args", "img_size"), 10**6),
    (("model_args", "channels"), [4096, 4096, 4096, 4096]),
    (("model_args", "checkpoint_path"), "/etc/passwd"),
    (("model_args", "pretrained_cfg_overlay"), {"file": "/etc/passwd", "source": ""}),
    (("model_args", "nosuch"), 1),
    (("model_args",), [1]),
    (("pretrained_cfg", "input_size"), [3, 10**6, 10**6]),
    (("pretrained_cfg", "input_size"), "abc"),
    (("pretrained_cfg", "crop_pct"), 1e-12),
    (("pretrained_cfg", "crop_pct"), float("nan")),
    (("pretrained_cfg", "std"), [1e999, 1, 1]),
    (("pretrained_cfg", "std"), [0, 1, 1]),
    (("pretrained_cfg", "std"), [1, 1]),
    (("pretrained_cfg", "mean"), [0.5, 0.5]),
    (("model_args", "nosuch" + 9000 * "x"), 1),
    (("pretrained_cfg",), None),
]


@pytest.mark.parametrize(("keys", "value"), HOSTILE, ids=[f"{'.'.join(k)}={v}"[:60] for k, v in HOSTILE])
def test_a_hostile_description_is_refused_before_a_network_is_built(
    received: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], value: Any
) -> None:
    def create(*names: str, pretrained: bool = False, **options: Any) -> Any:
        assert not pretrained, "took memory for the weights"
        return original(*names, **options)

    original = timm.create_model
    monkeypatch.setattr(trained.timm, "create_model", create)
    folder = received(*keys, value=value)
    with pytest.raises(UserError, match=rf"^{folder}: no trained model there \(.+\); give") as caught:
        load_run(folder, "cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("spoilt", ["missing", "pickle", "cut", "huge header", "other shape", "one more"])
def test_weights_that_are_not_the_networks_are_refused(received: Callable[..., Path], spoilt: str) -> None:
    folder = received("exif", value="apply")
    file = folder / "model.safetensors"
    content, state = file.read_bytes(), load_file(file)
    if spoilt == "missing":
        file.unlink()
    elif spoilt == "pickle":
        file.rename(folder / "pytorch_model.bin")  # timm would take it
    elif spoilt == "cut":
        file.write_bytes(content[:-1])
    elif spoilt == "huge header":
        file.write_bytes((2**63).to_bytes(8, "little") + content[8:])
    elif spoilt == "other shape":
        save_file({**state, "fc.bias": state["fc.bias"][:1].clone()}, file)
    else:
        save_file({**state, "more": state["fc.bias"].clone()}, file)
    with pytest.raises(UserError, match=r": no trained model there \(.+\); give"):
        load_run(folder, "cpu")
