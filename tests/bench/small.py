"""A bench of a few tiny photos."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.bench.trials import Bench
from flowerfast.config import Config
from flowerfast.photos import samples as reading
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config

TINY = (
    "model.name=test_resnet", "data.image_size=32", "train.batch_size=4", "train.device=cpu",
    "data.backend=cpu", "data.kernels=torchvision", "data.workers=2",
)  # fmt: skip
CPU = torch.device("cpu")


def tiny(data: Path, *more: str) -> Config:
    """Settings of a bench that ends soon."""
    return load_config(None, [*TINY, *more], {"data.path": str(data)})


def slower_decode(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on a photo is decoded in so many seconds more."""
    decode = reading.decode

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return decode(*arguments, **options)

    monkeypatch.setattr(reading, "decode", slow)


def bench_of(config: Config, scratch: Path = Path("unused")) -> Bench:
    """What trials of eight photos are made from."""
    return Bench(config, Photos(str(config.data.path)), CPU, 8, scratch)
