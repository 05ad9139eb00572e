"""What must be alike on all ranks before they train together."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch

from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.loaders.cache.choice import choose_cache
from flowerfast.loaders.engine import choose_backend
from flowerfast.photos.photos import Photos
from flowerfast.ranks.telling import everywhere, from_first, gather
from flowerfast.ranks.who import Ranks, current
from flowerfast.settings import change_config


def check_parts(batch_size: int, least: int, ranks: Ranks) -> None:
    """Raise UserError unless each rank has `least` samples of a full batch, or it is one process."""
    if ranks.are_many and batch_size < least * ranks.world_size:
        why = "" if least == 1 else f", {least} for its batch normalisation"
        raise everywhere(
            UserError(
                f"train.batch_size={batch_size}: it is that of all {ranks.world_size} ranks, and each needs "
                f"its part{why}; give {least * ranks.world_size} or more, or start fewer ranks"
            )
        )


def check_samples(photos: Photos, least: int, ranks: Ranks) -> None:
    """Raise UserError unless there are `least` photos to train on for each rank, or it is one process."""
    if ranks.are_many and len(photos) < least * ranks.world_size:
        raise everywhere(
            UserError(
                f"{photos.source}: {len(photos)} photos to train on, too few for {ranks.world_size} ranks of "
                f"which each needs {least}; start fewer ranks"
            )
        )


def check_device(device: torch.device) -> None:
    """Raise UserError unless each rank of this machine has a device of its own, or all compute on the CPU."""
    here = current()
    if not here.are_many or device.type == "cpu":
        return
    if device.type != "cuda":
        raise UserError(f"train.device={device.type}: no device for several ranks; use train.device=cpu")
    if here.local_size > torch.cuda.device_count():
        raise UserError(
            f"{here.local_size} ranks on this machine and {torch.cuda.device_count()} GPUs: start as many "
            "ranks as GPUs (torchrun --nproc-per-node), or use train.device=cpu"
        )


def check_same_arguments(given: Mapping[str, object]) -> None:
    """Raise UserError where a rank was started with other arguments than the first, whose alone count."""
    said = gather({key: str(value) for key, value in given.items()}, patient=True)
    for rank, other in enumerate(said):
        apart = [key for key in {**said[0], **other} if said[0].get(key) != other.get(key)]
        if apart:
            here, there = (each.get(apart[0], "not given") for each in (said[0], other))
            raise everywhere(
                UserError(
                    f"{apart[0]}: {there} on rank {rank}, {here} on rank 0; start all with the same arguments"
                )
            )


def check_same_photos(photos: Photos) -> None:
    """Raise UserError when a rank's folder holds other photos than that of the first."""
    table = photos.table
    sets = () if table.sets is None else (table.sets.digest(),)
    number = zlib.crc32(repr((table.classes, len(table), *sets)).encode("utf-8", "surrogateescape"))
    for column in (table.path_bytes, table.label, table.width, table.height, table.fold):
        number = zlib.crc32(np.ascontiguousarray(column).data, number)
    numbers = gather(number, patient=True)
    others = [rank for rank, other in enumerate(numbers) if other != numbers[0]]
    if others:
        raise everywhere(
            UserError(
                f"{photos.source}: rank {others[0]} finds other photos there than rank 0; give all machines "
                "the same"
            )
        )


def same_pixels(config: Config, device: torch.device, photos: Photos) -> Config:
    """The settings with the backend and the cache that the first rank chooses, where there are others."""
    if not current().are_many:
        return config

    def choose() -> dict[str, str]:
        backend, _ = choose_backend(config.data, device, photos)
        data = config.data.model_copy(update={"backend": backend})
        return {"data.backend": backend, "data.cache": choose_cache(data, backend, device, photos)[0]}

    return change_config(config, (), from_first(choose))
