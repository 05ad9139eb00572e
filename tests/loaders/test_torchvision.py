"""The CPU executor: pixels of the plain torchvision/PIL chain, and the loader's contract."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image, ImageEnhance

from flowerfast.config import AugmentConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.plan import Plan, epoch_order, make_eval_plan, make_plan
from flowerfast.errors import UserError
from flowerfast.loaders import torchvision as executor
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.torchvision import TorchvisionLoader, augment, resize, resize_and_crop

Open = Callable[..., TorchvisionLoader]
# Mean, 99th percentile and largest difference in levels of 255. Measured on the zoo with 32 to 224 px: means
# up to 0.016, 99th percentile 1, largest 3 (a level of the grey mean, through the contrast); resize alone: 1.
MEAN_BOUND, P99_BOUND, MAX_BOUND = 0.1, 1, 4
SAMPLES = 15


@pytest.fixture
def photos(photo_folder) -> Path:
    """Three classes, 15 photos of different sizes."""
    return photo_folder()


# ----------------------------------------------------------------------------------------------- pixels


def reference(image: Image.Image, plan: Plan, row: int) -> np.ndarray:
    """The paper's transforms as torchvision does them on a PIL image, with the parameters of a plan."""
    window = (int(a[row]) for a in (plan.top, plan.left, plan.height, plan.width))
    return after_resize(F.resized_crop(image, *window, [plan.size] * 2, antialias=True), plan, row)


def after_resize(image: Image.Image, plan: Plan, row: int) -> np.ndarray:
    if plan.flip[row]:
        image = F.hflip(image)
    image = F.rotate(image, float(plan.angle[row]))
    brightness, contrast = float(plan.brightness[row]), float(plan.contrast[row])
    if plan.contrast_first[row]:
        image = F.adjust_brightness(F.adjust_contrast(image, contrast), brightness)
    else:
        image = F.adjust_contrast(F.adjust_brightness(image, brightness), contrast)
    shift = [int(plan.shift_x[row]), int(plan.shift_y[row])]
    return np.asarray(F.affine(image, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0]))


def open_photo(manifest: Manifest, index: int) -> Image.Image:
    return Image.open(manifest.root / manifest.path(index)).convert("RGB")


def plan_all(manifest: Manifest, epoch: int, size: int, **settings: object) -> Plan:
    indices = np.arange(len(manifest))
    return make_plan(5, epoch, indices, (manifest.width, manifest.height), AugmentConfig(**settings), size)


def apart(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    assert found.shape == expected.shape
    return np.abs(found.astype(np.int16) - expected)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("kernels", ["numba", "torchvision"])
@pytest.mark.parametrize("size", [32, 64, 96])
def test_random_plans_give_the_reference_pixels(zoo, open_loader: Open, size, kernels):
    loader, manifest = open_loader(zoo, kernels=kernels), load_manifest(zoo)
    differences = []
    for epoch in range(4):
        plan = plan_all(manifest, epoch, size)
        found = loader.execute(plan)
        for row in range(len(manifest)):
            expected = reference(open_photo(manifest, row), plan, row)
            differences.append(apart(found[row], expected))
            assert differences[-1].mean() <= 0.5, manifest.path(row)
    assert np.mean(differences) <= MEAN_BOUND
    assert np.percentile(differences, 99) <= P99_BOUND
    assert np.max(differences) <= MAX_BOUND


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("kernels", ["numba", "torchvision"])
def test_windows_that_need_no_resize_give_exactly_the_reference_pixels(zoo, open_loader: Open, kernels):
    loader, manifest, size = open_loader(zoo, kernels=kernels), load_manifest(zoo), 40
    rng = np.random.default_rng(1)
    big = np.flatnonzero((manifest.width >= size) & (manifest.height >= size))
    assert len(big) > 25
    for epoch in range(4):
        plan = make_plan(
            5, epoch, big, (manifest.width[big], manifest.height[big]), AugmentConfig(rotate=180), size
        )
        full = np.full(len(big), size, np.int32)
        plan = replace(
            plan,
            top=rng.integers(0, manifest.height[big] - size + 1),
            left=rng.integers(0, manifest.width[big] - size + 1),
            height=full,
            width=full,
        )
        found = loader.execute(plan)
        for row, index in enumerate(big.tolist()):
            expected = reference(open_photo(manifest, index), plan, row)
            assert np.array_equal(found[row], expected), manifest.path(index)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_what_differs_is_the_resize_alone(zoo):
    """The reference chain with our resize in place of Pillow's is exact; the resizes differ by one level."""
    manifest, size = load_manifest(zoo), 48
    plan = plan_all(manifest, 0, size)
    for row in range(len(manifest)):
        photo = open_photo(manifest, row)
        top, left = int(plan.top[row]), int(plan.left[row])
        window = photo.crop((left, top, left + int(plan.width[row]), top + int(plan.height[row])))
        resized = resize(np.array(window), size, size)
        assert apart(resized, np.asarray(F.resize(window, [size, size]))).max() <= 1, manifest.path(row)
        found = np.empty((size, size, 3), np.uint8)
        augment(np.array(photo), plan, row, found)
        assert np.array_equal(found, after_resize(Image.fromarray(resized), plan, row)), manifest.path(row)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, -15.0, 15.0])
