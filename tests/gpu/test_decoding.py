"""Does it run at all, and are the pixels right: whoever decodes, however often, from whatever file."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.commands.differences import BOUNDS, Histogram
from flowerfast.commands.parity import compare_backends
from flowerfast.config import Config
from flowerfast.loaders.dali.probe import dali_problem
from flowerfast.loaders.loader import Loader
from tests.gpu.compare import differing, draw
from tests.gpu.place import Place, open_loader, open_photos
from tests.gpu.processes import run_to_end

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
Opened = Callable[..., Loader]
FolderOf = Callable[[str], Path]
_ODD_EPOCHS = 8  # random plans per odd file, of which there are few
_SAMPLES = 512  # photos that are compared with the reference at most
USE_BOTH = """
import sys
import {modules}
from nvidia.dali import Pipeline, fn
import numpy as np
device = None if sys.argv[1] == "cpu" else 0
pipe = Pipeline(batch_size=1, num_threads=1, device_id=device)
with pipe:
    made = fn.external_source(lambda: [np.full((8, 8, 3), 5, np.uint8)])
    pipe.set_outputs(fn.resize(made if device is None else made.gpu(), size=[4, 4]))
pipe.build()
(out,) = pipe.run()
place = torch.device(sys.argv[1])
ours = torch.nn.Conv2d(3, 4, 3).to(place)(torch.ones(1, 3, 8, 8, device=place))
theirs = torch.from_dlpack(out.as_tensor())
assert theirs.device.type == place.type and int(theirs.float().mean()) == 5 and ours.isfinite().all()
"""
"""Both libraries at work in one process: a DALI graph, a convolution (cuDNN), one's tensor in the other."""


@pytest.mark.parametrize(
    "modules", ["torch, nvidia.dali", "nvidia.dali, torch"], ids=["torch_first", "dali_first"]
)
def test_torch_and_dali_work_in_one_process(place: Place, modules: str):
    """Both bring CUDA libraries of their own, and whoever comes first decides whose are loaded."""
    if modules.startswith("torch") and not place.cuda:
        pytest.skip("all of these tests import torch first")
    assert dali_problem(place.device) is None
    end = run_to_end([sys.executable, "-c", USE_BOTH.format(modules=modules), place.device.type], limit=100)
    assert end.code == 0, end.errors


def test_photos_of_many_sizes_are_decoded(place: Place, opened: Opened, capfd: pytest.CaptureFixture[str]):
    """Each comes once, none bad, none black."""
    loader = opened("many", "gpu")
    came, black = np.zeros(len(loader.photos), np.int64), 0
    for batch in loader.epoch(0):
        np.add.at(came, batch.indices.numpy(), 1)
        black += int((batch.images.amax((1, 2, 3)) == 0).sum())
    wrong = [loader.photos.path(index) for index in np.flatnonzero(came != 1).tolist()]
    assert not wrong, f"{len(wrong)} photos did not come once, first {wrong[0]}; notes: {loader.notes}"
    assert (black, loader.photos.bad) == (0, ()), f"notes: {loader.notes}"
    assert "nvImageCodec" not in capfd.readouterr().err, "the decoder complains to the user"


@pytest.mark.parametrize("decoder", ["gpu", "cpu"])
@pytest.mark.parametrize(
    "photos", ["small", "camera", "odd", pytest.param("real", marks=pytest.mark.real_data)]
)
def test_pixels_are_those_of_the_reference(
    place: Place, folder_of: FolderOf, request: pytest.FixtureRequest, photos: str, decoder: str
):
    """Within parity's published bounds, of the whole chain and of evaluation."""
    if decoder == "gpu" and not place.cuda:
        pytest.skip("without a GPU decoder=gpu is the same as decoder=cpu")
    if photos == "real" and not place.cuda:
        pytest.skip("tests/commands/test_parity.py compares real photos on the CPU")
    folder = request.getfixturevalue("real_photos") if photos == "real" else folder_of(photos)
    data = {"path": str(folder), "backend": place.backend, "decoder": decoder}
    train = {"device": place.device.type, "batch_size": place.sizes.batch_size}
    config = Config.model_validate({"data": {**data, "image_size": place.sizes.image_size}, "train": train})
    epochs = 1 if photos != "odd" else _ODD_EPOCHS if place.cuda else 2
    found = compare_backends(config, _SAMPLES, epochs)
    apart = "; ".join(f"{step.step} {step.mean:.3f}/{step.p99:g}" for step in found.steps)
    assert found.ok, f"mean ≤ {BOUNDS.mean:g} and p99 ≤ {BOUNDS.p99:g} of {BOUNDS.steps}; found {apart}"
    assert photos == "real" or not found.bad


@pytest.mark.parametrize("load", [0.0, 0.65, 1.0])
def test_no_share_of_the_hardware_decoder_changes_pixels(opened: Opened, load: float):
    """Which engine decodes a photo must not be left to chance: the same pixels in every run, to the bit.

    Beside decoder=cpu the bounds are parity's.
    """
    runs = []
    for _ in range(2):
        loader = opened("camera", "gpu", hw_decoder_load=load)
        runs += [draw(loader.epoch(0)), draw(loader.epoch(0))]
        loader.close()
    wrong = [differing(each, runs[0]) for each in runs[1:]]
    assert not any(wrong), f"{wrong} of {len(runs[0])} photos differ from the first run"
    apart, tested, plain = Histogram(), opened("camera", "gpu", hw_decoder_load=load), opened("camera", "cpu")
    for found, expected in zip(tested.epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(found.indices, expected.indices)
        apart.add(found.images.cpu().numpy(), expected.images.cpu().numpy())
    mean, p99 = apart.mean(), apart.percentile(99)
    assert BOUNDS.hold(mean, p99), f"from decoder=cpu: mean {mean:.3f} (≤ {BOUNDS.mean:g}), p99 {p99:g}"


def test_the_cache_gives_the_pixels_of_the_files(opened: Opened, folder_of: FolderOf, tmp_path: Path):
    """Epochs with the files deleted are to the bit those that were decoded."""
    shutil.copytree(folder_of("small"), tmp_path / "photos")
    photos = open_photos(tmp_path / "photos")
    plain, kept = opened(photos, "cpu"), opened(photos, "cache")
    expected = [draw(plain.epoch(epoch)) for epoch in range(3)]
    assert len({sum(sums.values()) for sums in expected}) == 3, "epochs are all alike and prove nothing"
    assert differing(draw(kept.epoch(0)), expected[0]) == 0
    shutil.rmtree(tmp_path / "photos")  # from here on all must come from the cache
    for epoch in (1, 2, 1, 0):
        wrong = differing(draw(kept.epoch(epoch)), expected[epoch])
        assert wrong == 0, f"epoch {epoch}: {wrong} of {len(photos)} pictures; notes: {kept.notes}"


@pytest.mark.parametrize("backend", ["cpu", "dali-cpu"])
def test_batches_made_on_the_cpu_arrive_on_the_gpu(place: Place, folder_of: FolderOf, backend: str):
    """With a model on the GPU the batches are those that stay on the host."""
    photos, settings = open_photos(folder_of("small")), {**place.settings("cpu"), "backend": backend}
    with open_loader(photos, settings) as there, open_loader(photos, {**settings, "device": "cpu"}) as here:
        for found, expected in zip(there.epoch(0), here.epoch(0), strict=True):
            assert found.images.is_cuda == found.labels.is_cuda == place.cuda
            assert torch.equal(found.images.cpu(), expected.images)
            assert torch.equal(found.labels.cpu(), expected.labels)
