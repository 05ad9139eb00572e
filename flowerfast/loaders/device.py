"""Where the model and its batches are."""

import platform

import torch

from flowerfast.errors import UserError


def pick_device(name: str | torch.device) -> torch.device:
    """Device for auto, cpu or cuda, a GPU with its index. Raises UserError when there is no CUDA."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"device={name!r}: no such device; give auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "train.device=cuda: torch sees no CUDA GPU; use train.device=auto, or check nvidia-smi"
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"
