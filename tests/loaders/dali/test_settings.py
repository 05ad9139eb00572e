"""Where a DALI graph decodes, and how it is set up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders import speeds
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler
from flowerfast.settings import load_config

pytest.importorskip("nvidia.dali")

from flowerfast.loaders.dali.settings import choose_decoder, choose_share, graph_settings

CUDA = torch.device("cuda")
BY_GPU: dict[str, Any] = {"backend": "dali", "decoder": "gpu"}


@pytest.mark.parametrize(("wanted", "found"), [("gpu", "gpu"), ("cpu", "cpu"), ("auto", "cpu")])
def test_choose_decoder(wanted: Any, found: str) -> None:
    assert choose_decoder(wanted) == found


@pytest.mark.parametrize(
    ("capability", "threads", "share"),
    [((8, 0), 16, 0.65), ((9, 0), 70, 0.12), ((9, 0), 16, 0.37), ((9, 0), 4, 0.7), ((10, 0), 16, 0.65)],
)
def test_an_unmeasured_share_is_what_is_published_of_the_gpu(
    photo_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    threads: int,
    share: float,
) -> None:
    monkeypatch.setattr(speeds, "device_name", lambda _: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    photos = Photos(photo_folder())
    assert choose_share(DataConfig(**BY_GPU, workers=threads), CUDA, photos) == share
    told = DataConfig(**BY_GPU, workers=threads, hw_decoder_load=0.3)
    assert choose_share(told, CUDA, photos) == 0.3


def test_the_share_that_was_measured_to_be_the_fastest_is_taken(
    photo_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speeds, "device_name", lambda _: "NVIDIA Test")
    photos = Photos(photo_folder())
    measured = [
        (DataConfig(**BY_GPU, hw_decoder_load=load), {"images_per_sec": rate, "spread": 1})
        for load, rate in ((0.0, 900), (0.2, 1100), (0.65, 1000))
    ]
    speeds.remember(photos, CUDA, load_config(), measured)
    assert choose_share(DataConfig(**BY_GPU), CUDA, photos) == 0.2


@pytest.mark.parametrize(
    ("data", "augment", "cached", "source"),
    [
        ({"decoder": "gpu"}, Augment(), False, "gpu"),
        ({"decoder": "cpu"}, Augment(), False, "cpu"),
        ({"workers": 1}, Augment(), False, "cpu"),
        ({"workers": 64}, Augment(), False, "cpu"),
        ({"decoder": "gpu"}, Augment(), True, "pixels"),
        ({"decoder": "gpu"}, None, False, "cpu"),
    ],
)
def test_what_the_graph_is_fed_and_what_the_decoder_is_told(
    photo_folder: Callable[..., Path],
    data: dict[str, object],
    augment: Augment | None,
    cached: bool,
    source: str,
) -> None:
    sampler = Sampler(Photos(photo_folder()), 48, 5, augment=augment)
    settings = graph_settings(sampler, DataConfig(**data), torch.device("cuda", 2), cached)
    assert (settings.source, settings.device_id) == (source, 2)
    assert (settings.hint != (0, 0)) == (source == "gpu")
    assert not settings.kernels
    kernels = DataConfig(**data, gpu_kernels="triton")
    settings = graph_settings(sampler, kernels, torch.device("cuda", 2), cached)
    assert settings.kernels == (not cached), "cached photos come to the graph only where kernels do not run"
