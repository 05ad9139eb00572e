"""Pictures read ahead by threads: the squares and answers of one after the other, in order, few at a time."""

import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.errors import UserError
from flowerfast.kernels.chain import run
from flowerfast.kernels.ready import Loops
from flowerfast.loaders.loader import Loader
from flowerfast.machine import usable_cores
from flowerfast.photos.photos import Photos
from flowerfast.training import pictures, squares
from flowerfast.training.pictures import PIECE, batches
from flowerfast.training.squares import Squares
from flowerfast.training.trained import TrainedModel

Write = Callable[..., Path]


def one_by_one(files: list[Path], made: Squares) -> list[Any]:
    """Squares of the reference, one file at a time."""
    return [made.of_files([str(file)])[0] for file in files]


def same(one: Any, other: Any) -> bool:
    """Whether two squares, or what is said in place of them, are the same."""
    return one == other if isinstance(one, str) else np.array_equal(one, other)


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("size", [32, 61])
def test_loops_give_the_squares_of_the_reference_and_its_words(
    zoo: Path, turned: tuple[Path, Path], tmp_path: Path, write_photo: Write, upright: bool, size: int
) -> None:
    cut, junk = write_photo(tmp_path / "cut.jpg", (90, 70)), tmp_path / "junk.HEIC"
    cut.write_bytes(cut.read_bytes()[:-300])
    junk.write_text("no photo")
    bad = [cut, junk, tmp_path / "gone.jpg", tmp_path, write_photo(tmp_path / "large.png", (700, 600))]
    files = [*sorted(zoo.rglob("*.*")), *bad, *sorted(turned[0].glob("*/*"))]
    reference, loops = (Squares(size, 0.8, upright, 400_000) for _ in range(2))
    loops.want_loops()
    expected, found = one_by_one(files, reference), loops.of_files(list(map(str, files)))
    assert [file.name for file, a, b in zip(files, expected, found, strict=True) if not same(a, b)] == []
    errors = [square for square in found if isinstance(square, str)]
    assert "truncated" in errors[0]
    assert errors[1:] == [
        "not an image (convert to JPEG)",
        "No such file or directory",
        "Is a directory",
        "700x600 pixels, more than data.max_pixels=400000",
    ]


def test_loops_are_those_that_a_loader_has_compiled(photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder()
    with Loader(Photos(folder), size=32, backend="cpu", device="cpu") as loader:
        assert sum(map(len, loader.epoch(0))) == 15
    known, made = {*run.signatures}, Squares(32, 0.8, True, 100_000)
    made.want_loops()
    assert len(made.of_files(list(map(str, sorted(folder.glob("*/*")))))) == 15
    assert {*run.signatures} == known


def test_loops_take_over_when_they_are_there(
    monkeypatch: pytest.MonkeyPatch, photo_folder: Callable[..., Path]
) -> None:
    files, made = list(map(str, sorted(photo_folder().glob("*/*")))), Squares(32, 0.8, True, 100_000)
    monkeypatch.setattr(squares, "LOOPS", begun := Loops(lambda: False, ("false",)))
    monkeypatch.setattr(begun, "begin", lambda: None)
    monkeypatch.setattr(squares, "loops_usable", lambda: begun.usable)
    made.want_loops()
    plain = made.of_files(files)
    assert made._loops is None
    begun.usable = True
    assert all(map(same, plain, made.of_files(files)))
    assert made._loops is not None


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
@pytest.mark.parametrize("worth", [10, 10_000])
def test_answers_are_those_of_one_by_one_in_order(
    trained: TrainedModel,
    zoo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    worth: int,
) -> None:
    monkeypatch.setattr(pictures, "WORTH", worth)
    (tmp_path / "junk.jpg").write_text("no photo")
    files: list[Any] = sorted(zoo.rglob("*.*"))
    files[5:5] = [tmp_path / "junk.jpg", np.full((40, 50, 3), 90, np.uint8), tmp_path / "gone.jpg"]
    given = list[torch.Tensor]()
    hook = trained.model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    expected = [trained.predict(file)[0] for file in files]
    alone, given[:] = torch.cat(given), []
    found = [*trained.predict_each(files, batch_size=batch_size)]
    hook.remove()
    assert torch.equal(torch.cat(given), alone)  # what the model is given is the same to the last bit
    assert max(map(len, given)) == min(batch_size, len(files) - 2)
    assert [p.path for p in found] == ["6" if isinstance(f, np.ndarray) else str(f) for f in files]
    assert [p.error for p in found] == [p.error for p in expected]
    # What it answers is rounded: sums of some thousand float32 products come in another order.
    for one, other in zip(found, expected, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_no_more_is_under_way_than_some_batches(
    trained: TrainedModel,
    tmp_path: Path,
    write_photo: Write,
    batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, taken = write_photo(tmp_path / "a.jpg"), 0
    lock, opened, most_open = threading.Lock(), 0, 0
    of_files = Squares.of_files

    def counted(self: Squares, files: list[str]) -> Any:
        nonlocal opened, most_open
        with lock:
            opened += len(files)
            most_open = max(most_open, opened)
        made = of_files(self, files)
        with lock:
            opened -= len(files)
        return made

    monkeypatch.setattr(Squares, "of_files", counted)

    def files() -> Iterator[Path]:
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield file

    most = 0
    predictions = trained.predict_each(files(), batch_size=batch_size)
    for answered, _ in enumerate(islice(predictions, 20 * batch_size), 1):
        most = max(most, taken - answered)
    predictions.close()
    # In the batch that is answered, and ahead of it.
    assert most <= (0 if batch_size == 1 else 3 * batch_size + 2 * usable_cores() * PIECE)
    assert most_open <= usable_cores() * PIECE
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flowerfast-predict")]


@pytest.mark.parametrize("wrong", [np.zeros((4, 5), np.uint8), KeyError("lost")])
def test_what_is_no_picture_comes_after_the_answers_before_it(
    trained: TrainedModel, tmp_path: Path, write_photo: Write, wrong: Any
) -> None:
    file = write_photo(tmp_path / "a.jpg")

    def given() -> Iterator[Any]:
        yield from [file] * 50
        if isinstance(wrong, Exception):
            raise wrong
        yield wrong

    answered = list[str]()

    def answer_all() -> None:
        for prediction in trained.predict_each(given()):
            answered.append(prediction.path)

    with pytest.raises((UserError, KeyError), match=r"no photo|lost"):
        answer_all()
    assert answered == [str(file)] * 50


def test_pixels_may_be_changed_once_the_next_are_asked_for(trained: TrainedModel) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 3), np.uint8)

    def camera() -> Iterator[np.ndarray]:
        frame = np.empty((48, 64, 3), np.uint8)
        for colour in colours:
            frame[:] = colour
            yield frame

    expected = [trained.predict(np.tile(c, (48, 64, 1)))[0].top for c in colours]
    for one, other in zip(trained.predict_each(camera()), expected, strict=True):
        assert dict(one.top) == pytest.approx(dict(other), abs=1e-5)


def test_a_fault_of_a_thread_is_not_lost(
    trained: TrainedModel, tmp_path: Path, write_photo: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(squares, "checked_header", fail)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        trained.predict(write_photo(tmp_path / "a.jpg"))


def test_batches_without_pictures() -> None:
    assert [*batches([], Squares(8, 1, True, 1000), 4)] == []
