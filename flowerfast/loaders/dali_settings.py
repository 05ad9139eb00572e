"""How a DALI graph is set up: where it decodes, how, and with how many threads."""

from typing import Literal

import torch

from flowerfast.config import DataConfig
from flowerfast.loaders.dali_graph import GraphSettings, Source
from flowerfast.loaders.dali_probe import roi_problem
from flowerfast.loaders.sampling import Sampler
from flowerfast.loaders.torchvision import usable_cores

_HINT_BYTES = 1 << 30  # most that the GPU's decoder may be told to set aside at the start


def choose_decoder(wanted: Literal["auto", "gpu", "cpu"]) -> Literal["gpu", "cpu"]:
    """Where a graph on the GPU decodes training photos; `auto`: on the CPU.

    libjpeg-turbo decodes a window of a photo alone, and exactly as the reference does. nvJPEG (before 13.2)
    decodes the whole photo first, its pixels are off by 0.6 of 255 on average, and on an H100 with 16 cores
    it was no faster. The rule must not look at the number of workers or cores: pixels would depend on them.
    """
    return "cpu" if wanted == "auto" else wanted


def graph_settings(
    sampler: Sampler, data: DataConfig, device: torch.device, cached: bool
) -> tuple[GraphSettings, list[str]]:
    """Settings of the graph for a loader's batches, and the fallbacks chosen, one line each.

    `device` is where the graph runs; `cached`: photos come as pixels that lie there already.
    """
    recipe, threads = sampler.recipe, data.workers or usable_cores()
    device_id, source, problem = None, _source(recipe.augment is not None, data, device, cached), None
    if device.type == "cuda":
        device_id = device.index if device.index is not None else torch.cuda.current_device()
        problem = roi_problem(device_id) if source == "gpu" else None
    settings = GraphSettings(
        random=recipe.augment is not None,
        image_size=recipe.image_size,
        batch_size=recipe.batch_size,
        device_id=device_id,
        threads=threads,
        depth=data.dali_prefetch,
        source=source,
        roi=problem is None,
        hw_decoder_load=data.hw_decoder_load,
        hint=_largest(sampler) if source == "gpu" else (0, 0),
    )
    notes = [f"DALI decodes whole photos, then cuts the window: {problem}"] if problem is not None else []
    return settings, notes


def _source(random: bool, data: DataConfig, device: torch.device, cached: bool) -> Source:
    if cached:
        return "pixels"
    # The evaluation set is decoded once per run, so the reference's own pixels cost next to nothing.
    if device.type != "cuda" or not random:
        return "cpu"
    return choose_decoder(data.decoder)


def _largest(sampler: Sampler) -> tuple[int, int]:
    """Largest (width, height) among the photos, or (0, 0) where a batch of such would take too much."""
    manifest, indices = sampler.manifest, sampler.indices
    if not len(indices):
        return 0, 0
    width, height = int(manifest.width[indices].max()), int(manifest.height[indices].max())
    return (width, height) if 3 * width * height * sampler.recipe.batch_size <= _HINT_BYTES else (0, 0)
