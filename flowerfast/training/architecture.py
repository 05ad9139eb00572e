"""Which network a name means: one of timm's, or one described in a repository of the hub or in a folder."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors import safe_open
from timm.models import PretrainedCfg, load_model_config_from_hf
from torch import nn

from flowerfast.config import ModelConfig
from flowerfast.documents import conform
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.files import writing
from flowerfast.nearest import did_you_mean, nearest
from flowerfast.training.described import WEIGHTS, Described, on_meta
from flowerfast.training.hub import HubFile

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

    def create(
        self, classes: int, image_size: int, pretrained: bool = False, weights: Path | None = None
    ) -> nn.Module:
        """The network with a head for so many classes.

        Its weights are random; or those of `cfg`, of which `weights` is the file where it is here already.
        """
        options: dict[str, Any] = {**(self.args or {}), "num_classes": classes}
        if self.cfg is not None and self.cfg.fixed_input_size:
            options["img_size"] = image_size
        if self.base is not None:
            options["pretrained_cfg"] = self.cfg
        if weights is not None:
            options["pretrained_cfg_overlay"] = {"file": str(weights), "source": ""}
        network: nn.Module = timm.create_model(self.base or self.name, pretrained=pretrained, **options)
        return network

    def create_pretrained(
        self, classes: int, image_size: int, say: Callable[[str], None] = lambda _: None
    ) -> nn.Module:
        """The network with the weights that belong to it; `say` is told before they are fetched.

        Raises UserError when they cannot be had, RunFailed where a download fails, or a disk.
        """
        if self.cfg is None or not (self.cfg.has_weights or self.cfg.source):
            raise UserError(
                f"model.name={self.name}: timm has no weights for it; choose another or "
                "model.pretrained=false"
            )
        if self.cfg.source == FOLDER[:-1] and not Path(str(self.cfg.file), WEIGHTS).is_file():
            # timm would look for a pickle there.
            raise UserError(f"model.name={self.name}: no {WEIGHTS} there; {_WAYS_OUT}")
        kept = self._fetch(say)
        # With a loader of its own, timm looks for the file itself, and finds it in the hub's cache.
        file = None if self.cfg.custom_load else kept
        try:
            with writing(Path(constants.HF_HUB_CACHE)):
                network = self.create(classes, image_size, True, file)
            if kept is not None and not _fits(kept, network):
                raise ValueError("no layer of the network is in the file")
            return network
        except WriteFailed as error:
            raise RunFailed(error.line("try again")) from error
        except (OSError, HfHubHTTPError) as error:
            raise UserError(
                f"model.pretrained=true: no weights of {self.name} ({one_line(error)}); {_WAYS_OUT}"
            ) from error
        except Exception as error:  # of a damaged file torch makes almost any
            if kept is None and not self.cfg.source:
                raise
            anew = f"delete {kept.resolve()} to have it fetched again, or " if kept is not None else ""
            raise UserError(
                f"model.name={self.name}: its weights cannot be used ({one_line(error)}); {anew}{_WAYS_OUT}"
            ) from error

    def _fetch(self, say: Callable[[str], None]) -> Path | None:
        """The weights as a file of the hub's cache; None: they lie elsewhere."""
        assert self.cfg is not None
        place, own = self.cfg.hf_hub_id, self.cfg.hf_hub_filename
        if place is None or self.cfg.source == FOLDER[:-1] or (self.cfg.custom_load and not own):
            return None
        asked = f"model.pretrained=true, model.name={self.name}"
        return HubFile(place, _names(own or "pytorch_model.bin"), asked, _WAYS_OUT).fetch(say)


def _fits(file: Path, network: nn.Module) -> bool:
    """Whether a file has a layer of a network, perhaps under a longer name; only safetensors are asked.

    Where the head is another than that of the weights, timm takes any file, and leaves the network at random.
    """
    if file.suffix != ".safetensors":
        return True
    with safe_open(file, "pt") as weights:
        parts = [name.split(".") for name in [*weights.keys()]]
    ends = {".".join(name[k:]) for name in parts for k in range(len(name))}
    return not ends.isdisjoint(network.state_dict())


def _names(weights: str) -> tuple[str, ...]:
    """Names by which a repository may hold a file of weights: as safetensors, if it can be, first."""
    if not weights.endswith(".bin"):
        return (weights,)
    safe = weights.replace("pytorch_model.bin", "model.bin").removesuffix(".bin") + ".safetensors"
    return safe, weights


_DROPS = {"drop_rate": "drop_rate", "drop_path": "drop_path_rate"}
"""Settings of section `model`, and what timm calls them."""


def configured(config: ModelConfig, image_size: int) -> Architecture:
    """The architecture that the settings describe, dropout and all. Raises UserError as `find_architecture`,
    and for one that does not know of what is to be dropped.
    """
    found = find_architecture(config.name)
    for setting, argument in _DROPS.items():
        value = getattr(config, setting)
        if value is None:
            continue
        found = replace(found, args={**(found.args or {}), argument: value})
        if not _takes(found, argument, image_size):
            raise UserError(
                f"model.{setting}={value:g}: model.name={config.name} has nothing of the kind; set it to null"
            )
    return found


def _takes(architecture: Architecture, argument: str, image_size: int) -> bool:
    """Whether a network can be built with an argument, and heeds it as far as can be seen."""
    try:
        network = on_meta(partial(architecture.create, 2, image_size))
    except TypeError as error:
        if argument not in str(error):
            raise
        return False
    wanted = argument == "drop_path_rate" and (architecture.args or {})[argument] > 0
    if not wanted or network is None:
        return True
    return any("DropPath" in type(module).__name__ for module in network.modules())


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
    if hub:
        ways_out = f"connect once, or give a name of timm's or {FOLDER}FOLDER"
        file = HubFile(place, ("config.json",), f"model.name={name}", ways_out).fetch()
        # Its folder is named by the commit: with that the weights belong to this description, and timm finds
        # the file in the cache without asking the hub.
        place = f"{place.partition('@')[0]}@{file.parent.name}"
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
