"""The compiled executor gives the plain executor's pixels, bit by bit, for every file, plan and source."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowerfast.augment import Augment
from flowerfast.kernels.chain import Steps, make_scratch, need_of
from flowerfast.kernels.resize import make_taps
from flowerfast.loaders.cache.store import Cached, PhotoCache
from flowerfast.photos.photos import Photos
from flowerfast.pixels.compiled import CompiledExecutor
from flowerfast.pixels.reference import PlainExecutor
from flowerfast.pixels.source import Files
from flowerfast.plans.plan import Plan, make_eval_plan, make_plan, still_plan

Same = Callable[..., np.ndarray]
# Also no multiple of the eight pixels that are resized at once; smaller than most photos, and larger.
SIDES = (32, 57, 132, 224)


@pytest.fixture
def assert_same(execute: Callable[..., tuple[np.ndarray, dict[int, str]]]) -> Same:
    """Function (photos, plan, cache_side=None, decode_scale="off") → pixels, the same of both executors."""

    def check(
        photos: Photos, plan: Plan, cache_side: int | None = None, decode_scale: str = "off"
    ) -> np.ndarray:
        results = []
        for kind, compiled in ((CompiledExecutor, True), (PlainExecutor, False)):
            cache = PhotoCache(photos, cache_side) if cache_side else None
            source = Cached(cache) if cache is not None else Files(photos, compiled, decode_scale)
            results.append(execute(kind(photos, source), plan))
        (found, failed), (expected, expected_failed) = results
        assert failed == expected_failed
        differ = np.flatnonzero((found != expected).reshape(len(plan), -1).any(axis=1))
        assert not differ.size, [photos.path(int(plan.indices[row])) for row in differ]
        return found

    return check


def random_plan(photos: Photos, side: int, epoch: int = 0, **settings: object) -> Plan:
    sizes = photos.sizes(photos.indices)
    return make_plan(9, epoch, photos.indices, sizes, Augment(**settings), side)


def eval_plan(photos: Photos, side: int, crop_pct: float) -> Plan:
    return make_eval_plan(photos.indices, photos.sizes(photos.indices), side, crop_pct)


@pytest.mark.parametrize("side", SIDES)
def test_random_plans(zoo: Path, assert_same: Same, side: int) -> None:
    photos = Photos(zoo)
    for epoch in range(2):
        assert_same(photos, random_plan(photos, side, epoch))


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
def test_unusual_distributions(zoo: Path, assert_same: Same, settings: dict[str, object]) -> None:
    photos = Photos(zoo)
    assert_same(photos, random_plan(photos, 64, **settings))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 0.3])
def test_evaluation_plans(zoo: Path, assert_same: Same, side: int, crop_pct: float) -> None:
    photos = Photos(zoo)
    assert_same(photos, eval_plan(photos, side, crop_pct))


@pytest.mark.parametrize("side", [48, 4000])
def test_with_a_cache(zoo: Path, assert_same: Same, side: int) -> None:
    photos = Photos(zoo)
    plan = random_plan(photos, 64)
    cached = assert_same(photos, plan, side)
    assert np.array_equal(cached, assert_same(photos, plan)) == (side == 4000)


def test_usual_jpegs_are_decoded_in_the_loops(
    zoo: Path, execute: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, asked, decode = Photos(zoo), [], Photos.decode
    monkeypatch.setattr(
        Photos, "decode", lambda self, i, *a, **k: asked.append(self.path(i)) or decode(self, i, *a, **k)
    )
    execute(CompiledExecutor(photos, Files(photos, compiled=True)), random_plan(photos, 64))
    usual = ("chroma", "jpeg-grey", "jpeg-422", "jpeg-orientation", "jpeg-progressive")
    assert not [path for path in asked if any(name in path for name in usual)]
    assert {"jpeg-cmyk.jpg", "png-rgba.png"} <= {Path(path).name for path in asked}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    return root


def test_shrunk_decoding(large: Path, assert_same: Same) -> None:
    photos = Photos(large)
    plans = [random_plan(photos, 32, epoch) for epoch in range(4)] + [eval_plan(photos, 32, 0.875)]
    factors: set[int] = set()
    for plan in plans:
        small = Files(photos, True, "auto").prepare(plan)
        factors |= set(small.shrink.tolist())
        assert small.shrink[-1] == 1, "not a JPEG"
        assert (small.height >= np.where(small.shrink > 1, small.out_height, 0)).all()
        assert Files(photos, True).prepare(plan) is plan
        found, whole = assert_same(photos, plan, None, "auto"), assert_same(photos, plan)
        rows = small.shrink > 1
        assert np.array_equal(found[~rows], whole[~rows])
        assert not np.array_equal(found, whole)
        assert np.abs(found[rows].astype(int) - whole[rows]).mean() < 6
    assert factors == {1, 2, 4, 8}


def test_turned_jpegs_are_decoded_in_the_loops_and_shrunk_too(
    tmp_path: Path, assert_same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        for side in "ab":
            (tmp_path / side).mkdir(exist_ok=True)
            large = coarse.resize((301, 415 if side == "a" else 301), Image.Resampling.BICUBIC)
            large.save(tmp_path / side / f"{orientation}.jpg", quality=92, exif=exif)
    photos, decode, seen = Photos(tmp_path), Photos.decode, []
    monkeypatch.setattr(Photos, "decode", lambda *given, **more: seen.append(0) or decode(*given, **more))
    factors: set[int] = set()
    for plan in (*(random_plan(photos, 32, epoch) for epoch in range(3)), eval_plan(photos, 57, 0.875)):
        factors |= set(Files(photos, True, "auto").prepare(plan).shrink.tolist())
        small, whole = assert_same(photos, plan, None, "auto"), assert_same(photos, plan)
        assert np.abs(small.astype(int) - whole).mean() < 6
    assert factors >= {2, 4, 8}
    assert len(seen) == 4 * 2 * len(photos), "the plain executor's, and no others"


@pytest.mark.parametrize("harm", ["cut", "tail", "shrunk", "garbage", "gone", "empty"])
def test_damaged_files_fare_as_with_the_plain_executor(
    photo_folder: Callable[..., Path], write_photo: Callable[..., Path], assert_same: Same, harm: str
) -> None:
    photos = Photos(photo_folder({"a": 3, "b": 3}, sizes=[(90, 70)]))
    victim = photos.root / photos.path(1)
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
    for plan in (random_plan(photos, 40), eval_plan(photos, 40, 0.875)):
        assert_same(photos, plan)


@pytest.mark.real_data
def test_real_photos(real_photos: Path, assert_same: Same) -> None:
    photos = Photos(real_photos)
    assert_same(photos, random_plan(photos, 224, 0))
    assert_same(photos, eval_plan(photos, 224, 0.875))


LONG = [(60_000, 1300), (1300, 60_000), (1_000_000, 80), (80, 1_000_000), (1, 1_000_000), (8900, 8900)]


def scratch_need(plan: Plan, orientation: int = 1) -> Any:
    steps = Steps(*(getattr(plan, name) for name in Steps._fields))
    return need_of(steps, np.full(len(plan), 50_000), np.full(len(plan), orientation), plan.size)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("augmented", [False, True])
def test_scratch_follows_the_windows_and_not_the_photos(orientation: int, augmented: bool) -> None:
    """As large as the longest of them is wide and high, it would take gigabytes."""
    sizes, indices = tuple(np.array(LONG).T), np.arange(len(LONG))
    plan = make_eval_plan(indices, sizes, 224, 0.875)
    if augmented:
        plan = make_plan(0, 0, indices, sizes, Augment(crop_scale=(1, 1), crop_ratio=(0.01, 100)), 224)
    scratch = make_scratch(scratch_need(plan, orientation))
    parts = [*scratch.tables, *scratch.room, *scratch[2:]]
    assert sum(part.nbytes for part in parts) < 1.5e9


def test_what_a_window_needs_is_never_more_than_was_reckoned() -> None:
    rng, weights = np.random.default_rng(0), np.zeros(300 * 10_002, np.int16)
    for _ in range(400):
        length, out = (int(np.exp(rng.uniform(0, np.log(top)))) for top in (5000, 700))
        side = int(rng.integers(1, 300))
        first = int(rng.integers(max(out - side, 0) + 1))
        starts = np.zeros(min(side, out - first), np.int64)
        taps, _ = make_taps(length, out, first, starts, weights)
        plan = still_plan(np.zeros(1), (np.array([length]), np.array([length])), side)
        plan = replace(plan, out_width=np.array([out]), out_height=np.array([out]))
        need = scratch_need(plan)
        assert need.taps >= taps
        assert need.high >= starts[-1] + taps - starts[0]