@pytest.mark.parametrize(("brightness", "contrast"), [(1.0, 1.0), (0.0, 1.3), (2.0, 0.0), (0.8, 1.0)])
@pytest.mark.parametrize("shift", [(0, 0), (3, -4), (-31, 31), (32, 0), (0, -32)])
def test_extreme_parameters_give_the_reference_pixels(angle, brightness, contrast, shift):
    photo = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    photo[8:20, 4:30] = (250, 10, 130)
    for flip, contrast_first in product((False, True), repeat=2):
        numbers = {"angle": angle, "brightness": brightness, "contrast": contrast}
        plan = Plan(
            indices=np.zeros(1, np.int64),
            top=np.zeros(1, np.int32),
            left=np.zeros(1, np.int32),
            height=np.full(1, 32, np.int32),
            width=np.full(1, 32, np.int32),
            flip=np.array([flip]),
            contrast_first=np.array([contrast_first]),
            shift_x=np.array([shift[0]], np.int32),
            shift_y=np.array([shift[1]], np.int32),
            size=32,
            **{name: np.array([value], np.float32) for name, value in numbers.items()},
        )
        found = np.full((32, 32, 3), 99, np.uint8)
        augment(photo, plan, 0, found)
        assert np.array_equal(found, reference(Image.fromarray(photo), plan, 0))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(("size", "crop_pct"), [(32, 0.875), (64, 0.95), (33, 1.0)])
def test_evaluation_plan_gives_the_pixels_of_resize_and_centre_crop(zoo, open_loader: Open, size, crop_pct):
    loader, manifest = open_loader(zoo), load_manifest(zoo)
    plan = make_eval_plan(np.arange(len(manifest)), (manifest.width, manifest.height), size, crop_pct)
    found = loader.execute(plan)
    transform = T.Compose([T.Resize(round(size / crop_pct)), T.CenterCrop(size)])
    differences = [
        apart(found[row], np.asarray(transform(open_photo(manifest, row)))) for row in range(len(manifest))
    ]
    assert np.mean(differences) <= MEAN_BOUND
    assert np.max(differences) <= 1


def test_evaluation_without_resize_is_exact():
    photo = np.random.default_rng(0).integers(0, 256, (64, 81, 3), dtype=np.uint8)
    plan = make_eval_plan(np.zeros(1), (np.array([81]), np.array([64])), 56, 0.875)
    found = np.empty((56, 56, 3), np.uint8)
    resize_and_crop(photo, plan, 0, found)
    assert np.array_equal(found, np.asarray(T.CenterCrop(56)(Image.fromarray(photo))))


def test_blend_table_is_pillows_blend():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    factors = np.concatenate(
        [np.linspace(0, 2, 41), np.random.default_rng(0).uniform(0.7, 1.3, 20), [0.1, 5]]
    )
    for factor in factors.astype(np.float32).tolist():
        darker = ImageEnhance.Brightness(ramp).enhance(factor)
        assert executor._blend_table(factor, 0) == np.asarray(darker)[0].tolist()
        for level in range(0, 256, 5):
            expected = Image.blend(Image.new("L", ramp.size, level), ramp, factor)  # what Contrast does
            assert executor._blend_table(factor, level) == np.asarray(expected)[0].tolist()


