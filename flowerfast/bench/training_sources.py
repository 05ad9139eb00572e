"""What can be measured of flowerfast itself: the training step, alone and fed by a loader.

`steps` and `training` are targets of a `Variant`, see `sources`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from flowerfast.bench.rounds import Drawn, Source
from flowerfast.bench.worker import open_source
from flowerfast.config import Config
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.device import pick_device
from flowerfast.settings import load_config
from flowerfast.training.architecture import configured
from flowerfast.training.compiling import choose_compile, compile_network
from flowerfast.training.fit import train_step
from flowerfast.training.image_size import least_batch
from flowerfast.training.model import build_network, with_normalisation
from flowerfast.training.state import TrainState, place_model
from flowerfast.training.waiting import WaitClock

CLASSES = 5
"""Classes of a model that is measured without labels of its own; the head's size does not matter to speed."""
_STEPS = 10  # synthetic batches that count as an epoch


def steps(
    settings: Sequence[str], device: str = "cpu", forward: bool = False, compiler: str = "inductor"
) -> Source:
    """Training steps on random uint8 pixels that lie on the device: the most that a loader could feed.

    With `forward` the network's answers alone, without gradients. With `train.compile=on` the warm-up epoch
    compiles, by that backend of torch.compile's. The head's size does not matter to speed.
    """
    config, where = load_config(None, settings), pick_device(device)
    batch, state = synthetic(config, where), make_state(config, where)

    @torch.inference_mode()
    def answer() -> None:
        with state.precision.autocast(where):
            state.forward(batch.images)

    def epoch() -> Iterator[Drawn]:
        for _ in range(_STEPS if where.type == "cuda" else 1):
            if forward:
                answer()
            else:
                train_step(state, batch)
            yield batch

    def epochs() -> Iterator[Iterator[Drawn]]:
        compile_if_on(config, state, compiler)
        while True:
            yield epoch()

    return Source(epochs(), lead=1)  # there is no queue to empty


def synthetic(config: Config, device: torch.device) -> Batch:
    """Random uint8 pixels and labels on the device, of the configuration's sizes."""
    n, side = config.train.batch_size, config.data.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(0, CLASSES, (n,), generator=generator).to(device)
    return Batch(pixels.permute(0, 3, 1, 2), labels, torch.arange(n))


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
    config = load_config(None, settings)
    state = make_state(config, where, classes)
    if floats:
        state.forward = state.model.network
    else:
        compile_if_on(config, state)
    clock = WaitClock(where)

    def trained(drawn: Iterable[Drawn]) -> Iterator[Drawn]:
        for batch in clock.watch(map(_as_batch, drawn)):
            if len(batch) >= state.least_batch:
                train_step(state, batch)
            yield batch

    return Source(map(trained, inner.epochs), lambda: {"waited": clock.waited()}, close=inner.close)


def _as_batch(drawn: Drawn) -> Batch:
    """A loader's own batch; of others' loaders, which do not say which samples they drew, one by position."""
    if isinstance(drawn, Batch):
        return drawn
    images, labels = drawn
    return Batch(images, labels, torch.arange(len(labels)))


def make_state(config: Config, device: torch.device, classes: int = CLASSES) -> TrainState:
    """The training of a configuration, from random weights: they do not matter to speed."""
    torch.manual_seed(0)
    names = [str(i) for i in range(classes)]
    start = config.model.model_copy(update={"pretrained": False, "weights": None})
    network = build_network(start, names, config.data.image_size, config.eval.crop_pct)
    model = place_model(with_normalisation(network), config.train, device)
    train = config.train.model_copy(update={"schedule": "constant", "lr": 1e-4})
    size = config.data.image_size
    least = least_batch(configured(config.model, size), size)
    return TrainState(model, train, device, 1, least)


def compile_if_on(config: Config, state: TrainState, backend: str = "inductor") -> None:
    """Compile a state's network with `train.compile=on`; what `auto` chooses depends on a run's length.

    Raises UserError where it cannot be compiled.
    """
    if config.train.compile == "on":
        mode, _ = choose_compile(config, state.device, config.train.batch_size)
        compile_network(state, config.data.image_size, mode, backend)
