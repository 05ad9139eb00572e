"""What figures depend on, and the file they are kept in."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import features

from flowerfast.data.manifest import Manifest
from flowerfast.runs import device_name, versions

SCHEMA = 2
"""Version of the results files: 2 added spread, CPU and memory per row, and rows with `error`."""
_ROOT = Path(__file__).resolve().parents[2]


def environment(device: torch.device, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Machine, versions, revision and date; `packages` are distributions to list beside our own."""
    revision = _git("rev-parse", "HEAD")
    return {
        "device": device_name(device),
        "driver": _driver() if device.type == "cuda" else None,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "torch_threads": torch.get_num_threads(),
        "versions": {**versions(), **_versions(packages)},
        "git": revision,
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no")) if revision else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def describe_photos(manifest: Manifest, name: str) -> dict[str, Any]:
    """Name and size of a set of photos, for a results file."""
    pixels = manifest.width.astype("int64") * manifest.height
    return {
        "folder": name,
        "photos": len(manifest),
        "mean_pixels": float(pixels.mean()),
        "mean_bytes": float(manifest.size.mean()),
    }


def write_results(file: Path, result: dict[str, Any]) -> None:
    """Write a results file under a temporary name and rename it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    # That of Pillow; simplejpeg, torchvision and DALI bring their own and do not say which.
    turbo = features.version_feature("libjpeg_turbo")
    return {**found, "libjpeg-turbo (pillow)": turbo} if turbo else found


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor()


def _driver() -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.split("\n")[0].strip() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
