"""Parity: backends agree on flowers, odd files and real photos, and a backend that is wrong is found out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from flowerfast.augment import Augment
from flowerfast.commands.differences import BOUNDS
from flowerfast.commands.parity import MORE, STEPS, compare_backends, step_plans
from flowerfast.config import Config, DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import COLUMNS, Sampler, make_plan
from flowerfast.settings import load_config

CPU = torch.device("cpu")
Arrange = Callable[[str], None]
pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")


@pytest.fixture(params=["dali-cpu", pytest.param("dali", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> str:
    """DALI on the CPU, and on a GPU where there is one."""
    pytest.importorskip("nvidia.dali")
    if request.param == "dali" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return str(request.param)


@pytest.fixture(scope="module")
def odd(zoo: Path) -> Path:
    """Files of every kind that a folder may hold."""
    return zoo


def config(data: Path, backend: str = "cpu", size: int = 64, *more: str) -> Config:
    # What nvJPEG decodes is further from the reference; the bounds are for the same pixels at the start.
    fixed = {"data.workers": 2, "data.decoder": "cpu", "train.batch_size": 8}
    changing = {"data.path": str(data), "data.backend": backend, "data.image_size": size}
    return load_config(None, more, fixed | changing)


# ------------------------------------------------------------------------------------------------ agreement


def test_backends_agree_on_rendered_flowers(backend, flowers):
    result = compare_backends(config(flowers, backend, 96), epochs=2)
    assert result.ok
    assert [step.step for step in result.steps] == list(STEPS)
    assert [step.samples for step in result.steps] == [20, 40, 40, 40, 40, 20]
    for step in result.steps:
        assert BOUNDS.hold(step.mean, step.p99), step
    assert result.steps[0].max == 0


@pytest.mark.parametrize("size", [32, 96])
def test_backends_agree_on_odd_files(backend, odd, size):
    result = compare_backends(config(odd, backend, size), epochs=3)
    photos = Photos(odd)
    assert result.photos == len(photos) > 40
    assert not result.bad
    assert result.ok
    for step in result.steps:
        assert BOUNDS.hold(step.mean, step.p99), step
        assert step.worst_mean <= 1, step
    large = np.minimum(*photos.sizes(photos.indices)) >= size
    assert result.steps[0].samples == large.sum()
    assert not large.all()


def test_compiled_loops_are_exact_and_scaled_decoding_is_not(flowers, odd):
    for photos, more in ((flowers, ()), (odd, ()), (flowers, ("data.decode_scale=auto",))):
        result = compare_backends(config(photos, "cpu", 32, *more))
        assert [step.max > 0 for step in result.steps if step.step in BOUNDS.steps] == [bool(more)] * 2


@pytest.mark.parametrize(("name", "preset"), [("cpu", "light"), ("cpu", "strong"), ("dali-cpu", "strong")])
def test_more_operations_have_a_line_where_they_are_on(name, preset, flowers):
    """On DALI's pixels, which are a level off here and there, an operation may stand on the edge of one."""
    if name == "dali-cpu":
        pytest.importorskip("nvidia.dali")
    result = compare_backends(config(flowers, name, 64, f"augment={preset}", "augment.blur=0.5"), epochs=2)
    assert [step.step for step in result.steps] == [*STEPS, MORE]
    assert result.ok
    (more,) = [step for step in result.steps if step.step == MORE]
    assert more.samples == 40
    assert (more.max == 0) == (name == "cpu")


def test_more_operations_that_are_wrong_are_found_out(flowers, monkeypatch):
    monkeypatch.setattr("flowerfast.pixels.reference.finish_square", lambda *_: None)
    result = compare_backends(config(flowers, "cpu", 64, "augment=strong"))
    assert not result.ok
    assert [step.step for step in result.steps if not BOUNDS.hold(step.mean, step.p99)] == [MORE]


def assert_decodes_as_pillow(backend: str, root: Path) -> None:
    photos = Photos(root, on_bad="fail")
    plan = dict(step_plans(Sampler(photos, 32, 8, augment=Augment()), photos.indices, 0))["decode"]
    device, options = "cuda" if backend == "dali" else "cpu", DataConfig(workers=2, decoder="cpu")
    with Loader(
        photos, size=32, augment=Augment(), device=device, backend=backend, options=options
    ) as loader:
        found = loader.execute(plan)
    assert len(plan) > 35
    for row, index in enumerate(plan.indices.tolist()):
        with Image.open(root / photos.path(index)) as image:
            photo = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        top, left = (photo.shape[0] - 32) // 2, (photo.shape[1] - 32) // 2
        assert np.array_equal(found[row], photo[top : top + 32, left : left + 32]), photos.path(index)


def test_dali_decodes_odd_files_as_pillow_does(backend, odd):
    assert_decodes_as_pillow(backend, odd)


