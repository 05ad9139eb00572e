"""What figures depend on, and the file they are kept in."""

import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import features

from flowerfast.bench.usage import nvidia_smi, said_by
from flowerfast.files import delivering, to_json
from flowerfast.loaders.device import device_name
from flowerfast.machine import cpu_name, total_memory, usable_cores, versions
from flowerfast.photos.photos import Photos

SCHEMA = 2
"""Version of the results files: 2 added spread, CPU and memory per row, and rows with `error`."""
_ROOT = Path(__file__).resolve().parents[2]


def environment(device: torch.device, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Machine, versions, revision and date; `packages` are distributions to list beside our own."""
    revision = _git("rev-parse", "HEAD") if _is_own_checkout() else None
    return {
        "device": device_name(device),
        "driver": nvidia_smi("driver_version") if device.type == "cuda" else None,
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_bytes": total_memory(),
        "torch_threads": torch.get_num_threads(),
        "versions": {**versions(), **_versions(packages)},
        "git": revision,
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no")) if revision else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def describe_photos(photos: Photos, name: str) -> dict[str, Any]:
    """Name and size of a set of photos, for a results file."""
    width, height = photos.sizes(photos.indices)
    return {
        "folder": name,
        "photos": len(photos),
        "mean_pixels": float((width * height).mean()),
        "mean_bytes": float(photos.table.size[photos.indices].mean()),
    }


def write_results(file: Path, result: dict[str, Any]) -> None:
    """Write a results file."""
    with delivering(file) as fresh:
        fresh.write_text(to_json(result, indent=1) + "\n", encoding="utf-8")


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    installed = {}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    # That of Pillow; simplejpeg, torchvision and DALI bring their own and do not say which.
    turbo = features.version_feature("libjpeg_turbo")
    return {**installed, "libjpeg-turbo (pillow)": turbo} if turbo else installed


def _is_own_checkout() -> bool:
    """Whether this package lies in a checkout of its own, not in an environment inside somebody else's."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and os.path.realpath(top) == str(_ROOT)


def _git(*arguments: str) -> str | None:
    return said_by("git", "-C", str(_ROOT), *arguments)
