"""NVIDIA's GPU, its driver, torch on it, DALI and nvImageCodec."""

import ctypes
import os
import sys
from collections.abc import Iterator

from flowerfast.bench.usage import nvidia_smi
from flowerfast.doctor.line import Line, told
from flowerfast.doctor.packages import REINSTALL, installed, requirements, unmet
from flowerfast.machine import versions

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CONTAINER = "in a container: docker run --gpus all; else see that nvidia-smi works"


def driver_lines() -> Iterator[Line]:
    """NVIDIA's driver, and the CUDA version that it supports."""
    version, cuda = nvidia_smi("driver_version"), driver_cuda()
    if cuda is None and not has_gpu():
        yield Line("driver", "ok", "no NVIDIA driver and no NVIDIA GPU")
    elif cuda is None:
        found = f"{version or 'an NVIDIA GPU'}, but libcuda.so.1 is not to be loaded"
        yield Line("driver", "fail", found, f"install the driver; {_CONTAINER}")
    else:
        yield Line("driver", "ok", f"{version or 'of unknown version'}, CUDA {cuda[0]}.{cuda[1]}")


def cuda_lines() -> Iterator[Line]:
    """What torch computes on: the CUDA GPUs, each tried, Apple's, or the CPU."""
    import torch

    built = torch.version.cuda
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if float((torch.ones(8, device=f"cuda:{index}") * 2).sum()) != 16:
                raise RuntimeError(f"cuda:{index} gives wrong sums")
            about = torch.cuda.get_device_properties(index)
            found = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, torch built for CUDA {built}"
            yield Line(f"cuda:{index}", "ok", found)
        return
    hidden = os.environ.get(_VISIBLE)
    if torch.backends.mps.is_available():
        yield Line("cuda", "ok", "none, but Apple's GPU (mps)")
    elif not has_gpu():
        yield Line("cuda", "ok", "no NVIDIA GPU: everything runs on the CPU")
    elif hidden in ("", "-1"):
        yield Line("cuda", "warn", f"{_VISIBLE}={hidden} hides the GPU", f"unset {_VISIBLE}")
    elif built is None:
        # torch's own package index has builds for CUDA, where PyPI has none (Windows).
        found = "there is an NVIDIA GPU, but this torch is built without CUDA"
        yield Line("cuda", "fail", found, f"{REINSTALL}, as https://pytorch.org/get-started/locally says")
    else:
        cuda = driver_cuda()
        if cuda is not None and cuda[0] < int(built.split(".")[0]):
            found = f"torch is built for CUDA {built}, the driver supports {cuda[0]}.{cuda[1]}"
            mend = "update the driver, or install a torch built for that CUDA: https://pytorch.org"
        else:
            found, mend = f"there is an NVIDIA GPU, but torch (CUDA {built}) sees none", _CONTAINER
        yield Line("cuda", "fail", found, mend)


def dali_lines() -> Iterator[Line]:
    """NVIDIA DALI, where it can be used, and the nvImageCodec that it decodes with."""
    import torch

    from flowerfast.loaders.dali.probe import dali_problem

    on_gpu = torch.cuda.is_available()
    wheels = {name: version for name, version in versions().items() if name.startswith("nvidia-dali")}
    problem = dali_problem(torch.device("cuda" if on_gpu else "cpu"))
    if not wheels:
        what, mend = told(problem or "installed, but not by its package")
        wanted = on_gpu and sys.platform.startswith("linux")
        yield Line("dali", "warn" if wanted else "ok", what, mend if wanted else "")
        return
    name, version = next(iter(wheels.items()))
    if problem is not None:
        yield Line("dali", "fail", *told(problem))
    else:
        yield Line("dali", "ok", f"{name} {version}, on the {'GPU' if on_gpu else 'CPU'}")
    for each in requirements(name):
        wrong = unmet(each)
        if wrong is not None:
            mend = f'pip install "{each.name}{each.specifier}"'
            yield Line(each.name, "fail", f"{wrong} by {name} {version}", mend)
        elif "nvimgcodec" in each.name:
            yield Line("nvimagecodec", "ok", f"{each.name} {installed(each.name)}")


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, as far as that can be told without its driver's library."""
    return nvidia_smi("name") is not None or os.path.exists("/dev/nvidia0")


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version (major, minor) of the driver; None: there is no driver."""
    version = ctypes.c_int(0)
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10
