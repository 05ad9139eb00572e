"""Which network a name means: one of timm's, or one described in a repository of the hub or in a folder."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from timm.models import PretrainedCfg, load_model_config_from_hf
from torch import nn

from flowerfast.documents import conform
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.files import writing
from flowerfast.nearest import did_you_mean, nearest
from flowerfast.training.described import WEIGHTS, Described

HUB, FOLDER = "hf-hub:", "local-dir:"
_WAYS_OUT = (
    "connect once (the weights are then kept), or give a local file (--set model.weights=FILE), "
    "or train from scratch (--set model.pretrained=false)"
)


@dataclass(frozen=True)
class Architecture:
    """A network that can be built.

    Attributes:
        name: as it was given: NAME or NAME.TAG of timm, hf-hub:OWNER/NAME, local-dir:FOLDER.
        cfg: timm's description of it: preprocessing, where its weights are; None when there is none.
        base: timm's name of the architecture, where `name` is none.
        args: what the architecture is built with beside its defaults.
    """

    name: str
    cfg: PretrainedCfg | None
    base: str | None = None
    args: Mapping[str, Any] | None = None

    def create(self, classes: int, image_size: int, pretrained: bool = False) -> nn.Module:
        """The network with a head for so many classes; its weights are random, or those of `cfg`."""
        options: dict[str, Any] = {**(self.args or {}), "num_classes": classes}
        if self.cfg is not None and self.cfg.fixed_input_size:
            options["img_size"] = image_size
        if self.base is not None:
            options["pretrained_cfg"] = self.cfg
        network: nn.Module = timm.create_model(self.base or self.name, pretrained=pretrained, **options)
        return network

    def create_pretrained(self, classes: int, image_size: int) -> nn.Module:
        """The network with the weights that belong to it. Raises UserError when they cannot be had."""
        if self.cfg is None or not (self.cfg.has_weights or self.cfg.source):
            raise UserError(
                f"model.name={self.name}: timm has no weights for it; choose another or "
                "model.pretrained=false"
            )
        if self.cfg.source == FOLDER[:-1] and not Path(str(self.cfg.file), WEIGHTS).is_file():
            # timm would look for a pickle there.
            raise UserError(f"model.name={self.name}: no {WEIGHTS} there; {_WAYS_OUT}")
        repo = self.cfg.hf_hub_id if self.cfg.source != "local-dir" else None
        if repo is not None and not _cached(repo, _ON_THE_HUB):
            _check_reachable(self.name)
        try:
            with writing(Path(constants.HF_HUB_CACHE)):
                return self.create(classes, image_size, pretrained=True)
        except WriteFailed as error:
            raise RunFailed(error.line("try again")) from error
        except (OSError, HfHubHTTPError) as error:
            raise UserError(
                f"model.pretrained=true: no weights of {self.name} ({one_line(error)}); {_WAYS_OUT}"
            ) from error
        except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
            if not self.cfg.source:
                raise
            raise UserError(
                f"model.name={self.name}: its weights cannot be used ({one_line(error)}); {_WAYS_OUT}"
            ) from error


_ON_THE_HUB = (WEIGHTS, "pytorch_model.bin")


def find_architecture(name: str) -> Architecture:
    """The architecture of a name. Raises UserError for an unknown one, or when its description is not here.

    A repository of the hub is asked for its config.json, unless that was fetched before.
    """
    if name.startswith((HUB, "hf_hub:", FOLDER)):
        return _described(name)
    if name == "auto":
        raise UserError("model.name=auto: flowerfast tune finds out which model does best; name one here")
    architecture = name.partition(".")[0]
    if "/" in name or "\\" in name or not timm.is_model(name):
        hint = (
            f"; of the hub, write {HUB}{name}, of a folder, {FOLDER}{name}"
            if "/" in name
            else _like(architecture)
        )
        raise UserError(f"model.name={name!r}: timm has no such model{hint}")
    try:
        return Architecture(name, timm.get_pretrained_cfg(name, allow_unregistered=True))
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


def _described(name: str) -> Architecture:
    """An architecture by the config.json of a repository or folder."""
    source, _, place = name.partition(":")
    hub = source != FOLDER[:-1]
    if hub and not _cached(place, ("config.json",)) and not _reachable(constants.ENDPOINT):
        raise UserError(
            f"model.name={name}: cannot reach {constants.ENDPOINT} for config.json; connect once, or give "
            f"a name of timm's or {FOLDER}FOLDER"
        )
    try:
        cfg, base, args = load_model_config_from_hf(place) if hub else _read_folder(Path(place))
        conform(Described, {"architecture": base, "pretrained_cfg": cfg, "model_args": args or {}})
        if not timm.is_model(base):
            raise ValueError(f"timm has no architecture {base!r}")
        return Architecture(name, PretrainedCfg(**cfg), base, args or {})
    except (OSError, HfHubHTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        raise UserError(
            f"model.name={name}: no timm model there ({one_line(e)}); give {HUB}OWNER/NAME, or "
            f"{FOLDER}FOLDER with a config.json as timm writes it, such as a run's best/"
        ) from e


def _read_folder(folder: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    stored = Described.read(folder)
    given = stored.model_dump(exclude_unset=True)
    about = {key: given[key] for key in ("num_classes", "label_names", "label_descriptions") if key in given}
    cfg = {**given["pretrained_cfg"], **about, "file": str(folder), "source": FOLDER[:-1]}
    return cfg, stored.architecture, stored.model_args


def _check_reachable(name: str) -> None:
    if not _reachable(constants.ENDPOINT):
        raise UserError(f"model.pretrained=true: cannot reach {constants.ENDPOINT} for {name}; {_WAYS_OUT}")


def _cached(repo: str, files: tuple[str, ...]) -> bool:
    repo, _, revision = repo.partition("@")
    kept = (try_to_load_from_cache(repo, file, revision=revision or None) for file in files)
    return any(isinstance(file, str) for file in kept)


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
