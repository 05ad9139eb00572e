"""Rendered flowers: pure functions of (kind, seed, index), written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from flowerfast.demo import synthetic
from flowerfast.demo.synthetic import CLASSES, MARKER, MAX_SIDE, MIN_SIDE, render, synthesize
from flowerfast.errors import RunFailed, UserError


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _pixels(kind: str, seed: int, index: int) -> np.ndarray:
    return np.asarray(render(kind, seed, index))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("flowers") / "set", per_class=2, seed=3, processes=1)


def test_classes_are_the_five_kinds_in_the_order_of_their_folders() -> None:
    assert CLASSES == ("daisy", "dandelion", "rose", "sunflower", "tulip")


@pytest.mark.parametrize("kind", CLASSES)
def test_sizes_stay_in_bounds_and_vary(kind: str) -> None:
    images = [render(kind, 0, index) for index in range(8)]
    sizes = [image.size for image in images]
    assert all(image.mode == "RGB" for image in images)
    assert all(MIN_SIDE <= side <= MAX_SIDE for size in sizes for side in size)
    assert len(set(sizes)) > 4
    assert len({width > height for width, height in sizes}) == 2


@pytest.mark.parametrize("kind", CLASSES)
def test_render_repeats_and_ignores_global_random_state(kind: str) -> None:
    first = _pixels(kind, 5, 11)
    np.random.seed(1)  # noqa: NPY002 - the point is that nothing reads it
    assert np.array_equal(first, _pixels(kind, 5, 11))


@pytest.mark.parametrize(("seed", "index"), [(6, 11), (5, 12), (5 + 2**32, 11), (-5, 11)])
def test_render_depends_on_seed_and_index(seed: int, index: int) -> None:
    first, other = render("daisy", 5, 11), render("daisy", seed, index)
    assert first.size != other.size or not np.array_equal(np.asarray(first), np.asarray(other))


def test_kinds_do_not_share_their_random_numbers() -> None:
    assert len({render(kind, 0, 0).size for kind in CLASSES}) > 2


@pytest.mark.parametrize("kind", CLASSES)
def test_pictures_vary_and_have_structure(kind: str) -> None:
    pictures = [_pixels(kind, 0, index).astype(float) for index in range(8)]
    means = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
    assert means.std(axis=0).min() > 5
    for picture in pictures:
        assert picture.std() > 15
        # Sharp petals and grain: a blurred background alone stays far below.
        assert np.abs(np.diff(picture, axis=1)).mean() > 1


@pytest.mark.parametrize(
    ("kind", "index", "message"),
    [("orchid", 0, "orchid.*daisy"), ("rose", -1, "-1"), ("rose", 2**48, "out of range")],
)
def test_render_refuses_what_it_cannot_draw(kind: str, index: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(kind, 0, index)


def test_layout_marker_and_jpeg_settings(small_set: Path) -> None:
    expected = {f"{kind}/{kind}_{index:05d}.jpg" for kind in CLASSES for index in range(2)} | {MARKER}
    assert set(_contents(small_set)) == expected
    marker = json.loads((small_set / MARKER).read_text())
    assert marker == {"per_class": 2, "seed": 3, "render_version": synthetic.RENDER_VERSION}
    with Image.open(small_set / "tulip" / "tulip_00001.jpg") as image:
        assert image.format == "JPEG"
        assert JpegImagePlugin.get_sampling(image) == 2  # 4:2:0
        difference = np.asarray(image).astype(int) - _pixels("tulip", 3, 1)
    assert np.abs(difference).mean() < 6


def test_two_processes_write_the_same_bytes_and_another_seed_others(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_CHUNK", 1)
    again = synthesize(tmp_path / "two", per_class=2, seed=3, processes=2)
    assert _contents(again) == _contents(small_set)
    other = _contents(synthesize(tmp_path / "other", per_class=1, seed=4, processes=1))
    assert not set(other.values()) & set(_contents(small_set).values())


def test_a_larger_set_starts_with_the_smaller_one(small_set: Path, tmp_path: Path) -> None:
    one = _contents(synthesize(tmp_path / "one", per_class=1, seed=3, processes=1))
    both = _contents(small_set)
    assert all(both[name] == data for name, data in one.items() if name != MARKER)


def test_an_identical_set_is_reused(small_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(synthetic, "render", refuse)
    assert synthesize(small_set, per_class=2, seed=3, processes=1) == small_set


@pytest.mark.parametrize("changed", [{"per_class": 1}, {"seed": 4}])
def test_another_set_is_not_overwritten(small_set: Path, changed: dict[str, Any]) -> None:
    before = _contents(small_set)
    arguments: dict[str, Any] = {"per_class": 2, "seed": 3, "processes": 1}
    with pytest.raises(UserError, match=r"set exists .* name another folder"):
        synthesize(small_set, **(arguments | changed))
    assert _contents(small_set) == before


def test_an_older_render_version_is_not_reused(small_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "RENDER_VERSION", synthetic.RENDER_VERSION + 1)
    with pytest.raises(UserError, match="is not this set"):
        synthesize(small_set, per_class=2, seed=3, processes=1)


def test_a_set_with_a_missing_picture_is_not_reused(tmp_path: Path) -> None:
    out = synthesize(tmp_path / "set", per_class=1, processes=1)
    (out / "rose" / "rose_00000.jpg").unlink()
    with pytest.raises(UserError, match="is not this set"):
        synthesize(out, per_class=1, processes=1)


def test_foreign_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="exists and is not this set"):
            synthesize(out, per_class=1, processes=1)
    with pytest.raises(UserError, match="cannot be written"):
        synthesize(tmp_path / "notes.txt" / "set", per_class=1, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(synthetic, "_render_chunk", fail)
    with pytest.raises(RunFailed, match=r"set: cannot be written \(No space left on device: [\d,]+ free\)"):
        synthesize(tmp_path / "set", per_class=1, processes=1)
    assert not list(tmp_path.iterdir())


class Pool:
    """Processes that are killed, or that cannot be started."""

    def __init__(self, *_: object) -> None:
        if self.cannot:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cannot = False

    def submit(self, *_: object) -> Future[int]:
        """A task whose process is killed."""
        task: Future[int] = Future()
        task.set_exception(BrokenProcessPool("killed"))
        return task

    def shutdown(self, **_: object) -> None:
        """Nothing runs."""


def test_a_killed_process_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "ProcessPoolExecutor", Pool)
    with pytest.raises(RunFailed, match="a rendering process was killed, perhaps for want of memory"):
        synthesize(tmp_path / "set", per_class=1, processes=2)
    assert not list(tmp_path.iterdir())


def test_where_no_process_can_be_started_this_one_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(Pool, "cannot", True)
    assert len(_contents(synthesize(tmp_path / "set", per_class=1, processes=2))) == len(CLASSES) + 1


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert len(_contents(synthesize(out, per_class=1, processes=1))) == len(CLASSES) + 1


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"per_class": -3}, {"processes": 0}])
def test_numbers_below_one_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        synthesize(tmp_path / "set", **wrong)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interruption_leaves_nothing(tmp_path: Path, processes: int) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "set", per_class=1, processes=processes, progress=interrupt)
    assert not any(tmp_path.iterdir())


def test_a_failure_in_a_process_reaches_the_caller(tmp_path: Path) -> None:
    missing = [(tmp_path / "gone", kind, 0, 0, 1) for kind in CLASSES[:2]]
    with pytest.raises(FileNotFoundError, match="gone"):
        list(synthetic._render_all(missing, processes=2))


def test_progress_counts_up_to_all_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_CHUNK", 2)
    seen: list[int] = []
    synthesize(tmp_path / "set", per_class=3, processes=1, progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 3 * len(CLASSES)
    assert len(seen) == 2 * len(CLASSES)


def test_a_rival_that_finishes_first_is_accepted(small_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"

    def rival(finished: int) -> None:
        if finished == 2 * len(CLASSES):
            out.mkdir()
            for name, data in _contents(small_set).items():
                (out / name).parent.mkdir(exist_ok=True)
                (out / name).write_bytes(data)

    assert synthesize(out, per_class=2, seed=3, processes=1, progress=rival) == out
    assert _contents(out) == _contents(small_set)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
