"""Samples of a batch mixed with each other, as its plan has it, where the batch lies."""

from dataclasses import replace

import numpy as np
import torch

from flowerfast.loaders.batch import Batch
from flowerfast.plans.mixing import WHOLE, Mix

_AT_A_TIME = 32  # pictures on a CPU: a batch in 32 bits a level would not fit its caches


def mixed(batch: Batch) -> Batch:
    """The batch with what its plan mixes mixed, and the labels and shares that go with it.

    Levels are whole numbers of 16.16 bits, rounded once: the same on every device. On CUDA it is queued on
    the current stream, with one copy of a few numbers per sample.
    """
    if batch.mix is None:
        return batch
    images, partners = batch.images.permute(0, 2, 3, 1), batch.mix.partners()
    numbers = torch.from_numpy(_numbers(batch.mix, partners))
    if images.is_cuda:
        numbers = numbers.pin_memory()
    numbers = numbers.to(images.device, non_blocking=True)
    out, step = torch.empty_like(images), _AT_A_TIME if images.device.type == "cpu" else max(len(images), 1)
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        out[part] = _blended(images[part], images[numbers[0, part]], numbers[1:6, part])
    return replace(
        batch,
        images=out.permute(0, 3, 1, 2),
        partner_labels=batch.labels[numbers[0]],
        weight=numbers[6].to(torch.int32).view(torch.float32),
        mix=None,
    )


def _numbers(mix: Mix, partners: np.ndarray) -> np.ndarray:
    """Partner, own weight, top, bottom, left, right and the share's bits of each sample: int64 (7, n)."""
    alone = partners == np.arange(len(partners))
    own, share = np.where(alone, WHOLE, mix.own), np.where(alone, np.float32(1), mix.share)
    box = mix.top, mix.top + mix.height, mix.left, mix.left + mix.width
    return np.stack([partners, own, *box, share.astype(np.float32).view(np.int32)]).astype(np.int64)


def _blended(own: torch.Tensor, other: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Of pictures, uint8 (m, S, S, 3); `numbers` are weights and boxes, int64 (5, m)."""
    place = torch.arange(own.shape[1], device=own.device)
    weight, top, bottom, left, right = numbers[:, :, None]
    inside = ((place >= top) & (place < bottom))[:, :, None] & ((place >= left) & (place < right))[:, None]
    weights = torch.where(inside, weight[:, :, None], WHOLE).to(torch.int32)[..., None]
    return ((own * weights + other * (WHOLE - weights) + WHOLE // 2) >> 16).to(torch.uint8)