def test_grey_mean_and_blend_table_are_pillows_contrast():
    rng = np.random.default_rng(2)
    for _ in range(100):
        low, high = sorted(rng.integers(0, 257, 2).tolist())
        size = rng.integers(1, 20, 2).tolist()
        image = Image.fromarray(rng.integers(low, max(high, low + 1), (*size, 3)).astype(np.uint8))
        factor = float(np.float32(rng.uniform(0, 2)))
        table = executor._blend_table(factor, executor._grey_mean(image))
        expected = ImageEnhance.Contrast(image).enhance(factor)
        assert np.array_equal(np.asarray(image.point(table * 3)), np.asarray(expected))


# --------------------------------------------------------------------------------------------- contract


def digests(batches: Iterator[Batch]) -> list[tuple[list[int], str]]:
    """Indices and a hash of the pixels of each batch."""
    return [(b.indices.tolist(), sha256(b.images.numpy().tobytes()).hexdigest()) for b in batches]


def by_sample(loader: TorchvisionLoader) -> dict[int, bytes]:
    return {
        i: image.numpy().tobytes()
        for batch in loader.epoch(0)
        for i, image in zip(batch.indices.tolist(), batch.images, strict=True)
    }


AUGMENT = {"augment": AugmentConfig(), "shuffle": True}


@pytest.mark.parametrize("kind", [AUGMENT, {}], ids=["augmented", "evaluation"])
def test_batch_contract(photos, open_loader: Open, kind):
    loader, manifest = open_loader(photos, **kind), load_manifest(photos)
    batches = list(loader.epoch(0))
    assert [len(b) for b in batches] == [4, 4, 4, 3]
    assert len(loader) == 4
    for batch in batches:
        assert batch.images.shape == (len(batch), 3, 32, 32)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert {t.device.type for t in (batch.images, batch.labels, batch.indices)} == {"cpu"}
        assert batch.labels.tolist() == manifest.label[batch.indices.numpy()].tolist()
    assert sorted(i for b in batches for i in b.indices.tolist()) == list(range(SAMPLES))


def test_batches_hold_the_planned_pixels_at_their_place(photos, open_loader: Open):
    loader, manifest = open_loader(photos, **AUGMENT, seed=5), load_manifest(photos)
    plan = plan_all(manifest, 2, 32)
    whole = loader.execute(plan)
    for batch in loader.epoch(2):
        assert np.array_equal(batch.images.permute(0, 2, 3, 1).numpy(), whole[batch.indices.numpy()])


def test_loader_of_a_part_yields_that_part(photos, open_loader: Open):
    part = [1, 4, 9, 12, 14]
    loader = open_loader(photos, part, **AUGMENT)
    assert [len(b) for b in loader.epoch(0)] == [4, 1]
    assert sorted(i for b in loader.epoch(0) for i in b.indices.tolist()) == part
    whole = by_sample(open_loader(photos, **AUGMENT))
    assert by_sample(loader) == {i: whole[i] for i in part}


@pytest.mark.parametrize("kind", [AUGMENT, {}], ids=["augmented", "evaluation"])
def test_batches_do_not_depend_on_workers_or_prefetch(photos, open_loader: Open, kind):
    found = [
        digests(open_loader(photos, workers=workers, prefetch=prefetch, **kind).epoch(1))
        for workers, prefetch in ((1, 1), (2, 3), (4, 9), (1, 30))
    ]
    assert all(other == found[0] for other in found[1:])


@pytest.mark.parametrize("start", range(6))
def test_start_batch_gives_the_tail(photos, open_loader: Open, start):
    loader = open_loader(photos, **AUGMENT)
    assert digests(loader.epoch(3, start)) == digests(loader.epoch(3))[start:]


def test_order_is_the_epochs_permutation(photos, open_loader: Open):
    loader = open_loader(photos, **AUGMENT, seed=8)
    orders = [[i for b in loader.epoch(e) for i in b.indices.tolist()] for e in range(3)]
    assert orders == [epoch_order(8, e, SAMPLES)[:].tolist() for e in range(3)]
    assert orders[0] != orders[1]
    assert orders[0] != list(range(SAMPLES))