def test_the_cpu_backend_decodes_odd_files_as_pillow_does(odd):
    assert_decodes_as_pillow("cpu", odd)


@pytest.mark.real_data
def test_backends_agree_on_real_photos(backend, real_photos):
    result = compare_backends(config(real_photos, backend, 224), samples=160)
    assert result.photos > 100
    assert result.ok
    for step in result.steps:
        assert BOUNDS.hold(step.mean, step.p99), step


# ---------------------------------------------------------------------------------------------------- parts


def test_step_plans_leave_out_what_follows_the_step(odd):
    photos = Photos(odd)
    sampler = Sampler(photos, 64, 8, seed=4, augment=Augment())
    plans = dict(step_plans(sampler, photos.indices, 2))
    assert list(plans) == ["crop+resize", "flip+rotate", "jitter", "whole chain"]
    whole = make_plan(4, 2, photos.indices, photos.sizes(photos.indices), Augment(), 64)
    neutral = {"flip": 0, "angle": 0, "brightness": 1, "contrast": 1, "shift_x": 0, "shift_y": 0}
    kept = {"crop+resize": 0, "flip+rotate": 2, "jitter": 4, "whole chain": 6}
    for step, plan in plans.items():
        assert (plan.size, plan.augmented) == (64, True)
        left_out = list(neutral)[kept[step] :]
        for name in COLUMNS:
            expected = np.full(len(plan), neutral[name]) if name in left_out else getattr(whole, name)
            assert np.array_equal(getattr(plan, name), expected), (step, name)
    assert {"decode", "evaluation"} < set(dict(step_plans(sampler, photos.indices, 0)))


def test_samples_are_drawn_by_the_seed(flowers):
    drawn = [
        compare_backends(config(flowers, "cpu", 32, f"train.seed={seed}"), samples)
        for seed, samples in ((0, 6), (0, 6), (1, 6), (0, 100))
    ]
    assert [result.photos for result in drawn] == [6, 6, 6, 20]
    assert drawn[0].steps == drawn[1].steps


def test_files_that_cannot_be_decoded_are_left_out_and_named(photo_folder):
    root = photo_folder({"a": 12, "b": 12}, sizes=[(80, 70)])
    for name in ("a/a_003.jpg", "b/b_000.jpg"):
        (root / name).write_bytes((root / name).read_bytes()[:-150])
    (root / "a/a_005.jpg").write_bytes(b"no photo")
    result = compare_backends(config(root, "cpu", 32, "data.max_bad=0.2"))
    assert sorted(bad.path for bad in result.bad) == ["a/a_003.jpg", "a/a_005.jpg", "b/b_000.jpg"]
    assert result.photos == 21
    assert result.steps[0].samples == 21
    with pytest.raises(UserError, match=r"2 of 24 files cannot be read"):
        compare_backends(config(root))
    with pytest.raises(UserError, match=r"a_005\.jpg: .*data\.on_bad=skip"):
        compare_backends(config(root, "cpu", 32, "data.on_bad=fail"))


def test_nothing_to_compare_is_an_error(photo_folder):
    root = photo_folder({"a": 1, "b": 1}, sizes=[(80, 70)])
    for file in root.rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:-150])
    with pytest.raises(UserError, match=r"none of the 2 photos drawn can be decoded"):
        compare_backends(config(root, "cpu", 32, "data.max_bad=1"))


def test_photos_smaller_than_the_output_are_not_compared_at_decode(photo_folder):
    result = compare_backends(config(photo_folder(), "cpu", 64))
    assert [step.step for step in result.steps] == list(STEPS[1:])
    assert result.notes == ("decode: not compared, no photo drawn has 64x64 pixels or more",)


def test_progress_is_told(flowers):
    calls: list[tuple[int, int]] = []
    settings = config(flowers, "cpu", 32)
    compare_backends(settings, epochs=2, bar=lambda done, total: calls.append((done, total)))
    assert calls[-6:] == [(n, 6) for n in range(1, 7)]


# ------------------------------------------------------------------------------------------------- sabotage


@pytest.mark.parametrize(
    ("mistake", "first"),
    [("brighter", 0), ("rotation", 2), ("jitter", 3), ("translate", 4), ("evaluation", 5)],
)
def test_a_wrong_executor_is_found_out_at_its_step(sabotage: Arrange, flowers, mistake, first):
    right = compare_backends(config(flowers))
    assert right.ok
    assert {step.max for step in right.steps} == {0}
    sabotage(mistake)
    result = compare_backends(config(flowers))
    assert not result.ok
    assert not result.to_json()["ok"]
    beyond = [not BOUNDS.hold(step.mean, step.p99) for step in result.steps]
    assert beyond.index(True) == first
    assert all(step.max == 0 for step in result.steps[:first])
    worst = max(result.steps, key=lambda step: step.mean)
    assert worst.worst_mean >= worst.mean
    assert (flowers / worst.worst_photo).is_file()
