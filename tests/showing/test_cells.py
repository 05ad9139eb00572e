"""What a sheet shows is what training's own loader gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.commands.parity import step_plans
from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import COLUMNS, make_plan
from flowerfast.settings import load_config
from flowerfast.showing.cells import REFERENCE, TIMES, show
from flowerfast.training.half_loaders import training_loader


@pytest.fixture
def folder(photo_folder: Callable[..., Path]) -> Path:
    """Fifteen photos of three classes."""
    return photo_folder(sizes=[(80, 60), (60, 80), (70, 70), (150, 50)])


def config(*more: str) -> Config:
    small = {"data.image_size": 32, "data.workers": 1, "train.batch_size": 4, "train.device": "cpu"}
    return load_config(None, more, {**small, "data.backend": "cpu", "train.seed": 5})


def trained_on(settings: Config, folder: Path, epoch: int) -> dict[str, np.ndarray]:
    """What training sees in an epoch: uint8 (S, S, 3) by path."""
    train, _ = Photos.open(folder, settings.data).split(settings.data.val_fraction, settings.train.seed)
    seen = {}
    with training_loader(settings, train, "cpu") as loader:
        for batch in loader.epoch(epoch):
            for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                seen.setdefault(train.path(index), image.permute(1, 2, 0).numpy().copy())
    return seen


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("augment=strong",),
        ("augment.vflip=0.5", "augment.hue=0.3", "augment.erase=1"),
        ("augment.mixup=1", "train.batch_size=5"),
        ("train.sampling=balanced",),
        ("data.cache=ram", "data.cache_side=40"),
        ("data.decode_scale=auto", "augment.crop_scale=[0.9, 1]"),
    ],
)
def test_pixels_are_those_of_the_training_batches(folder: Path, more: tuple[str, ...]) -> None:
    settings = config(*more)
    shown = show(settings, folder, samples=6, epochs=2)
    assert (len(shown.rows), shown.backends) == (6, ("cpu",))
    compared = 0
    for epoch in range(2):
        seen = trained_on(settings, folder, epoch)
        assert [row.path for row in shown.rows] == [*seen][:6] or epoch > 0
        for row in shown.rows:
            for cell in row.cells:
                if cell.epoch == epoch:
                    assert np.array_equal(cell.pixels, seen[row.path])
                    compared += 1
    assert compared == 12 or "train.sampling=balanced" in more


def test_a_cache_on_disk_is_not_written(folder: Path, tmp_path: Path) -> None:
    places = [f"data.cache_dir={tmp_path}/cached", "data.cache_side=40"]
    disk, ram = (show(config(f"data.cache={name}", *places), folder, 2, 1) for name in ("disk", "ram"))
    assert np.array_equal(disk.rows[0].cells[0].pixels, ram.rows[0].cells[0].pixels)
    assert not (tmp_path / "cached").exists()


def test_numbers_and_windows_are_those_of_the_plan(folder: Path) -> None:
    settings = config("augment.rotate=45")
    photos = Photos.open(folder, settings.data)
    by_path = {photos.path(index): index for index in range(len(photos))}
    for row in show(settings, folder, samples=4, epochs=3).rows:
        index = np.array([by_path[row.path]])
        assert [cell.epoch for cell in row.cells] == [0, 1, 2]
        assert np.array_equal(row.photo, photos.decode(int(index[0])))
        assert row.label == row.path.split("/")[0]
        for cell in row.cells:
            plan = make_plan(5, cell.epoch, index, photos.sizes(index), settings.augment, 32)
            assert cell.plan == {name: getattr(plan, name)[0].item() for name in COLUMNS}
            left, top, width, height = row.windows[cell.epoch]
            assert (left, top, width, height) == (plan.left, plan.top, plan.width, plan.height)
            assert cell.lines[0] == f"crop {width}x{height} at {left}, {top}"


def test_steps_are_those_that_parity_compares_and_end_with_what_training_sees(folder: Path) -> None:
    settings = config("augment.erase=1", "augment.mixup=1", "augment.grey=1")
    seen = trained_on(settings, folder, 0)
    shown = show(settings, folder, 3, steps=True, backends=(REFERENCE,))
    assert shown.backends == (REFERENCE,)
    chain = {"crop": "crop+resize", "rotation": "flip+rotate", "jitter": "jitter", "shift": "whole chain"}
    photos = Photos.open(folder, settings.data)
    with training_loader(settings, photos, "cpu") as loader:
        for row in shown.rows:
            cells = {cell.step: cell for cell in row.cells}
            assert [*cells] == ["crop", "flip", "rotation", "jitter", "shift", "grey", "erasing", "mixing"]
            assert np.array_equal(cells["mixing"].pixels, seen[row.path])
            index = next(index for index in range(len(photos)) if photos.path(index) == row.path)
            plans = dict(step_plans(loader.plan_sampler, np.array([index]), 0))
            for step, name in chain.items():
                assert np.array_equal(cells[step].pixels, loader.execute(plans[name])[0]), step
            assert (cells["grey"].pixels[..., :1] == cells["grey"].pixels).all()


def test_backends_stand_side_by_side_with_their_difference(folder: Path) -> None:
    shown = show(config("augment=light"), folder, 2, 1, ("cpu", REFERENCE))
    for row in shown.rows:
        cpu, plain, apart = row.cells
        assert (cpu.backend, plain.backend, apart.backend) == ("cpu", REFERENCE, None)
        assert np.array_equal(cpu.pixels, plain.pixels)  # the compiled loops are exact
        assert apart.pixels.max() == 0
        assert apart.lines[-1] == "mean 0.000, largest 0 of 255"


def test_differences_are_sixteen_times_as_large(folder: Path) -> None:
    pytest.importorskip("nvidia.dali")
    shown = show(config(), folder, 3, 1, ("dali-cpu", REFERENCE))
    for row in shown.rows:
        dali, plain, apart = (cell.pixels.astype(int) for cell in row.cells)
        assert np.array_equal(apart, np.minimum(abs(dali - plain) * TIMES, 255))
    assert any(row.cells[2].pixels.any() for row in shown.rows)


def test_photos_that_cannot_be_decoded_are_passed_over(folder: Path) -> None:
    settings = config("data.max_bad=0.5")
    first, second = (row.path for row in show(settings, folder, 2, 1).rows)
    content = (folder / first).read_bytes()
    (folder / first).write_bytes(content[: len(content) // 2])
    assert show(settings, folder, 1, 1).rows[0].path == second
    for file in folder.rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:-150])
    with pytest.raises(UserError, match="files cannot be read"):
        show(settings, folder)


def test_who_has_lost_a_partner_is_drawn_unmixed_as_it_is_trained_on(folder: Path) -> None:
    settings = config("augment.mixup=1", "data.max_bad=0.5")
    (row,) = show(settings, folder, 1, 1).rows
    partner = row.cells[0].lines[-1]
    (folder / partner).write_bytes((folder / partner).read_bytes()[:-150])
    (after,) = show(settings, folder, 1, 1).rows
    assert after.path == row.path
    assert len(after.cells[0].lines) == len(row.cells[0].lines) - 2
    assert np.array_equal(after.cells[0].pixels, trained_on(settings, folder, 0)[row.path])


def test_auto_beside_what_it_stands_for_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--backend auto,cpu: auto is cpu here"):
        show(config(), folder, 1, 1, ("auto", "cpu"))
