"""The DALI engine beyond what all promise: odd files, refused ones, the end of the process."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.dali.files import FileReader
from flowerfast.loaders.dali.inputs import as_ppm
from flowerfast.loaders.engine import open_engine
from flowerfast.loaders.loader import Loader
from flowerfast.photos import workers
from flowerfast.photos.photos import Photos
from flowerfast.pixels import gpu
from flowerfast.plans.plan import Sampler, make_eval_plan, make_plan

pytest.importorskip("nvidia.dali")

from flowerfast.loaders.dali import engine as module

Open = Callable[..., Loader]
Drawn = Callable[..., dict[int, bytes]]
RANDOM: dict[str, Any] = {"augment": Augment(), "seed": 3}


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder(sizes=[(90, 64), (64, 97), (131, 60)]), max_bad=1)  # 15


@pytest.mark.parametrize("size", [48, 96])
def test_photos_of_all_kinds_agree_with_the_reference(
    zoo: Path, open_loader: Open, dali: dict[str, Any], size: int
) -> None:
    photos = Photos(zoo)
    everyone, sizes = photos.indices, photos.sizes(photos.indices)
    loader = open_loader(photos, **dali, **RANDOM, size=size, batch_size=8)
    expected = open_loader(photos, kernels="torchvision", size=size)
    for plan in (
        make_plan(1, 0, everyone, sizes, Augment(), size),
        make_eval_plan(everyone, sizes, size, 0.875),
    ):
        apart = np.abs(loader.execute(plan).astype(np.int16) - expected.execute(plan))
        for i in everyone.tolist():
            assert apart[i].mean() <= 1, photos.path(i)
        assert apart.mean() <= 0.5
        assert np.percentile(apart, 99) <= 3
    assert not photos.bad


@pytest.mark.usefixtures("quick_kernels")
def test_with_kernels_photos_of_all_kinds_are_exactly_the_references(
    zoo: Path, open_loader: Open, dali: dict[str, Any]
) -> None:
    photos, differ = Photos(zoo), set()
    loader = open_loader(photos, **dali, **RANDOM, size=48, batch_size=8, gpu_kernels="triton")
    expected = open_loader(photos, kernels="torchvision", size=48)
    sizes = photos.sizes(photos.indices)
    for plan in (
        make_plan(1, 0, photos.indices, sizes, Augment(), 48),
        make_eval_plan(photos.indices, sizes, 48, 0.875),
    ):
        found, wanted = loader.execute(plan), expected.execute(plan)
        differ |= {photos.path(row) for row in photos.indices.tolist() if (found[row] != wanted[row]).any()}
    assert not differ


def test_the_kernels_themselves_follow_dalis_decoders(
    photos: Photos, open_loader: Open, dali: dict[str, Any], drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU Triton's interpreter runs them: few photos, and many pixels at a time."""
    if dali["device"] == "cpu":
        monkeypatch.setattr(gpu, "_BLOCK", 4096)
    few = photos.subset([0, 7, 14])
    loader = open_loader(few, **dali, **RANDOM, gpu_kernels="triton", batch_size=2)
    assert drawn(loader.epoch(2)) == drawn(open_loader(few, kernels="torchvision", **RANDOM).epoch(2))


def test_a_file_that_only_dali_refuses_is_decoded_on_the_cpu(
    photos: Photos, open_loader: Open, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for photos that Pillow decodes and DALI does not: refused bytes replace a good file's."""
    loader = open_loader(photos, backend="dali-cpu", **RANDOM)
    expected = drawn(loader.epoch(0))
    victim, checked = 7, FileReader._checked

    def refused(self: FileReader, index: int, *file: Any) -> np.ndarray | str:
        spoilt = index == victim and not self.notes
        return as_ppm(np.zeros((8, 8, 3), np.uint8))[:-50] if spoilt else checked(self, index, *file)

    monkeypatch.setattr(FileReader, "_checked", refused)
    assert drawn(loader.epoch(0)) == expected
    assert not photos.bad
    assert loader.notes == ["photos that DALI refused and the CPU decodes instead: 1"]


def test_a_batch_that_dali_does_not_give_back_is_named(
    photos: Photos,
    open_loader: Open,
    dali: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "TOLD_AFTER", 0.03)
    monkeypatch.setattr(workers, "LOOK", 0.01)
    collect = module.Graph.collect
    monkeypatch.setattr(module.Graph, "collect", lambda self: (time.sleep(0.3), collect(self))[1])
    loader = open_loader(photos, **dali, **RANDOM, size=32, batch_size=5)
    batch = next(iter(loader.epoch(0)))
    assert f"nothing made of one or more of 5 photos, {photos.path(int(batch.indices[0]))} to" in caplog.text
    assert "DALI, or a driver below it, may hang; still waiting" in caplog.text


def test_a_bad_file_that_only_decoding_tells_stops_execute(
    photo_folder: Callable[..., Path], open_loader: Open
) -> None:
    photos = Photos(photo_folder(suffix=".png"), max_bad=1)
    data = (photos.root / photos.path(5)).read_bytes()
    (photos.root / photos.path(5)).write_bytes(data[: len(data) // 2] + data[-12:])
    loader = open_loader(photos, backend="dali-cpu", **RANDOM)
    with pytest.raises(UserError, match=rf"{photos.path(5)}: cannot be decoded; remove or mend it"):
        loader.execute(loader.plan_sampler.plan(0, photos.indices))


def test_batches_of_the_cpu_graph_go_to_the_training_device(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def send(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
        sent.append(device)
        return batches

    monkeypatch.setattr(module, "copy_ahead", send)
    cuda, sampler = torch.device("cuda"), Sampler(photos, 32, 4, augment=Augment())
    engine = open_engine("dali-cpu", sampler, DataConfig(workers=1), cuda, None)
    assert sum(len(batch) for batch in engine.epoch(0)) == 15
    assert sent == [cuda]
    engine.close()


CHILD = """
import sys
from flowerfast.augment import Augment
from flowerfast.loaders.loader import Loader
from flowerfast.photos import workers
from flowerfast.photos.photos import Photos
given = {"size": 48, "batch_size": 4, "augment": Augment(), "device": "cpu", "workers": 2}
loader = Loader(Photos(sys.argv[1]), **given, backend="dali-cpu")
batches = loader.epoch(0)
next(batches)
print("ready", flush=True)
if sys.argv[2] == "raise":
    raise SystemExit(5)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("raise", 5)])
def test_a_process_ends_cleanly_without_close(photos: Photos, how: str, code: int) -> None:
    """Ctrl-C is among tests/gpu."""
    command = [sys.executable, "-c", CHILD, str(photos.root), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "ready\n", "")
