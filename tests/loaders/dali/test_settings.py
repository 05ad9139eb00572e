"""Where a DALI graph decodes, and how it is set up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.config import Augment, DataConfig
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler

pytest.importorskip("nvidia.dali")

from flowerfast.loaders.dali.settings import choose_decoder, graph_settings


@pytest.mark.parametrize(("wanted", "found"), [("gpu", "gpu"), ("cpu", "cpu"), ("auto", "cpu")])
def test_choose_decoder(wanted: Any, found: str) -> None:
    assert choose_decoder(wanted) == found


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
