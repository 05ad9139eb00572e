"""Both executors: one that stops early leaves the rows alone; which of them runs here."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.errors import UserError
from flowerfast.kernels import End, numba_problem, place
from flowerfast.kernels.place import is_compiled
from flowerfast.kernels.ready import COMPILING, LOOPS, MEANWHILE
from flowerfast.loaders.cache.store import Cached, PhotoCache
from flowerfast.photos.photos import Photos
from flowerfast.pixels import executor as module
from flowerfast.pixels import reference
from flowerfast.pixels.compiled import CompiledExecutor
from flowerfast.pixels.executor import Executor, Executors, compiling_notes
from flowerfast.pixels.reference import PlainExecutor
from flowerfast.pixels.source import Files
from flowerfast.plans.plan import Plan, make_plan

Execute = Callable[..., tuple[np.ndarray, dict[int, str]]]
EARLY = [end for end in End if end is not End.all]
both = pytest.mark.parametrize("kind", [PlainExecutor, CompiledExecutor])


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder())


def plan_of(photos: Photos) -> Plan:
    return make_plan(0, 0, photos.indices, photos.sizes(photos.indices), Augment(), 32)


@both
@pytest.mark.parametrize("cached", [False, True])
def test_rows_are_left_alone_until_the_last_end(
    photos: Photos, execute: Execute, kind: Callable[..., Executor], cached: bool
) -> None:
    executor = kind(photos, Cached(PhotoCache(photos, 64)) if cached else Files(photos, compiled=True))
    expected, failed = execute(executor, plan_of(photos))
    assert not failed
    for end in EARLY:
        rows, failed = execute(executor, plan_of(photos), end)
        assert not failed
        assert (rows == 77).all(), end
    assert np.array_equal(execute(executor, plan_of(photos), End.all)[0], expected)


def test_what_is_to_be_compiled_is_said_beforehand(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "is_compiled", is_compiled)
    monkeypatch.setattr(place, "CODE", tmp_path)
    (tmp_path / "kernels_0").mkdir()
    notes = [compiling_notes(kernels) for kernels in ("auto", "numba", "torchvision")]
    assert notes == [[COMPILING], [COMPILING], []]
    notes = [compiling_notes(kernels, waited=False) for kernels in ("auto", "numba", "torchvision")]
    assert notes == [[MEANWHILE], [COMPILING], []]
    monkeypatch.setattr(place, "KEEP", False)
    assert compiling_notes("auto", waited=False) == [COMPILING]
    (tmp_path / "kernels_0" / "chain.run-163.py311.0123.code").touch()
    assert compiling_notes("auto") == []
    (tmp_path / "kernels_0" / "chain.run-163.py311.0123.code").unlink()
    monkeypatch.setattr(module, "numba_problem", lambda: "numba is not installed")
    assert compiling_notes("auto") == []


@both
def test_a_damaged_file_is_read_but_not_decoded(
    photos: Photos, execute: Execute, kind: Callable[..., Executor]
) -> None:
    (photos.root / photos.path(3)).write_bytes(b"\xff\xd8" + bytes(int(photos.table.size[3]) - 2))
    (photos.root / photos.path(5)).unlink()
    executor = kind(photos, Files(photos, compiled=True))
    for end in End:
        _, failed = execute(executor, plan_of(photos), end)
        assert set(failed) == ({5} if end is End.read else {3, 5}), end


def test_the_plain_executor_does_no_step_too_many(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for owner, name in ((Photos, "decode"), (reference, "resize"), (reference, "_paste")):
        real = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, _real=real, _name=name: (done.append(_name), _real(*a))[1]
        )
    executor, plan = PlainExecutor(photos, Files(photos, compiled=False)), plan_of(photos)
    rows, found = np.empty((len(plan), 32, 32, 3), np.uint8), {}
    for end in End:
        done.clear()
        executor.fill(plan, rows, range(1), end)
        found[end] = done.copy()
    whole = ["decode", "resize"]  # the photo as the plan expects it, which here it is already
    assert found[End.read] == []
    assert found[End.decode] == whole
    for end in (End.resize, End.turn, End.jitter):
        assert found[end] == [*whole, "resize"]
    assert found[End.all] == [*whole, "resize", "_paste"]


@pytest.mark.parametrize("kernels", ["auto", "numba", "torchvision"])
@pytest.mark.parametrize("there", [False, True])
def test_the_executor_is_that_of_the_moment(
    photos: Photos, kernels: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOOPS, "usable", there)
    source = Files(photos, compiled=True)
    executors = Executors(kernels, photos, source)
    compiled = kernels == "numba" or (kernels == "auto" and there)
    assert isinstance(executors.now, CompiledExecutor if compiled else PlainExecutor)
    assert executors.now is executors.now
    assert executors.now.source is source
    LOOPS.usable = True
    assert isinstance(executors.now, PlainExecutor if kernels == "torchvision" else CompiledExecutor)


@pytest.fixture(params=["not there", "broken"])
def without_numba(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """numba cannot be imported: what is said of it."""
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    numba_problem.cache_clear()
    if request.param == "broken":
        (tmp_path / "numba.py").write_text('raise ImportError("Numba needs NumPy 2.3 or less")')
        monkeypatch.syspath_prepend(tmp_path)
        yield r"numba cannot be loaded \(Numba needs NumPy 2\.3 or less\); pip install -U numba"
    else:
        monkeypatch.setitem(sys.modules, "numba", None)
        yield "numba is not installed; pip install numba"
    numba_problem.cache_clear()


def test_without_numba_the_plain_executor_runs(photos: Photos, without_numba: str) -> None:
    executors = Executors("auto", photos, Files(photos, compiled=False))
    assert isinstance(executors.now, PlainExecutor)
    with pytest.raises(UserError, match=rf"data\.kernels=numba: {without_numba}, or use auto"):
        Executors("numba", photos, Files(photos, compiled=True))
    files, plain = photos.read(photos.indices)
    assert all(isinstance(file, np.ndarray) for file in files)
    assert not plain.any()
