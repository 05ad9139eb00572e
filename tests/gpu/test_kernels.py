"""Our own kernels on the GPU: the reference's pixels to the bit, with DALI before them and from a cache.

Without a GPU the reference stands in for them, and this is a rehearsal of what is around them; their own
arithmetic is tested in tests/pixels/test_gpu.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from flowerfast.commands.differences import BOUNDS, Histogram
from flowerfast.loaders.loader import Loader
from flowerfast.settings import load_config
from flowerfast.training import fit
from flowerfast.training.model import build_network, with_normalisation
from flowerfast.training.state import TrainState, place_model
from tests.gpu.compare import differing, draw
from tests.gpu.place import Kind, Place, open_loader, open_photos
from tests.stand_in import stand_in

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
Opened = Callable[..., Loader]
FolderOf = Callable[[str], Path]
_STEPS = 8
_SHORT = 150  # pixels, of cached photos


@pytest.fixture(autouse=True)
def quick(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU."""
    if not place.cuda:
        stand_in(monkeypatch)


def test_a_gpu_runs_them_unasked(place: Place, opened: Opened):
    """The trial passes: they compile, start, and give the reference's pixels."""
    if not place.cuda:
        pytest.skip("on a CPU they run only when asked for")
    loader = opened("small", "cpu")
    assert (loader.gpu_kernels, loader.notes) == ("triton", [])


@pytest.mark.parametrize("photos", ["small", "camera", "odd"])
def test_pixels_are_exactly_the_references(place: Place, opened: Opened, folder_of: FolderOf, photos: str):
    """0 pictures may differ: libjpeg-turbo decodes as the reference does, and the rest is whole numbers."""
    settings = {**place.settings("cpu", kernels="torchvision"), "device": "cpu", "backend": "cpu"}
    with open_loader(open_photos(folder_of(photos)), settings) as plain:
        expected = draw(plain.epoch(0))
    found = draw(opened(photos, "cpu", gpu_kernels="triton").epoch(0))
    assert differing(found, expected) == 0, f"of {len(expected)} pictures"


@pytest.mark.parametrize("backend", ["own", "cpu"])
def test_a_shrunk_cache_gives_the_pixels_of_the_one_in_memory(
    place: Place, folder_of: FolderOf, backend: str
):
    """0 pictures may differ, while it fills and when it is full; without DALI too."""
    if backend == "cpu" and not place.cuda:
        pytest.skip("on a CPU the cpu backend has no vram cache")
    settings = place.settings("cache", cache_side=_SHORT, gpu_kernels="triton")
    settings["backend"] = place.backend if backend == "own" else "cpu"
    there = {**settings, "backend": "cpu", "cache": "ram", "device": "cpu"}
    photos = open_photos(folder_of("camera"))
    with open_loader(photos, settings) as tested, open_loader(photos, there) as reference:
        for epoch in (0, 1, 0):
            assert differing(draw(tested.epoch(epoch)), draw(reference.epoch(epoch))) == 0


@pytest.mark.parametrize("kind", ["cpu", "cache"])
def test_dalis_own_operators_are_near(opened: Opened, kind: Kind):
    """What stands in where a trial fails is within parity's bounds."""
    apart, ours, own = (
        Histogram(),
        opened("camera", kind, gpu_kernels="triton"),
        opened("camera", kind, gpu_kernels="dali"),
    )
    assert own.gpu_kernels != "triton"
    for found, expected in zip(ours.epoch(1), own.epoch(1), strict=True):
        assert torch.equal(found.indices, expected.indices)
        apart.add(found.images.cpu().numpy(), expected.images.cpu().numpy())
    mean, p99 = apart.mean(), apart.percentile(99)
    assert BOUNDS.hold(mean, p99), f"mean {mean:.3f} (≤ {BOUNDS.mean:g}), p99 {p99:g}"


@contextmanager
def no_sync(place: Place) -> Iterator[None]:
    """The host may not wait for the device, as far as torch knows. Waits for it before and after."""
    if not place.cuda:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()


@pytest.mark.parametrize("kernels", ["triton", "dali"])
@pytest.mark.parametrize("kind", ["cpu", "cache"])
def test_no_step_waits_for_the_device(place: Place, opened: Opened, kind: Kind, kernels: str):
    """Batches are drawn and trained with and nothing on the host waits; the cache is full before."""
    if kernels == "dali" and not place.cuda:
        pytest.skip("on a CPU nothing can wait: one rehearsal is enough")
    loader = opened("small", kind, gpu_kernels=kernels)
    changes = {"data.image_size": place.sizes.image_size, "model.name": place.sizes.model}
    c = load_config("demo", (), changes | {"model.pretrained": False, "train.device": place.device.type})
    network = build_network(c.model, loader.photos.classes, c.data.image_size, c.eval.crop_pct)
    state = TrainState(
        place_model(with_normalisation(network), c.train, place.device), c.train, place.device, 99
    )
    for batch in loader.epoch(0):
        fit.train_step(state, batch)
    steps = 0
    with no_sync(place):
        for epoch in (1, 2):
            for batch in loader.epoch(epoch):
                fit.train_step(state, batch)
                steps += 1
    assert steps == 2 * len(loader) >= _STEPS // 2


def test_a_wait_would_be_seen(place: Place):
    """The mode that the test above relies on."""
    if not place.cuda:
        pytest.skip("torch's mode is of CUDA")
    with pytest.raises(RuntimeError, match="synchroniz"), no_sync(place):
        torch.ones(1, device=place.device).item()
