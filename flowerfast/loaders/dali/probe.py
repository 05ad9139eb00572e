"""Can DALI be used here? Answered without importing DALI unless it is there."""

import ctypes
import importlib.util
import sys
from importlib import metadata

import torch

from flowerfast.errors import one_line

_INSTALL = 'pip install "flowerfast[dali]"'
_WHEELS = {"nvidia-dali-cuda120": (12, 525), "nvidia-dali-cuda130": (13, 580)}
"""DALI's packages: the CUDA version that each needs, and the driver that brings it."""


def dali_problem(device: torch.device) -> str | None:
    """Why DALI cannot run on `device`, in one line that says how to mend it; None when it can."""
    if not sys.platform.startswith("linux"):
        return "NVIDIA DALI runs on Linux only"
    if not _installed():
        return f"NVIDIA DALI is not installed; {_INSTALL}"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "DALI on the GPU needs a CUDA GPU, and torch finds none"
    if device.type == "cuda" and (problem := _driver_problem()):
        return problem
    try:
        importlib.import_module("nvidia.dali")
    except (ImportError, OSError) as error:
        return f"NVIDIA DALI cannot be loaded ({one_line(error)}); reinstall it ({_INSTALL})"
    return None


def _installed() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # there is not even a package `nvidia`
        return False


def _driver_problem() -> str | None:
    needs = [need for name, need in _WHEELS.items() if _version(name)]
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) is installed; install one"
    supported = version.value // 1000
    if needs and supported < min(needs)[0]:
        cuda, driver = min(needs)
        return (
            f"the NVIDIA driver supports CUDA {supported}, this DALI needs CUDA {cuda} "
            f"(driver {driver} or newer); update the driver"
        )
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
