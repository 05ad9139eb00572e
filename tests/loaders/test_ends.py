"""An executor that stops early has done what comes before the end, and leaves the rows alone."""

import numpy as np
import pytest

from flowerfast.config import AugmentConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.data.plan import End, make_plan
from flowerfast.loaders import torchvision
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.compiled import CompiledExecutor
from flowerfast.loaders.torchvision import Executor

EARLY = [end for end in End if end is not End.all]
both = pytest.mark.parametrize("kind", [Executor, CompiledExecutor])


def plan_of(manifest):
    sizes = manifest.width, manifest.height
    return make_plan(0, 0, np.arange(len(manifest)), sizes, AugmentConfig(), 32)


@both
@pytest.mark.parametrize("cached", [False, True])
def test_rows_are_left_alone_until_the_last_end(photo_folder, kind, cached):
    manifest = load_manifest(photo_folder())
    executor = kind(manifest, PhotoCache(manifest, np.arange(len(manifest)), 64) if cached else None)
    plan = plan_of(manifest)
    expected = np.empty((len(plan), 32, 32, 3), np.uint8)
    assert executor.fill(executor.prepare(plan), expected, range(len(plan))) == {}
    for end in EARLY:
        rows = np.full_like(expected, 77)
        assert executor.fill(executor.prepare(plan), rows, range(len(plan)), end) == {}
        assert (rows == 77).all(), end
    executor.fill(executor.prepare(plan), rows, range(len(plan)), End.all)
    assert np.array_equal(rows, expected)


@both
def test_a_damaged_file_is_read_but_not_decoded(photo_folder, kind):
    root = photo_folder()
    manifest = load_manifest(root)
    (root / manifest.path(3)).write_bytes(b"\xff\xd8" + bytes(int(manifest.size[3]) - 2))
    (root / manifest.path(5)).unlink()
    executor, plan = kind(manifest, None), plan_of(manifest)
    rows = np.empty((len(plan), 32, 32, 3), np.uint8)
    for end in End:
        failed = executor.fill(executor.prepare(plan), rows, range(len(plan)), end)
        assert set(failed) == ({5} if end is End.read else {3, 5}), end


def test_the_plain_executor_does_no_step_too_many(photo_folder, monkeypatch):
    manifest = load_manifest(photo_folder())
    done: list[str] = []
    for name in ("decode", "resize", "_paste"):
        real = getattr(torchvision, name)
        monkeypatch.setattr(
            torchvision, name, lambda *a, _real=real, _name=name: (done.append(_name), _real(*a))[1]
        )
    executor, plan = Executor(manifest, None), plan_of(manifest)
    rows, prepared = np.empty((len(plan), 32, 32, 3), np.uint8), executor.prepare(plan)
    found = {}
    for end in End:
        done.clear()
        executor.fill(prepared, rows, range(1), end)
        found[end] = done.copy()
    whole = ["decode", "resize"]  # the photo as the plan expects it, which here it is already
    assert found[End.read] == []
    assert found[End.decode] == whole
    for end in (End.resize, End.turn, End.jitter):
        assert found[end] == [*whole, "resize"]
    assert found[End.all] == [*whole, "resize", "_paste"]
