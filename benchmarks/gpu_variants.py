"""What benchmarks/gpu.py measures: loaders by name, training that they feed, and a step as one CUDA graph."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch

from benchmarks.gpu_session import PhotoSet, Session
from benchmarks.peers import paper
from flowerfast.bench.child import Variant
from flowerfast.bench.rounds import Drawn, Source
from flowerfast.bench.training_sources import make_state, synthetic
from flowerfast.bench.trials import HW_LOADS
from flowerfast.errors import UserError
from flowerfast.loaders.device import pick_device
from flowerfast.settings import load_config
from flowerfast.training.fit import train_step

LOADER, TRAINING = "flowerfast.bench.sources:loader", "flowerfast.bench.training_sources:training"
ENOUGH = 0.5
"""A loader that alone makes less than this share of the eager step's images/s is not trained with."""


def our_loaders(cuda: bool) -> dict[str, list[str]]:
    """Settings of our loaders by name; on a CPU DALI's CPU operators and memory stand for the GPU's."""
    dali, memory = ("data.backend=dali", "vram") if cuda else ("data.backend=dali-cpu", "ram")
    by_gpu = {
        f"dali, decoder=gpu, load={load:g}": [dali, "data.decoder=gpu", f"data.hw_decoder_load={load}"]
        for load in (HW_LOADS if cuda else HW_LOADS[:1])
    }
    # The kernels by name: where they do not run a row shall fail, not measure what stands in for them.
    kernels = ["data.gpu_kernels=triton"] if cuda else []
    kept, own = f"dali, {memory} cache", ["data.gpu_kernels=dali"]
    rows = {
        "cpu": ["data.backend=cpu"],
        "dali, decoder=cpu": [dali, "data.decoder=cpu", *kernels],
        "dali, decoder=cpu, own operators": [dali, "data.decoder=cpu", *own],
        **by_gpu,
        kept: [dali, f"data.cache={memory}", *kernels],
        "cpu, vram cache": ["data.backend=cpu", "data.cache=vram", *kernels],
        f"{kept}, own operators": [dali, f"data.cache={memory}", *own],
        "cpu, ram cache": ["data.backend=cpu", "data.cache=ram"],
    }
    return {
        name: row for name, row in rows.items() if cuda or ("data.cache=vram" not in row and row[-1:] != own)
    }


def model_settings(session: Session, batch_size: int) -> list[str]:
    """`key=value` settings that all rows of ours have."""
    sizes = [f"train.batch_size={batch_size}", f"data.image_size={session.args.image_size}"]
    loops = [] if session.cuda else ["data.kernels=torchvision"]  # compiling takes longer than the rehearsal
    return [*sizes, f"data.workers={session.args.cores}", f"model.name={session.args.model}", *loops]


def loader(session: Session, data: PhotoSet, name: str, batch_size: int) -> Variant:
    """The loader of that name: one of ours, or the paper's with a worker process per core."""
    common: dict[str, Any] = {"data": str(data.folder), "device": session.args.device}
    if name == paper.NAME:
        sizes = {"image_size": session.args.image_size, "batch_size": batch_size, "cores": session.args.cores}
        return Variant(name, paper.TARGET, {**common, **sizes})
    settings = [*model_settings(session, batch_size), *our_loaders(session.cuda)[name]]
    return Variant(name, LOADER, {**common, "settings": settings})


def training(session: Session, fed_by: Variant, settings: list[str], data: PhotoSet) -> Variant:
    """Training fed by a loader; the paper's batches are normalised already."""
    options: dict[str, Any] = {"source": {"target": fed_by.target, "options": fed_by.options}}
    options |= {"settings": settings, "device": session.args.device, "classes": len(data.given.classes)}
    return Variant(fed_by.name, TRAINING, {**options, "floats": fed_by.name == paper.NAME})


def fast_enough(rows: dict[str, Any], floor: float | None) -> tuple[list[str], dict[str, str]]:
    """(loaders that make half of the step's images/s, why the others are left out); no floor: all of them."""
    fed, slow = [], {}
    for name, row in rows.items():
        if "error" in row:
            slow[name] = str(row["error"])
        elif floor is not None and row["images_per_sec"] < ENOUGH * floor:
            slow[name] = f"{row['images_per_sec']:,.0f} images/s, the step {floor:,.0f}"
        else:
            fed.append(name)
    return fed, slow


def captured_steps(settings: Sequence[str], device: str) -> Source:
    """Training steps on synthetic pixels, captured once as a CUDA graph, optimiser included, and replayed.

    The product does not train so (`train.compile` captures forward and backward, of small batches): it shows
    what launching the kernels one by one costs.
    """
    where = pick_device(device)
    if where.type != "cuda":
        raise UserError("CUDA graphs need a CUDA GPU")
    config = load_config(None, settings)
    batch, state = synthetic(config, where), make_state(config, where)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(11):  # before a CUDA graph is captured, as PyTorch's notes on them have it for DDP
            train_step(state, batch)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train_step(state, batch)

    def epoch() -> Iterator[Drawn]:
        for _ in range(10):
            graph.replay()
            yield batch

    return Source((epoch() for _ in count()), lead=1)
