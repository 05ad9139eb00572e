"""A timm network behind a normalisation layer: raw uint8 pixels in, logits out."""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from flowerfast.config import ModelConfig
from flowerfast.errors import UserError, one_line
from flowerfast.nearest import did_you_mean, nearest

_CROP_PCT = 0.875  # of models that have none of their own


class Classifier(nn.Module):
    """Normalisation, then the network.

    Args:
        network: takes normalised float images (N, 3, S, S), gives logits (N, classes).
        mean, std: per channel, of pixels scaled to 0..1.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        deviation = torch.tensor(std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, -1, 1, 1) / deviation, persistent=False)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of uint8 images (N, 3, S, S)."""
        pixels = torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)  # one pass over them
        logits: torch.Tensor = self.network(pixels)
        return logits


def build_network(
    config: ModelConfig, classes: Sequence[str], image_size: int, crop_pct: float | None
) -> nn.Module:
    """timm network with a head for `classes`, and the preprocessing that goes with it in `pretrained_cfg`.

    Weights come from the file `config.weights`, else from the hub when `config.pretrained`, else they are
    random (torch's global seed). Raises UserError for an unknown name, an unreachable hub, a file that does
    not fit.
    """
    options: dict[str, Any] = {"num_classes": len(classes)}
    hub = config.pretrained and config.weights is None
    template = _template(config.name)
    if template is not None and template.fixed_input_size:
        options["img_size"] = image_size
    if hub:
        network = _from_hub(config.name, template, options)
        fresh_head = template.num_classes != len(classes)
    else:
        network = timm.create_model(config.name, pretrained=False, **options)
        fresh_head = config.weights is not None and not _load_weights(network, config)
    if fresh_head:
        # torch's own init: timm's for EfficientNet grows as the classes get fewer, and for five of them the
        # first steps then spoil the pretrained features.
        cast(Any, network).reset_classifier(len(classes))
    cfg = pretrained_cfg(network)
    for key in ("test_input_size", "test_crop_pct", "label_names", "label_descriptions"):
        cfg.pop(key, None)
    cfg.update(
        input_size=(3, image_size, image_size),
        crop_pct=crop_pct if crop_pct is not None else cfg.get("crop_pct") or _CROP_PCT,
        interpolation="bilinear",
        num_classes=len(classes),
    )
    return network


def own_crop_pct(name: str) -> float:
    """Share of the short side that a timm model's own preprocessing keeps. Raises UserError."""
    template = _template(name)
    return float(template.crop_pct) if template is not None and template.crop_pct else _CROP_PCT


def pretrained_cfg(network: nn.Module) -> dict[str, Any]:
    """timm's description of a network: preprocessing, name of the head."""
    return cast(dict[str, Any], network.pretrained_cfg)


def with_normalisation(network: nn.Module) -> Classifier:
    """The network behind the normalisation layer of its own `pretrained_cfg`."""
    cfg = pretrained_cfg(network)
    return Classifier(network, cfg["mean"], cfg["std"])


def _template(name: str) -> Any:
    """timm's description of a model by name, None when it has none. Raises UserError for an unknown name."""
    architecture = name.partition(".")[0]
    if not timm.is_model(name):
        raise UserError(f"model.name={name!r}: timm has no such model{_like(architecture)}")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:  # is_model looks at the part before the dot alone
        known = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise UserError(f"model.name={name!r}: timm has no such weights; it has {known}") from error


def _like(architecture: str) -> str:
    """What to do about a model that timm does not have."""
    known = timm.list_models()
    near = nearest(architecture, known)
    family = re.match(r"[a-z]*", architecture.lower())
    if not near and family and len(family[0]) >= 4:
        near = nearest(family[0], [name for name in known if name.startswith(family[0])])
    if near:
        return did_you_mean(near)
    return ", and none that is spelt alike; timm.list_models() in Python names all"


def _from_hub(name: str, template: Any, options: Mapping[str, Any]) -> nn.Module:
    ways_out = (
        "connect once (the weights are then kept), or give a local file (--set model.weights=FILE), "
        "or train from scratch (--set model.pretrained=false)"
    )
    if template is None or not template.has_weights:
        raise UserError(
            f"model.name={name}: timm has no weights for it; choose another or model.pretrained=false"
        )
    if not _cached(template.hf_hub_id) and not _reachable(constants.ENDPOINT):
        raise UserError(f"model.pretrained=true: cannot reach {constants.ENDPOINT} for {name}; {ways_out}")
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (OSError, HfHubHTTPError) as error:
        raise UserError(
            f"model.pretrained=true: no weights of {name} ({one_line(error)}); {ways_out}"
        ) from error


def _cached(repo: str | None) -> bool:
    names = ("model.safetensors", "pytorch_model.bin")
    return repo is not None and any(isinstance(try_to_load_from_cache(repo, name), str) for name in names)


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers: its client would retry for most of a minute before saying no."""
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the client knows how to go through the proxy
    parts = urlsplit(endpoint)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _load_weights(network: nn.Module, config: ModelConfig) -> bool:
    """Load a local state dict but for a head of other classes; whether the head was loaded."""
    state = _read_state(Path(str(config.weights)))
    target = network.state_dict()
    heads = pretrained_cfg(network).get("classifier") or ()
    prefixes = tuple(f"{h}." for h in ((heads,) if isinstance(heads, str) else heads))
    for key in [k for k in state if k.startswith(prefixes) and prefixes]:
        if key in target and state[key].shape != target[key].shape:
            state.pop(key)
    # The whole head goes when any part of it does not fit: half of one is of no use.
    if any(k.startswith(prefixes) and k not in state for k in target) and prefixes:
        state = {k: v for k, v in state.items() if not k.startswith(prefixes)}
    missing = [k for k in target if k not in state and not k.startswith(prefixes)]
    extra = [k for k in state if k not in target and not k.startswith(prefixes)]
    wrong = [k for k in state if k in target and state[k].shape != target[k].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors missing (first: {missing[0]})")
    if extra:
        problems.append(f"{len(extra)} unknown (first: {extra[0]})")
    if wrong:
        have, want = tuple(state[wrong[0]].shape), tuple(target[wrong[0]].shape)
        problems.append(f"{len(wrong)} of another shape (first: {wrong[0]} {have}, expected {want})")
    if problems:
        raise UserError(
            f"model.weights={config.weights}: does not fit model.name={config.name}: {'; '.join(problems)}; "
            "give weights of that model or set model.name to theirs"
        )
    network.load_state_dict(state, strict=False)
    return all(k in state for k in target)


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    """State dict of a .safetensors file, or of a .pth read without running code from it."""
    advice = "give a .safetensors file or a .pth with a state dict"
    if not file.is_file():
        raise UserError(f"model.weights={file}: no such file; {advice}")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"model.weights={file}: cannot be read ({one_line(error)}); {advice}") from error
    except Exception as error:
        # torch raises pickle.UnpicklingError for files that hold more than tensors.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise UserError(f"model.weights={file}: holds more than tensors, refused; {advice}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UserError(f"model.weights={file}: no state dict in it; {advice}")
    return {str(k).removeprefix("module."): v for k, v in content.items()}
