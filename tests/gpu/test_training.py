"""Training on the device: mixed precision, memory format, torch.compile, going on after a Ctrl-C."""

import itertools
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from flowerfast.commands.signals import StopSignals
from flowerfast.config import Config
from flowerfast.errors import Stopped
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.plans.plan import Sampler
from flowerfast.settings import load_config
from flowerfast.training import compiling, fit, run
from flowerfast.training.model import build_network, with_normalisation
from flowerfast.training.progress import Totals
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.split_file import read_split
from flowerfast.training.state import TrainState, place_model
from flowerfast.training.waiting import WaitClock
from tests.gpu.compare import LOSS_APART, fell, losses_apart, spread
from tests.gpu.layouts import Layouts, wrong_kernels
from tests.gpu.place import Kind, Place, open_photos
from tests.training.syncs import Reads

# Warnings are no errors here: torch.compile has some for GPUs alone.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
Opened = Callable[..., Loader]
FolderOf = Callable[[str], Path]
_CYCLE = 8  # batches, over and over: losses surely fall
# With the recipe's own rate the first steps are chaotic: float32's last bits decide where they lead.
_CALM_LR = 0.003
_STEPS, _WARM_UP = 3, 3
_EPOCHS = 2  # of the run that is interrupted


@pytest.fixture(autouse=True)
def quick(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No curves are drawn, and in a rehearsal one thread does it all: two would wait for each other most of
    the time, the model is so small.
    """
    monkeypatch.setattr(run, "draw", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if place.cuda else 1)
    yield
    torch.set_num_threads(threads)


def settings(place: Place, **changes: object) -> dict[str, Any]:
    """The recipe that learns rendered flowers from random weights, on the place's device."""
    fixed = {
        "data.backend": place.backend,
        "data.cache": "none",
        "data.image_size": place.sizes.train_size,
        "model.name": place.sizes.model,
        "model.pretrained": False,
        "train.device": place.device.type,
        "train.epochs": place.sizes.train_epochs,
        **({} if place.cuda else {"train.batch_size": 4}),  # several steps an epoch, of few photos
    }
    return fixed | {key.replace("__", "."): value for key, value in changes.items()}


def start(config: Config, place: Place) -> TrainState:
    """A training from the same weights each time, with a constant learning rate."""
    torch.manual_seed(config.train.seed)
    network = build_network(config.model, "abcde", config.data.image_size, config.eval.crop_pct)
    model = place_model(with_normalisation(network), config.train, place.device)
    return TrainState(model, config.train.model_copy(update={"schedule": "constant"}), place.device, 1)


def batches(loader: Loader, count: int) -> list[Batch]:
    """Training batches, kept on the device."""
    drawn = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
    return list(itertools.islice(drawn, count))


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_follows_float32(
    place: Place, opened: Opened, monkeypatch: pytest.MonkeyPatch, amp: str
):
    """Losses of the first steps, from the same weights on the same batches."""
    # cuDNN would do float32's convolutions in TF32, which is no reference.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    kept, losses = batches(opened("flowers", "cpu"), _CYCLE), {}
    for name in ("off", amp):
        state = start(load_config("demo", (), settings(place, train__amp=name, train__lr=_CALM_LR)), place)
        steps = [fit.train_step(state, kept[step % _CYCLE])[0] for step in range(place.sizes.steps)]
        losses[name] = [loss.item() for loss in steps]
    apart = losses_apart(losses["off"], losses[amp])
    # Of the few steps of a rehearsal one that fp16's scaler leaves out is a large part.
    allowed = LOSS_APART if place.cuda else 3 * LOSS_APART
    assert 0 < apart <= allowed, f"{apart:.4f} of the float32 loss apart: {losses}"
    if place.cuda:  # so few teach nothing either
        assert fell(losses["off"]), losses["off"]
        assert fell(losses[amp]), losses[amp]


@contextmanager
def waiting_forbidden(place: Place) -> Iterator[None]:
    """On a GPU torch raises where it would wait for the device; on a CPU operations are looked at."""
    if not place.cuda:
        with Reads() as seen:
            yield
        assert not seen.found
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("kind", ["cpu", "copied"])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_no_step_waits_for_the_device(place: Place, opened: Opened, kind: Kind, amp: str):
    """Loader, clock, step, schedule and sums of one training step after another."""
    if amp == "fp16" and not place.cuda:
        pytest.skip("the scaler reads on the host unless the optimiser is fused, which it is on CUDA")
    config = load_config("demo", (), settings(place, train__amp=amp))  # its schedule goes by batch
    state = TrainState(start(config, place).model, config.train, place.device, 100)
    totals = Totals(place.device)
    loader = opened("flowers", kind)
    for forbidden in (False, True):  # at first kernels are chosen, and memory is allocated
        with waiting_forbidden(place) if forbidden else nullcontext():
            for batch in WaitClock(place.device).watch(loader.epoch(0)):
                totals.add(*fit.train_step(state, batch), len(batch))
    assert totals.loss() > 0


def test_channels_last_is_never_converted(place: Place, opened: Opened):
    """No operation of a step changes a feature map's layout, and on a GPU no kernel does it inside of one."""
    last = {} if place.cuda else {"train__channels_last": "on"}  # on a CPU the setting's `auto` is off
    state = start(load_config("demo", (), settings(place, **last)), place)
    kept = batches(opened("flowers", "cpu"), _WARM_UP + _STEPS)
    for batch in kept[:_WARM_UP]:
        fit.train_step(state, batch)
    with Layouts() as seen:
        for batch in kept[_WARM_UP:]:
            fit.train_step(state, batch)
    assert not seen.changes, f"in {_STEPS} steps: {seen.changes.most_common(3)}"
    assert seen.maps["last"] > 0, "no feature map was seen at all"
    if place.cuda:
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for batch in kept[_WARM_UP:]:
                fit.train_step(state, batch)
            torch.cuda.synchronize()
        wrong = wrong_kernels(Counter({event.key: event.count for event in profiled.key_averages()}))
        assert not wrong, wrong


def test_a_compiled_run_learns_as_well_as_an_eager_one(
    place: Place, folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same accuracy on the validation photos, within two standard errors of the difference."""
    if not place.cuda:  # the CPU's code is compiled for minutes, and says nothing of Triton's kernels
        monkeypatch.setattr(run, "compile_network", partial(compiling.compile_network, backend="eager"))
    ends, photos = {}, 0
    for mode in compiling.MODES if place.cuda else compiling.MODES[:2]:
        monkeypatch.setattr(compiling, "SMALL_BATCH", 10_000 if mode == "graphs" else 0)
        changes = settings(place, train__compile="off" if mode == "off" else "on")
        result = run.train(folder_of("flowers"), out=tmp_path / mode, config="demo", settings=changes)
        assert result.summary["compile"] == mode, result.summary["notes"]
        ends[mode] = float(result.summary["best_val_acc"])
        photos = result.summary["val_samples"]
    for mode in ends.keys() - {"off"}:
        allowed = spread((ends["off"] + ends[mode]) / 2, photos)
        assert abs(ends["off"] - ends[mode]) <= allowed, f"{ends}; {photos} photos"
    assert min(ends.values()) >= place.sizes.accuracy, f"{ends}"


@pytest.mark.parametrize("backends", [("own", "cpu"), ("cpu", "own")], ids=["to_cpu", "to_dali"])
def test_a_stopped_run_goes_on_with_the_other_backend(
    place: Place,
    folder_of: FolderOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backends: tuple[str, str],
):
    """Every step trains on the samples that were planned, as if nothing had happened."""
    first, second = (place.backend if name == "own" else name for name in backends)
    data, out, step, seen = folder_of("flowers"), tmp_path / "run", fit.train_step, list[list[int]]()
    changes = settings(place, train__epochs=_EPOCHS, train__schedule="step", data__backend=first)
    stop_after = 5 * place.sizes.per_class // (16 if place.cuda else 4) // 3

    def interrupted(state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(batch.indices.tolist())
        if len(seen) == stop_after:
            signal.raise_signal(signal.SIGINT)
        return step(state, batch)

    monkeypatch.setattr(fit, "train_step", interrupted)
    with pytest.raises(Stopped) as stopped:
        run.train(data, out=out, config="demo", settings=changes, stop=StopSignals())
    assert (stopped.value.signum, len(seen)) == (signal.SIGINT, stop_after)
    again = run.train(data, out=out, settings={"data.backend": second}, resume=True)
    c, members = RunFolder(out).open(), read_split(RunFolder(out).split, open_photos(data))[0]
    sampler = Sampler(members, c.data.image_size, c.train.batch_size, c.train.seed, c.augment, shuffle=True)
    assert again.summary["backend"] == second
    assert seen == [plan.indices.tolist() for epoch in range(_EPOCHS) for plan in sampler.plans(epoch)]
