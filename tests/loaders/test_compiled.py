"""The compiled executor gives the plain executor's pixels, bit by bit, for every file, plan and cache."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.plan import EvalPlan, Plan, make_eval_plan, make_plan
from flowerfast.errors import UserError
from flowerfast.loaders import torchvision
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.compiled import CompiledExecutor
from flowerfast.loaders.shrink import shrink_plan
from flowerfast.loaders.torchvision import Executes, Executor, make_executor

# Also no multiple of the four pixels that are resized at once; smaller than most photos, and larger.
SIDES = (32, 57, 130, 224)


def execute(executor: Executes, plan: Plan | EvalPlan) -> tuple[np.ndarray, dict[int, str]]:
    rows = np.full((len(plan), plan.size, plan.size, 3), 77, np.uint8)
    prepared = executor.prepare(plan)
    half = len(plan) // 2
    failed = executor.fill(prepared, rows, range(half)) | executor.fill(
        prepared, rows, range(half, len(plan))
    )
    return rows, failed


def assert_same(
    manifest: Manifest, plan: Plan | EvalPlan, side: int | None = None, decode_scale: str = "off"
) -> np.ndarray:
    members = np.arange(len(manifest))
    caches = [PhotoCache(manifest, members, side) if side else None for _ in range(2)]
    found, failed = execute(CompiledExecutor(manifest, caches[0], decode_scale), plan)
    expected, expected_failed = execute(Executor(manifest, caches[1], decode_scale), plan)
    assert failed == expected_failed
    differ = np.flatnonzero((found != expected).reshape(len(plan), -1).any(axis=1))
    assert not differ.size, [manifest.path(int(plan.indices[row])) for row in differ]
    return found


def random_plan(manifest: Manifest, side: int, epoch: int = 0, **settings: object) -> Plan:
    sizes = manifest.width, manifest.height
    return make_plan(9, epoch, np.arange(len(manifest)), sizes, AugmentConfig(**settings), side)


def eval_plan(manifest: Manifest, side: int, crop_pct: float) -> EvalPlan:
    return make_eval_plan(np.arange(len(manifest)), (manifest.width, manifest.height), side, crop_pct)


@pytest.mark.parametrize("side", SIDES)
def test_random_plans(zoo, side):
    manifest = load_manifest(zoo)
    for epoch in range(2):
        assert_same(manifest, random_plan(manifest, side, epoch))


@pytest.mark.parametrize(
    "settings",
    [
        {"rotate": 180},
        {"rotate": 0, "flip": 1, "translate": 1},
        {"brightness": 0, "contrast": 0},
        {"brightness": 1, "contrast": 1},
        {"crop_scale": (0.001, 0.01)},
        {"crop_scale": (1, 1), "crop_ratio": (0.01, 100)},
    ],
    ids=str,
)
def test_unusual_distributions(zoo, settings):
    manifest = load_manifest(zoo)
    assert_same(manifest, random_plan(manifest, 64, **settings))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 0.3])
def test_evaluation_plans(zoo, side, crop_pct):
    manifest = load_manifest(zoo)
    assert_same(manifest, eval_plan(manifest, side, crop_pct))


@pytest.mark.parametrize("side", [48, 4000])
def test_with_a_cache(zoo, side):
    manifest = load_manifest(zoo)
    plan = random_plan(manifest, 64)
    cached = assert_same(manifest, plan, side)
    assert np.array_equal(cached, assert_same(manifest, plan)) == (side == 4000)


def test_baseline_jpegs_are_decoded_in_the_loops(zoo, monkeypatch: pytest.MonkeyPatch):
    manifest = load_manifest(zoo)
    asked = []
    real = CompiledExecutor._decode
    monkeypatch.setattr(
        CompiledExecutor,
        "_decode",
        lambda self, i, *more: asked.append(manifest.path(i)) or real(self, i, *more),
    )
    execute(CompiledExecutor(manifest, None), random_plan(manifest, 64))
    assert not [path for path in asked if "chroma" in path or "grey.jpg" in path or "exif" in path]
    assert {"cmyk.jpg", "progressive.jpg", "rgba.png"} <= {Path(path).name for path in asked}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Photos from which a crop of 32 pixels can be made at every scale, of every kind of decoder."""
    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for i, options in enumerate(
        [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"restart_marker_rows": 2}]
    ):
        coarse = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((301 + 40 * i, 415), Image.Resampling.BICUBIC)
        for folder in ("a", "b"):
            (root / folder).mkdir(exist_ok=True)
        photo.save(root / "a" / f"{i}.jpg", quality=92, **options)
        photo.convert("CMYK" if i == 1 else "L").save(root / "b" / f"{i}.jpg", quality=92)
    photo.save(root / "b" / "z.png")
    return load_manifest(root, cache_dir=root / "cache")


def test_shrunk_decoding(large):
    plans = [random_plan(large, 32, epoch) for epoch in range(4)] + [eval_plan(large, 32, 0.875)]
    factors: set[int] = set()
    for plan in plans:
        small = shrink_plan(plan, large, "auto")
        factors |= set(small.shrink.tolist())
        assert small.shrink[-1] == 1, "not a JPEG"
        found, whole = assert_same(large, plan, None, "auto"), assert_same(large, plan)
        rows = small.shrink > 1
        assert np.array_equal(found[~rows], whole[~rows])
        assert not np.array_equal(found, whole)
        assert np.abs(found[rows].astype(int) - whole[rows]).mean() < 6
    assert factors == {1, 2, 4, 8}


@pytest.mark.parametrize("harm", ["cut", "tail", "shrunk", "garbage", "gone", "empty"])
def test_damaged_files_fare_as_with_the_plain_executor(photo_folder, write_photo, harm):
    folder = photo_folder({"a": 3, "b": 3}, sizes=[(90, 70)])
    manifest = load_manifest(folder)
    victim = folder / manifest.path(1)
    data = victim.read_bytes()
    if harm == "shrunk":
        write_photo(victim, (50, 40))
    elif harm == "gone":
        victim.unlink()
    else:
        contents = {
            "cut": data[:-300],
            "tail": data + b"more",
            "garbage": data[:300] + bytes(200),
            "empty": b"",
        }
        victim.write_bytes(contents[harm])
    for plan in (random_plan(manifest, 40), eval_plan(manifest, 40, 0.875)):
        assert_same(manifest, plan)


def test_without_numba_the_plain_executor_runs_and_says_so(photo_folder, monkeypatch: pytest.MonkeyPatch):
    manifest = load_manifest(photo_folder())
    monkeypatch.setattr(torchvision, "find_spec", lambda name: None)
    executor, notes = make_executor(DataConfig(), manifest, None)
    assert isinstance(executor, Executor)
    assert "pip install numba" in notes[0]
    with pytest.raises(UserError, match=r"data\.kernels=numba: numba is not installed"):
        make_executor(DataConfig(kernels="numba"), manifest, None)


@pytest.mark.real_data
def test_real_photos(real_photos):
    manifest = load_manifest(real_photos)
    for epoch in range(2):
        assert_same(manifest, random_plan(manifest, 224, epoch))
    assert_same(manifest, eval_plan(manifest, 224, 0.875))