def test_epochs_and_seeds_differ_and_repeat(photos, open_loader: Open):
    loader = open_loader(photos, **AUGMENT)
    first = digests(loader.epoch(0))
    assert digests(loader.epoch(1)) != first
    assert digests(loader.epoch(0)) == first
    assert digests(open_loader(photos, **AUGMENT).epoch(0)) == first
    assert digests(open_loader(photos, **AUGMENT, seed=1).epoch(0)) != first


def test_evaluation_is_neither_shuffled_nor_random(photos, open_loader: Open):
    loader = open_loader(photos)
    first = digests(loader.epoch(0))
    assert [i for indices, _ in first for i in indices] == list(range(SAMPLES))
    assert digests(loader.epoch(7)) == first


def test_augmented_evaluation_repeats_within_an_epoch_only(photos, open_loader: Open):
    loader = open_loader(photos, augment=AugmentConfig(), shuffle=False)
    first = digests(loader.epoch(0))
    assert [i for indices, _ in first for i in indices] == list(range(SAMPLES))
    assert digests(loader.epoch(0)) == first
    assert [pixels for _, pixels in digests(loader.epoch(1))] != [pixels for _, pixels in first]


def test_pixels_of_a_sample_do_not_depend_on_the_batch_size(photos, open_loader: Open):
    found = [by_sample(open_loader(photos, **AUGMENT, batch_size=n)) for n in (1, 7, SAMPLES + 5)]
    assert found[0] == found[1] == found[2]


