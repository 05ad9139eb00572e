"""Can DALI be used here, and how? Answered without importing DALI unless it is there.

Run as a program (`python -m flowerfast.loaders.dali_probe ID`) it tries window decoding on a CUDA device; it
is a process of its own because some versions of nvImageCodec end the process on H100 and B200
(https://github.com/NVIDIA/nvImageCodec/issues/55).
"""

import ctypes
import importlib.util
import io
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowerfast.data.manifest import user_cache_dir

_INSTALL = 'pip install "flowerfast[dali]"'
_INSTEAD = "or use data.backend=torchvision"
_WHEELS = {"nvidia-dali-cuda120": (12, 525), "nvidia-dali-cuda130": (13, 580)}
"""DALI's packages: the CUDA version that each needs, and the driver that brings it."""
_DECODERS = ("nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg-cu12", "nvidia-nvjpeg")
_TIMEOUT = 120.0  # seconds; the probe itself takes a few
_REFUSED = "ROI decode with fancy upsampling"  # nvImageCodec's warning when it leaves a window to the CPU
_WRONG = 3  # the probe's exit code when window decoding works no further than raising or wrong pixels


def dali_problem(device: torch.device) -> str | None:
    """Why DALI cannot run on `device`, in one line that says what to do; None when it can."""
    if not sys.platform.startswith("linux"):
        return "NVIDIA DALI runs on Linux only; use data.backend=torchvision"
    if not _installed():
        return f"NVIDIA DALI is not installed; {_INSTALL}, {_INSTEAD}"
    if device.type == "cuda" and not torch.cuda.is_available():
        return (
            "DALI on the GPU needs a CUDA GPU, and torch finds none; use data.backend=dali-cpu or torchvision"
        )
    if device.type == "cuda" and (problem := _driver_problem()):
        return problem
    try:
        importlib.import_module("nvidia.dali")
    except (ImportError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"NVIDIA DALI cannot be loaded ({reason}); reinstall it ({_INSTALL}), {_INSTEAD}"
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
        return f"no NVIDIA driver (libcuda.so.1) is installed; install one, {_INSTEAD}"
    found = version.value // 1000
    if needs and found < min(needs)[0]:
        cuda, driver = min(needs)
        return (
            f"the NVIDIA driver supports CUDA {found}, this DALI needs CUDA {cuda} "
            f"(driver {driver} or newer); update the driver, {_INSTEAD}"
        )
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def roi_problem(device_id: int) -> str | None:
    """Why the GPU decoder cannot decode a window of a photo, or None when it can.

    The answer is kept per GPU model and versions in the user's cache folder.
    """
    packages = [*_WHEELS, *_DECODERS]
    versions = [f"{name}={version}" for name in packages if (version := _version(name))]
    key = " ".join([torch.cuda.get_device_name(device_id), *versions])
    cache = user_cache_dir() / "dali_window_decode.json"
    known = _load(cache)
    if key in known:
        return known[key] or None
    problem, lasting = _probe_in_process(device_id)
    if lasting:
        _store(cache, known | {key: problem})
    return problem or None


def _probe_in_process(device_id: int) -> tuple[str, bool]:
    """(problem or "", whether it will be the same next time)."""
    command = [sys.executable, "-m", "flowerfast.loaders.dali_probe", str(device_id)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=_TIMEOUT, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a trial of window decoding did not end ({type(error).__name__})", False
    if _REFUSED in done.stderr:
        # It decodes on the CPU then, well but not on the GPU, and says so for every photo.
        return "this nvJPEG (before 13.2) does not decode windows with smooth chroma on the GPU", True
    if done.returncode == 0:
        return "", True
    if done.returncode < 0:
        return f"window decoding crashes with these versions (signal {-done.returncode})", True
    last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return f"a trial of window decoding failed ({last})", done.returncode == _WRONG


def _load(cache: Path) -> dict[str, str]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _store(cache: Path, known: dict[str, str]) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")
        part.replace(cache)
    except OSError:
        return  # the probe runs again next time


def probe_windows(device_id: int) -> str:
    """Decode windows of small JPEGs both ways on a GPU: "" when they agree, else what is wrong."""
    from flowerfast.data.plan import Plan
    from flowerfast.loaders.dali_graph import Graph, GraphSettings

    photos, n, side = _photos(), 64, 64
    encoded = [photos[i % len(photos)] for i in range(n)]
    rng = np.random.default_rng(0)
    none, off, one = np.zeros(n, np.int32), np.zeros(n, bool), np.ones(n, np.float32)
    top, left = (rng.integers(0, 100, n).astype(np.int32) for _ in range(2))
    height, width = (rng.integers(20, 140, n).astype(np.int32) for _ in range(2))
    plan = Plan(none, top, left, height, width, off, one * 0, one, one, off, none, none, side)
    pixels = []
    for roi in (False, True):
        graph = Graph(GraphSettings(True, side, n, device_id, 4, 2, "gpu", roi))
        graph.feed(plan, encoded)
        pixels.append(graph.collect().cpu().numpy().astype(np.int16))
        graph.close()
    apart = np.abs(pixels[0] - pixels[1]).mean(axis=(1, 2, 3)).max()
    # Chroma at the window's border may be interpolated from other neighbours: a level or so, not ten.
    return "" if apart < 2 else f"a window differs from the whole photo by {apart:.1f} of 255"


def _photos() -> list[np.ndarray]:
    """Smooth JPEGs of 240 x 320 and odd sizes, with full and halved chroma, baseline and progressive."""
    rng, out = np.random.default_rng(0), []
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            for size in ((320, 240), (331, 257)):
                noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8))
                file = io.BytesIO()
                photo = noise.resize(size, Image.Resampling.BICUBIC)
                photo.save(file, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
                out.append(np.frombuffer(file.getvalue(), np.uint8))
    return out


def _main() -> int:
    try:
        problem = probe_windows(int(sys.argv[1]))
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200] or "RuntimeError"
    sys.stderr.write(problem)
    return _WRONG if problem else 0


if __name__ == "__main__":
    sys.exit(_main())
