"""Where the model and its batches are."""

import platform

import torch

from flowerfast.arguments import of_kind
from flowerfast.documents import shown
from flowerfast.errors import UserError

_WAYS = "auto, cpu, cuda, cuda:1 or mps"


def pick_device(name: str | torch.device) -> torch.device:
    """Device for auto, cpu, cuda or mps, a GPU with its index. Raises UserError for one that is not there.

    auto: the CUDA GPU, else Apple's, else the CPU.
    """
    of_kind("device", name, str | torch.device, _WAYS)
    try:
        device = torch.device(_best() if name == "auto" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device={shown(str(name))}: no such device; give {_WAYS}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("train.device=mps: torch sees no Apple GPU; use train.device=auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "train.device=cuda: torch sees no CUDA GPU; use train.device=auto, or check nvidia-smi"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device}: torch sees {torch.cuda.device_count()} CUDA GPUs; give {_WAYS}")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_name(device: torch.device) -> str:
    """Name of the GPU, or the architecture of the CPU or of Apple's GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{'Apple GPU' if device.type == 'mps' else 'CPU'} ({platform.machine()})"
