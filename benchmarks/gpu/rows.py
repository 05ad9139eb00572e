"""Which rows gpu_speed.py measures, by part: names, and what the measuring core runs for each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import dali_cpu, paper
from flowerfast.bench.child import Variant
from flowerfast.bench.trials import LOADER, STEPS, TRAINING

PAPER, TORCHVISION, DALI = paper.NAME, "torchvision", "dali"
DECODER, CACHE, STOCK = "dali, decoder=gpu", "dali, vram cache", "stock DALI"
LOADERS = (PAPER, TORCHVISION, DALI, DECODER, CACHE, STOCK)
EAGER, COMPILED = "step, eager", "step, torch.compile"
GRAPH, OVERHEAD = "step, eager in a CUDA graph", "step, torch.compile reduce-overhead"
PLAN, READ, AUGMENT = "plan", "read files", "augmentation graph"
SYNTHETIC = "synthetic pixels"
_FLOORS = "benchmarks.gpu.floors"
_WHOLE, _WINDOW = "whole", "window"
CPU_WHOLE, CPU_WINDOW = f"decode on the CPU, {_WHOLE}", f"decode on the CPU, {_WINDOW}"
MIX_WHOLE, MIX_WINDOW = f"decode as the product's mix, {_WHOLE}", f"decode as the product's mix, {_WINDOW}"
_NEVER = 2**31 - 1  # pixels: no photo is larger
DECODERS: dict[str, dict[str, Any]] = {
    "on the CPU": {"place": "cpu"},
    "by the hardware decoder": {"place": "gpu", "load": 1.0},
    "by CUDA": {"place": "gpu", "load": 0.0, "huffman_pixels": 1},
    "by CUDA, Huffman on the CPU": {"place": "gpu", "load": 0.0, "huffman_pixels": _NEVER},
    "as the product's mix": {"place": "gpu"},
}
"""Ways to decode, by name."""
KNOBS = ("data.workers", "data.dali_prefetch", "data.hw_decoder_load", "train.batch_size")
"""What --sweep turns."""


@dataclass(frozen=True)
class Job:
    """What is measured with.

    Attributes:
        device: cuda, or cpu for a rehearsal with DALI's CPU operators in the GPU's place.
        batch_size, image_size: of all rows.
        cores: threads and worker processes of each loader.
        model: timm name; weights are random, they do not matter to speed.
        more: further `key=value` settings for all rows of ours.
    """

    device: str
    batch_size: int
    image_size: int
    cores: int
    model: str = "resnet18"
    more: tuple[str, ...] = field(default=())

    @property
    def settings(self) -> list[str]:
        """`key=value` overrides for our rows."""
        sizes = [f"train.batch_size={self.batch_size}", f"data.image_size={self.image_size}"]
        return [*sizes, f"model.name={self.model}", "model.pretrained=false", *self.more]


def step_rows(job: Job) -> list[Variant]:
    """The training step alone, on pixels that lie on the device."""
    common: dict[str, Any] = {"settings": job.settings, "device": job.device}
    compiled = {**common, "settings": [*job.settings, "train.compile=true"]}
    captured = f"{_FLOORS}:captured_steps"
    return [
        Variant(EAGER, STEPS, common),
        Variant(COMPILED, STEPS, compiled),
        Variant(GRAPH, captured, {**common, "how": "graph"}),
        Variant(OVERHEAD, captured, {**common, "how": "reduce-overhead"}),
    ]


def part_rows(job: Job, photos: Path) -> list[Variant]:
    """Each part of a loader alone."""
    common: dict[str, Any] = {"data": str(photos), "settings": job.settings}
    placed = {**common, "device": job.device}
    rows = [
        Variant(PLAN, f"{_FLOORS}:planning", common),
        Variant(READ, f"{_FLOORS}:reading", common),
        Variant(AUGMENT, f"{_FLOORS}:augmenting", placed),
    ]
    for way, options in DECODERS.items():
        for window in (False, True):
            name = f"decode {way}, {_WINDOW if window else _WHOLE}"
            rows.append(Variant(name, f"{_FLOORS}:decoding", {**placed, **options, "window": window}))
    return rows


def loader_rows(job: Job, photos: Path) -> list[Variant]:
    """Loaders side by side."""
    peer = {
        "data": str(photos),
        "image_size": job.image_size,
        "batch_size": job.batch_size,
        "cores": job.cores,
        "device": job.device,
    }
    dali = "data.backend=dali" if job.device == "cuda" else "data.backend=dali-cpu"
    cache = "data.cache=vram" if job.device == "cuda" else "data.cache=ram"
    ours = {
        TORCHVISION: ["data.backend=torchvision"],
        DALI: [dali],
        DECODER: [dali, "data.decoder=gpu"],
        CACHE: [dali, cache],
    }
    rows = [Variant(PAPER, paper.TARGET, peer)]
    rows += [our_loader(job, photos, name, settings) for name, settings in ours.items()]
    return [*rows, Variant(STOCK, dali_cpu.TARGET, peer)]


def our_loader(job: Job, photos: Path, name: str, settings: list[str]) -> Variant:
    """A loader of ours with some settings more."""
    workers = f"data.workers={job.cores}"
    options = {"data": str(photos), "device": job.device, "settings": [*job.settings, workers, *settings]}
    return Variant(name, LOADER, options)


def train_rows(job: Job, photos: Path, classes: int) -> list[Variant]:
    """Training fed by each loader, and beside it on pixels that lie on the device."""
    rows = [Variant(SYNTHETIC, STEPS, {"settings": job.settings, "device": job.device})]
    return rows + [training(job, loader, classes) for loader in loader_rows(job, photos)]


def training(job: Job, loader: Variant, classes: int) -> Variant:
    """Training fed by one loader."""
    source = {"target": loader.target, "options": loader.options}
    options: dict[str, Any] = {"source": source, "settings": job.settings, "device": job.device}
    options |= {"floats": loader.name == PAPER, "classes": classes}
    return Variant(loader.name, TRAINING, options)


def sweep_rows(job: Job, photos: Path) -> dict[str, list[Variant]]:
    """By knob: the loader as it stands, and with the knob turned."""
    dali = "data.backend=dali" if job.device == "cuda" else "data.backend=dali-cpu"
    values: dict[str, list[Any]] = {
        "data.workers": sorted({max(job.cores * k // 4, 1) for k in (1, 2, 4, 8)}),
        "data.dali_prefetch": [1, 2, 3, 4],
        "data.hw_decoder_load": [0.0, 0.25, 0.5, 0.65, 0.8, 1.0],
        "train.batch_size": sorted({max(job.batch_size * k // 4, 1) for k in (1, 2, 4, 8)}),
    }
    found = {}
    for knob in KNOBS:
        # The hardware decoder has a share only where the GPU decodes.
        base = [dali, "data.decoder=gpu"] if knob == "data.hw_decoder_load" else [dali]
        found[knob] = [our_loader(job, photos, f"{knob}={v}", [*base, f"{knob}={v}"]) for v in values[knob]]
    return found


def graph_rows(job: Job, photos: Path) -> list[Variant]:
    """The augmentation graph stopped after one step more each time: the difference is that step.

    Then the whole graph with each of the two ways to jitter, of which the device's own is among the former.
    """
    common: dict[str, Any] = {"data": str(photos), "settings": job.settings, "device": job.device}
    names = {"resize": "crop+resize", "turn": "+ rotate", "jitter": "+ jitter", "all": "+ translate"}
    target = f"{_FLOORS}:augmenting"
    found = [Variant(name, target, {**common, "until": until}) for until, name in names.items()]
    for name, one_pass in (("all, jitter by arithmetic", False), ("all, jitter in one pass", True)):
        found.append(Variant(name, target, {**common, "one_pass": one_pass}))
    return found
