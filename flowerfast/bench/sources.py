"""What can be measured of flowerfast itself: loaders, the training step, both together.

Each function is the target of a `Variant`: it runs in the child and returns a `Source`. Arguments are JSON;
`settings` are `key=value` overrides as for `--set`, so that a setting this version lacks is a UserError and
the variant is skipped with that reason.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowerfast.bench.rounds import Batch as Drawn
from flowerfast.bench.rounds import Source
from flowerfast.bench.stages import recipe_of
from flowerfast.bench.worker import open_source
from flowerfast.config import Config, load_config
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders import BadFiles, Batch, Choice, choose_backend, choose_cache, make_loader
from flowerfast.model import build_network, with_normalisation
from flowerfast.runs import pick_device
from flowerfast.train import train_step
from flowerfast.trainer import Trainer, to_device
from flowerfast.waiting import WaitClock

CLASSES = 5
"""Classes of a model that is measured without labels of its own; the head's size does not matter to speed."""
_STEPS = 10  # synthetic batches that count as an epoch


def loader(data: str, settings: Sequence[str], device: str = "cpu", photos: int | None = None) -> Source:
    """Photos of `data` as augmented training batches: uint8 (n, 3, S, S) on the device, shuffled.

    All of them, or so many spread over the folder.

    Raises UserError when the backend asked for cannot run here.
    """
    config = load_config(None, settings, {"data.path": data})
    where = pick_device(device)
    choice = choose_backend(config.data, where)
    manifest = load_manifest(Path(data), config.data.max_pixels)
    indices = sample(len(manifest), photos)
    cache, why = choose_cache(config.data, choice.backend, where, manifest, indices)
    made = make_loader(
        Choice(choice.backend, choice.reason, cache, why),
        manifest,
        indices,
        recipe_of(config),
        config.data,
        where,
        BadFiles(manifest, "skip", 1.0),
    )

    def epoch(number: int) -> Iterator[Drawn]:
        return ((batch.images, batch.labels) for batch in made.epoch(number))

    return Source((epoch(number) for number in count()), close=made.close)


def sample(count: int, wanted: int | None) -> np.ndarray:
    """int64 (n,): all of `count` indices, or `wanted` of them evenly spread from the first to the last."""
    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def steps(settings: Sequence[str], device: str = "cpu", forward: bool = False) -> Source:
    """Training steps on random uint8 pixels that lie on the device: the most that a loader could feed.

    With `forward` the network's answers alone, without gradients. The head's size does not matter to speed.
    """
    config, where = load_config(None, settings), pick_device(device)
    batch = synthetic(config, where)
    trainer = make_trainer(config, where)

    @torch.inference_mode()
    def answer() -> None:
        with trainer.precision.autocast(where):
            trainer.forward(batch.images)

    def epoch() -> Iterator[Drawn]:
        for _ in range(_STEPS if where.type == "cuda" else 1):
            if forward:
                answer()
            else:
                train_step(trainer, batch)
            yield batch.images, batch.labels

    return Source((epoch() for _ in count()), lead=1)  # there is no queue to empty


def synthetic(config: Config, device: torch.device) -> Batch:
    """Random uint8 pixels and labels on the device, of the configuration's sizes."""
    batch_size, image_size = config.train.batch_size, config.data.image_size
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, image_size, image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(0, CLASSES, (batch_size,), generator=generator).to(device)
    return Batch(pixels.permute(0, 3, 1, 2), labels, labels)


def training(
    source: dict[str, Any],
    settings: Sequence[str],
    device: str = "cpu",
    floats: bool = False,
    classes: int = CLASSES,
) -> Source:
    """Training steps on the batches of another source, which is {"target", "options"}.

    Args:
        source: makes the batches.
        settings: of the model and the training step, and data.image_size.
        device: where the model is.
        floats: the batches are normalised already, so the model's own normalisation is left out.
        classes: at least as many as the labels need.

    The counter `waited` is the seconds in which no batch was there.
    """
    where = pick_device(device)
    inner = open_source(source["target"], source["options"])
    trainer = make_trainer(load_config(None, settings), where, classes)
    if floats:
        trainer.forward = trainer.model.network
    clock = WaitClock(where)

    def epochs() -> Iterator[Iterator[Drawn]]:
        for batches in inner.epochs:
            yield trained(iter(batches))

    def trained(batches: Iterator[Drawn]) -> Iterator[Drawn]:
        whole = (Batch(images, labels, labels) for images, labels in batches)
        for batch in clock.watch(whole):
            if len(batch):
                train_step(trainer, batch)
            yield batch.images, batch.labels

    def waited() -> dict[str, float]:
        return {"waited": clock.waited()}

    return Source(epochs(), waited, close=inner.close)


def make_trainer(config: Config, device: torch.device, classes: int = CLASSES) -> Trainer:
    """The training of a configuration, from random weights: they do not matter to speed."""
    torch.manual_seed(0)
    names = [str(i) for i in range(classes)]
    start = config.model.model_copy(update={"pretrained": False, "weights": None})
    network = build_network(start, names, config.data.image_size, config.eval.crop_pct)
    model = to_device(with_normalisation(network), config.train, device)
    train = config.train.model_copy(update={"schedule": "constant", "lr": 1e-4})
    return Trainer(model, train, device, 1)