@pytest.fixture
def slow_decode(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Decoding takes 20 ms; counts the calls begun and ended."""
    count, lock, decode = {"begun": 0, "ended": 0}, threading.Lock(), executor.decode

    def slow(*args: object) -> np.ndarray:
        with lock:
            count["begun"] += 1
        time.sleep(0.02)
        with lock:
            count["ended"] += 1
        return decode(*args)

    monkeypatch.setattr(executor, "decode", slow)
    return count


@pytest.mark.parametrize("leave", ["close", "drop", "throw"])
def test_abandoned_epoch_leaves_no_work_behind(photos, open_loader: Open, slow_decode, leave):
    loader = open_loader(photos, kernels="torchvision", **AUGMENT, batch_size=1, prefetch=8)
    expected = digests(loader.epoch(1))
    slow_decode.update(begun=0, ended=0)
    batches = loader.epoch(0)
    next(batches)
    if leave == "close":
        batches.close()
    elif leave == "drop":
        del batches
    else:
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert slow_decode["begun"] == slow_decode["ended"] < SAMPLES
    left = slow_decode["begun"]
    time.sleep(0.1)
    assert slow_decode["begun"] == left
    assert digests(loader.epoch(1)) == expected


@pytest.mark.timeout(60)
def test_loader_closed_in_mid_epoch(photos, open_loader: Open, slow_decode):
    loader = open_loader(photos, kernels="torchvision", **AUGMENT, batch_size=1, prefetch=8)
    batches = loader.epoch(0)
    next(batches)
    loader.close()
    loader.close()
    assert slow_decode["begun"] == slow_decode["ended"]
    batches.close()  # its queued tasks were cancelled by the loader: nothing to wait for


def test_prefetch_bounds_the_work_ahead(photos, open_loader: Open, slow_decode):
    loader = open_loader(photos, kernels="torchvision", batch_size=1, prefetch=2)
    batches = loader.epoch(0)
    next(batches)
    time.sleep(0.3)
    assert 1 <= slow_decode["begun"] <= 3
    batches.close()


def test_epochs_that_overlap_do_not_mix(photos, open_loader: Open):
    loader = open_loader(photos, **AUGMENT)
    expected = [digests(loader.epoch(e)) for e in (0, 1)]
    pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    assert [digests(iter(side)) for side in zip(*pairs, strict=True)] == expected


# -------------------------------------------------------------------------------------------- bad files


def damage(root: Path) -> set[str]:
    """Damage four of the photos after the scan; their paths."""
    truncated, garbage = root / "daisy/daisy_001.jpg", root / "daisy/daisy_004.jpg"
    gone, resized = root / "rose/rose_000.jpg", root / "tulip/tulip_003.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-60])
    garbage.write_bytes(garbage.read_bytes()[:4] + np.random.default_rng(0).bytes(900))
    gone.unlink()
    Image.new("RGB", (9, 9)).save(resized)
    return {str(p.relative_to(root)) for p in (truncated, garbage, gone, resized)}


@pytest.mark.parametrize(
    "kind", [AUGMENT, {}, {**AUGMENT, "cache_side": 320}], ids=["random", "eval", "cache"]
)
def test_bad_files_are_left_out_and_named(photos, open_loader: Open, kind):
    loader, manifest = open_loader(photos, **kind), load_manifest(photos)
    good = by_sample(loader)
    ruined = damage(photos)
    if "cache_side" in kind:
        loader = open_loader(manifest, **kind)  # with an empty cache
    for _ in range(2):
        batches = list(loader.epoch(0))
        seen = [i for b in batches for i in b.indices.tolist()]
        assert sorted(seen) == [i for i in range(SAMPLES) if manifest.path(i) not in ruined]
        assert len(batches) == len(loader)
        for batch in batches:
            assert len(batch) == len(batch.images) == len(batch.labels)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert batch.labels.tolist() == manifest.label[batch.indices.numpy()].tolist()
        assert {bad.path for bad in loader.bad.values()} == ruined
        assert all(manifest.path(i) == bad.path and bad.error for i, bad in loader.bad.items())
    assert "9x9 now" in next(b.error for b in loader.bad.values() if "tulip" in b.path)
    found = by_sample(loader)
    assert found == {i: good[i] for i in found}


def test_batch_of_bad_files_only_is_empty(photos, open_loader: Open):
    loader = open_loader(photos, batch_size=3)
    for i in range(3):
        (photos / f"daisy/daisy_{i:03d}.jpg").write_bytes(b"\xff\xd8 no photo")
    first, *others = loader.epoch(0)
    assert len(first) == 0
    assert first.images.shape == (0, 3, 32, 32)
    assert first.labels.shape == (0,)
    assert [len(b) for b in others] == [3] * 4


def test_bad_file_stops_the_run_when_told_to(photos, open_loader: Open):
    loader = open_loader(photos, on_bad="fail")
    (photos / "daisy/daisy_001.jpg").unlink()
    with pytest.raises(UserError, match=r"daisy_001\.jpg.*data\.on_bad=skip"):
        list(loader.epoch(0))


def test_too_many_bad_files_stop_the_run(photos, open_loader: Open):
    loader = open_loader(photos, max_bad=0.2)  # 3 of 15
    for i in range(3):
        (photos / f"daisy/daisy_{i:03d}.jpg").write_bytes(b"")
    assert sum(len(b) for b in loader.epoch(0)) == 12
    assert sum(len(b) for b in loader.epoch(1)) == 12  # the same three are not counted again
    (photos / "rose/rose_000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"4 of 15 files.*data\.max_bad=0\.2.*rose_000\.jpg"):
        list(loader.epoch(2))


def test_files_left_out_at_the_scan_count(photos, open_loader: Open):
    for i in range(3):
        (photos / f"daisy/daisy_{i:03d}.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"daisy_000\.jpg.*data\.on_bad=skip"):
        open_loader(photos, on_bad="fail")
    with pytest.raises(UserError, match=r"3 of 15 files"):
        open_loader(photos, max_bad=0.1)
    loader = open_loader(photos, max_bad=0.2)
    (photos / "rose/rose_000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"4 of 15 files"):
        list(loader.epoch(0))


def test_execute_names_the_bad_file(photos, open_loader: Open):
    loader, manifest = open_loader(photos), load_manifest(photos)
    (photos / "daisy/daisy_001.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"daisy/daisy_001\.jpg: not an image"):
        loader.execute(plan_all(manifest, 0, 32))


@pytest.mark.parametrize(
    ("batch_size", "prefetch", "threads", "samples"),
    [(32, 3, 2, 16), (32, 3, 16, 8), (256, 3, 16, 16), (256, 3, 1, 32), (1, 1, 1, 8)],
)
def test_tasks_are_large_where_there_are_enough_for_all_threads(batch_size, prefetch, threads, samples):
    assert executor.chunk_size(batch_size, prefetch, threads) == samples
