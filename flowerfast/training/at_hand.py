"""Weights of timm models that are on this machine."""

from pathlib import Path
from typing import Any

import timm

from flowerfast.arguments import path
from flowerfast.errors import UserError

_OWNER = "timm/"
_SUFFIXES = (".safetensors", ".pth")


def weights_at_hand(folder: Path | str | None = None) -> list[dict[str, Any]]:
    """Settings of each model of which weights are here, by name.

    Of a folder, files NAME.safetensors, NAME.TAG.safetensors and .pth of timm models NAME; None: what the
    hub's client has kept of timm's repositories. Raises UserError when there are none.
    """
    found = _kept_by_hub() if folder is None else _in_folder(path("weights", folder))
    if not found:
        where = "kept by the hub's client" if folder is None else f"in {folder}"
        raise UserError(
            f"model.name=auto: no weights of timm's models {where}; name a model, or give a folder of files "
            "NAME.safetensors (--weights FOLDER)"
        )
    return found


def _kept_by_hub() -> list[dict[str, Any]]:
    from huggingface_hub import scan_cache_dir  # which Windows has no use for, and not all of it there
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    names = sorted(repo.repo_id.removeprefix(_OWNER) for repo in repos if repo.repo_id.startswith(_OWNER))
    return [{"model.name": name, "model.pretrained": True} for name in names if timm.is_model(name)]


def _in_folder(folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        raise UserError(f"--weights {folder}: no such folder; give one of files NAME.safetensors")
    files = [file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES]
    named = [(file.name.partition(".")[0], file) for file in files]
    return [
        {"model.name": name, "model.weights": str(file.resolve())}
        for name, file in named
        if timm.is_model(name)
    ]
