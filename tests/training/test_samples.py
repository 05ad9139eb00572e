"""Pictures for a report: those of the run's own photos and plans, or a line that says why there are none."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flowerfast.config import Config, validate
from flowerfast.loaders import loader as loader_module
from flowerfast.machine import no_bars
from flowerfast.photos.photos import Photos
from flowerfast.ranks.who import Ranks
from flowerfast.training import samples as module
from flowerfast.training.half_loaders import training_loader
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.samples import MISTAKE_SIDE, SAMPLES, run_pictures
from flowerfast.training.seal import Damaged
from flowerfast.training.split_file import write_split


def begun(run: Path, photos: Path, **augment: Any) -> tuple[Config, Photos]:
    """A run folder with settings and split, and the photos that are trained on."""
    data = {"path": str(photos), "image_size": 32, "kernels": "torchvision"}
    tree = {"data": data, "augment": augment, "train": {"batch_size": 16, "seed": 3}}
    config = validate(tree, "test")
    folder = RunFolder(run)
    folder.create(config)
    train, val = Photos(photos).split(0.25, 3)
    write_split(train, val, folder.split)
    return config, train


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))), np.int16)


@pytest.mark.parametrize("augment", [{}, {"mixup": 0.4}])
def test_samples_are_the_first_of_the_first_epoch(photos: Path, tmp_path: Path, augment: Any) -> None:
    config, train = begun(tmp_path / "run", photos, **augment)
    found = run_pictures(tmp_path / "run", {}, None, no_bars)
    assert (found.problems, found.size, found.source) == ([], 32, str(photos))
    with training_loader(config, train, "cpu") as loader:
        batch = next(loader.epoch(0))
    assert len(found.samples) == SAMPLES
    expected = batch.images.permute(0, 2, 3, 1).numpy()
    for row, (uri, label) in enumerate(found.samples):
        assert np.abs(pixels(uri) - expected[row]).mean() < 12  # photos of noise, as JPEG
        assert label.split(" ")[0] == train.classes[int(batch.labels[row])]
    shares = [label for _, label in found.samples if "%" in label]
    assert bool(shares) == bool(augment)
    assert found.samples == run_pictures(tmp_path / "run", {}, train, no_bars).samples  # opened already


def test_a_rank_without_samples_has_no_pictures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, train = begun(tmp_path / "run", photos)
    monkeypatch.setattr(loader_module, "current", lambda: Ranks(0, 16, 0, 16))
    few = train.subset(train.indices[:2])
    found = run_pictures(tmp_path / "run", {}, few, no_bars)
    assert (found.problems, found.samples) == ([], [])


def test_mistakes_are_found_by_their_paths_and_those_that_are_gone_left_out(
    photos: Path, tmp_path: Path
) -> None:
    begun(tmp_path / "run", photos)
    (photos / "red/03.jpg").unlink()
    (photos / "blue/extra.jpg").write_bytes((photos / "blue/00.jpg").read_bytes())
    named = ["red/05.jpg", "red/03.jpg", "blue/02.jpg", "../blue/02.jpg"]
    found = run_pictures(tmp_path / "run", {"mistakes": [{"path": each} for each in named]}, None, no_bars)
    assert [*found.mistakes] == ["blue/02.jpg", "red/05.jpg"]
    assert (
        pixels(found.mistakes["red/05.jpg"])[..., 0].mean()
        > 150
        > 100
        > pixels(found.mistakes["blue/02.jpg"])[..., 0].mean()
    )
    assert max(pixels(found.mistakes["red/05.jpg"]).shape) <= MISTAKE_SIDE
    assert found.samples == []  # other photos than the run's: they would be others
    (problem,) = found.problems
    assert "red/03.jpg: gone since the run began" in problem


def test_a_sample_that_is_damaged_now_is_left_out(photos: Path, tmp_path: Path) -> None:
    config, train = begun(tmp_path / "run", photos)
    with training_loader(config, train, "cpu") as loader:
        first = photos / train.path(int(next(loader.plan_sampler.plans(0)).indices[0]))
    content = first.read_bytes()
    first.write_bytes(content[:600] + bytes(len(content) - 600))
    found = run_pictures(tmp_path / "run", {}, None, no_bars)
    assert (len(found.samples), found.problems) == (SAMPLES - 1, [])


def test_without_the_photos_there_is_one_line(photos: Path, tmp_path: Path) -> None:
    begun(tmp_path / "run", photos)
    photos.rename(tmp_path / "moved")
    found = run_pictures(tmp_path / "run", {"mistakes": [{"path": "red/05.jpg"}]}, None, no_bars)
    assert found.problems == [f"{photos}: the photos of this run are not there any more"]
    assert (found.mistakes, found.samples) == ({}, [])
    photos.mkdir()
    (problem,) = run_pictures(tmp_path / "run", {}, None, no_bars).problems
    assert "it holds no class folders" in problem


def test_a_damaged_split_is_no_reason_to_go_on(photos: Path, tmp_path: Path) -> None:
    begun(tmp_path / "run", photos)
    split = tmp_path / "run/split.json"
    split.write_bytes(split.read_bytes().replace(b"red/05", b"red/06"))
    with pytest.raises(Damaged, match=r"split\.json"):
        run_pictures(tmp_path / "run", {}, None, no_bars)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/x/a.jpg"), "/x/a.jpg: Permission denied"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "not enough memory (CUDA out of memory. Tried)",
        ),
    ],
)
def test_a_report_does_not_fail_for_its_pictures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    _, train = begun(tmp_path / "run", photos)

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "training_loader", fail)
    (problem,) = run_pictures(tmp_path / "run", {}, train, no_bars).problems
    assert problem.startswith(told)
    monkeypatch.setattr(module, "training_loader", Callable)  # a fault of ours is none of the photos
    with pytest.raises(TypeError):
        run_pictures(tmp_path / "run", {}, train, no_bars)
