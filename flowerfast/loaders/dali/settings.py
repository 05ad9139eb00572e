"""How a DALI graph is set up: where it decodes, how, and with how many threads."""

from typing import Literal

import torch

from flowerfast.config import DataConfig
from flowerfast.loaders.dali.graph import GraphSettings, Source
from flowerfast.loaders.speeds import compare
from flowerfast.machine import usable_cores
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler

DALI_SHARE = 0.65  # DALI's own default
_HOPPER, _GATE = 9, (0.12, 70)  # compute capability; share and threads, see choose_share
_HINT_BYTES = 1 << 30  # most that the GPU's decoder may be told to set aside at the start


def choose_decoder(wanted: Literal["auto", "gpu", "cpu"]) -> Literal["gpu", "cpu"]:
    """Where a graph on the GPU decodes training photos; `auto`: on the CPU.

    libjpeg-turbo decodes a window of a photo alone, and exactly as the reference does. nvJPEG decodes the
    whole photo (before 13.2 it refuses windows with smooth chroma), its pixels are off by 0.6 of 255 on
    average, and on an H100 with 16 cores it was no faster. The rule must not look at the number of workers or
    cores: pixels would depend on them.
    """
    return "cpu" if wanted == "auto" else wanted


def choose_share(data: DataConfig, device: torch.device, photos: Photos) -> float:
    """Share of each batch for the GPU's hardware decoder; `auto`: the fastest that was measured here.

    Without such, what is published of the GPU. DALI's documentation of `fn.decoders.image` has 0.65 as the
    default, of Ampere, and says that the best share depends on the number of threads and should be found
    empirically. On Hopper DALI's own gate for speed (qa/TL1_decoder_perf/test.sh in NVIDIA/DALI) has 0.12
    with 70 threads; we take both decoders to end together there, so fewer threads leave the hardware more.
    The rule may look at threads, since no share changes pixels.
    """
    if data.hw_decoder_load != "auto":
        return data.hw_decoder_load
    found = compare(photos, device, [data])
    if found is not None and (best := found[1][0].hw_decoder_load) is not None:
        return best
    if torch.cuda.get_device_capability(device)[0] != _HOPPER:
        return DALI_SHARE
    share, threads = _GATE
    by_threads = (1 - share) / threads * (data.workers or usable_cores())
    return round(share / (share + by_threads), 2)


def graph_settings(sampler: Sampler, data: DataConfig, device: torch.device, cached: bool) -> GraphSettings:
    """Settings of the graph for a loader's batches.

    `device` is where the graph runs; `cached`: photos come as pixels that lie there already.
    """
    augmented = sampler.augment is not None
    source, device_id = _source(augmented, data, device, cached), None
    if device.type == "cuda":
        device_id = device.index if device.index is not None else torch.cuda.current_device()
    return GraphSettings(
        augmented=augmented,
        image_size=sampler.size,
        turned=sampler.photos.are_turned,
        batch_size=sampler.largest_batch,
        device_id=device_id,
        threads=data.workers or usable_cores(),
        depth=data.dali_prefetch,
        source=source,
        # Where the GPU decodes, `Loader` has settled it.
        hw_decoder_load=DALI_SHARE if data.hw_decoder_load == "auto" else data.hw_decoder_load,
        hint=_largest(sampler) if source == "gpu" else (0, 0),
        kernels=data.gpu_kernels == "triton" and not cached,
    )


def _source(augmented: bool, data: DataConfig, device: torch.device, cached: bool) -> Source:
    if cached:
        return "pixels"
    # The evaluation set is decoded once per run, so the reference's own pixels cost next to nothing.
    if device.type != "cuda" or not augmented:
        return "cpu"
    return choose_decoder(data.decoder)


def _largest(sampler: Sampler) -> tuple[int, int]:
    """Largest (width, height) among the photos, or (0, 0) where a batch of such would take too much."""
    if not len(sampler.photos):
        return 0, 0
    width, height = (int(side.max()) for side in sampler.photos.sizes(sampler.photos.indices))
    return (width, height) if 3 * width * height * sampler.largest_batch <= _HINT_BYTES else (0, 0)
