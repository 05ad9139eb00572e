"""Each part of training alone: the fastest that a loader made of such parts, or a fed step, could be.

Each function is the target of a `Variant` and returns a `Source`; the parts are those of the product, set up
as its loaders set them up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flowerfast.bench.rounds import Batch as Drawn
from flowerfast.bench.rounds import Source
from flowerfast.bench.sources import make_trainer, sample, synthetic
from flowerfast.bench.stages import recipe_of
from flowerfast.config import Config, load_config
from flowerfast.data.manifest import load_manifest
from flowerfast.data.plan import End, EvalPlan, Plan
from flowerfast.errors import UserError
from flowerfast.loaders.cache_choice import open_cache
from flowerfast.loaders.dali import READERS
from flowerfast.loaders.dali_cache import CachedPhotos
from flowerfast.loaders.dali_files import Files, Reading
from flowerfast.loaders.dali_graph import Graph
from flowerfast.loaders.dali_inputs import Piece, arguments
from flowerfast.loaders.dali_probe import roi_problem
from flowerfast.loaders.dali_settings import graph_settings
from flowerfast.loaders.sampling import Sampler
from flowerfast.runs import pick_device
from flowerfast.train import train_step

_STEPS = 10  # synthetic batches that count as an epoch
_WARM = 11  # steps before a CUDA graph is captured, as PyTorch's notes on CUDA graphs have it for DDP
Fed = tuple[Plan | EvalPlan, Sequence[Piece]]


def captured_steps(settings: Sequence[str], device: str, how: Literal["graph", "reduce-overhead"]) -> Source:
    """Training steps on pixels that lie on the device, launched as CUDA graphs.

    Args:
        settings: of the model and the step.
        device: cuda; a CPU has no such graphs.
        how: `graph` captures the whole eager step once and replays it; `reduce-overhead` is torch.compile's
            own way of doing so for forward and backward.
    """
    config, where = load_config(None, settings), pick_device(device)
    if where.type != "cuda":
        raise UserError("CUDA graphs need a CUDA GPU")
    batch, trainer = synthetic(config, where), make_trainer(config, where)

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        train_step(trainer, batch)

    if how == "reduce-overhead":
        trainer.forward = torch.compile(trainer.model, mode="reduce-overhead")
        run: Callable[[], None] = step
    else:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM):
                train_step(trainer, batch)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            train_step(trainer, batch)
        run = graph.replay

    def epoch() -> Iterator[Drawn]:
        for _ in range(_STEPS):
            run()
            yield batch.images, batch.labels

    return Source((epoch() for _ in count()), lead=1)


def planning(data: str, settings: Sequence[str]) -> Source:
    """Plans and the graph's inputs made of them: one thread of Python and numpy, no photo touched."""
    sampler = _sampler(_config(data, settings))

    def epoch(number: int) -> Iterator[Drawn]:
        for plan in sampler.plans(number):
            yield arguments(plan), plan.indices

    return Source((epoch(number) for number in count()), lead=1)


def reading(data: str, settings: Sequence[str]) -> Source:
    """Files read and their headers checked, as many batches ahead as the loader reads."""
    config = _config(data, settings)
    sampler = _sampler(config)
    files = Files(sampler.manifest, READERS)

    def epoch(number: int) -> Iterator[Drawn]:
        ahead: list[Reading] = []
        for plan in sampler.plans(number):
            ahead.append(files.start(plan))
            if len(ahead) >= config.data.prefetch:
                yield _read(ahead.pop(0))
        while ahead:
            yield _read(ahead.pop(0))

    return Source((epoch(number) for number in count()), close=files.close)


def decoding(
    data: str,
    settings: Sequence[str],
    device: str,
    window: bool,
    place: Literal["cpu", "gpu"],
    load: float | None = None,
    huffman_pixels: int | None = None,
) -> Source:
    """The decoder alone, from bytes that are in memory already and handed over as the loader does it.

    Args:
        data, settings: photos, and the loader's settings.
        device: cuda; on a CPU DALI's CPU decoder stands in for the GPU's.
        window: decode only each plan's window, as training does, else the whole photo.
        place: where JPEGs are decoded; what the CPU decodes is then copied to the device.
        load: share of the photos for the hardware decoder; None: as the settings have it.
        huffman_pixels: see `GraphSettings`; None: the default.

    Raises UserError where windows cannot be decoded by the GPU.
    """
    config = _config(data, settings)
    sampler, where = _sampler(config), pick_device(device)
    found, _ = graph_settings(sampler, config.data.model_copy(update={"decoder": place}), where, cached=False)
    if found.source == "gpu" and window and not found.roi and found.device_id is not None:
        raise UserError(roi_problem(found.device_id) or "windows cannot be decoded by this GPU")
    found = replace(
        found,
        end=End.decode,
        random=window,
        hw_decoder_load=found.hw_decoder_load if load is None else load,
        huffman_pixels=found.huffman_pixels if huffman_pixels is None else huffman_pixels,
    )
    if not window:  # a plan without windows
        sampler = Sampler(sampler.manifest, sampler.indices, replace(sampler.recipe, augment=None))
    files = Files(sampler.manifest, READERS)
    fed = [_photos(files.start(plan)) for plan in sampler.plans(0)]
    files.close()
    return _kept_full(Graph(found), fed)


def augmenting(
    data: str, settings: Sequence[str], device: str, until: str = "all", one_pass: bool | None = None
) -> Source:
    """The graph alone on decoded photos where it runs, as the decoded cache keeps them.

    `until` is the name of the `End` at which the graph stops; `one_pass` is as in `GraphSettings`.
    """
    config = _config(data, settings)
    sampler, where = _sampler(config), pick_device(device)
    place = "vram" if where.type == "cuda" else "ram"
    cache = open_cache(place, config.data, sampler.manifest, sampler.indices, where)
    assert cache is not None
    if cache.places < len(sampler.indices):
        raise UserError(cache.notes[0])
    found, _ = graph_settings(sampler, config.data, where, cached=True)
    decoder = CachedPhotos(sampler.manifest, cache, found.threads)
    fed = [_photos(decoder.start(plan)) for plan in sampler.plans(0) if isinstance(plan, Plan)]
    decoder.close()
    return _kept_full(Graph(replace(found, end=End[until], one_pass=one_pass)), fed)


def _config(data: str, settings: Sequence[str]) -> Config:
    return load_config(None, settings, {"data.path": data})


def _sampler(config: Config) -> Sampler:
    manifest = load_manifest(Path(str(config.data.path)), config.data.max_pixels)
    return Sampler(manifest, sample(len(manifest), None), recipe_of(config))


def _photos(reading: Reading) -> Fed:
    plan, photos, _ = reading.result()
    return plan, photos


def _read(reading: Reading) -> Drawn:
    plan, photos = _photos(reading)
    return photos, plan.indices


def _kept_full(graph: Graph, fed: Sequence[Fed]) -> Source:
    """Batches of a graph whose queue never runs dry; an epoch is all that is fed, once."""
    ahead, under_way = cycle(fed), list[np.ndarray]()

    def feed() -> None:
        plan, photos = next(ahead)
        graph.feed(plan, photos)
        under_way.append(plan.indices)

    def epoch() -> Iterator[tuple[Any, np.ndarray]]:
        for _ in fed:
            while len(under_way) < graph.settings.depth:
                feed()
            graph.drop()
            yield None, under_way.pop(0)

    return Source((epoch() for _ in count()), close=graph.close)
