"""Links, folders and pipes in the places of a run's own folders and files: none is written through."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.errors import RunFailed, UserError
from flowerfast.training.run import TrainResult
from tests.training.test_gone import After

Train = Callable[..., TrainResult]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def link(run: Path, name: str, target: Path) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(target)


@pytest.mark.parametrize("name", ["best", "checkpoints"])
def test_no_run_writes_through_a_link_to_another_run(train_tiny: Train, run: Path, name: str) -> None:
    other = train_tiny("other", {"train.epochs": 1, "train.seed": 5}).folder
    whole = contents(other)
    told = rf"^{run / name}: a link, and what it leads to may be another run's; put a folder in its place, "
    with pytest.raises(RunFailed, match=f"{told}then "):
        train_tiny(reporter=After(0, lambda: link(run, name, other / name)))
    assert contents(other) == whole
    before = contents(run)
    with pytest.raises(UserError, match=f"{told}or choose another --out$"):
        train_tiny(resume=True)
    (run / name).unlink()
    (run / name).symlink_to(name)  # to itself
    with pytest.raises(UserError, match=told):
        train_tiny(resume=True)
    assert (contents(other), contents(run)) == (whole, before)


def test_no_run_begins_over_a_link(train_tiny: Train, run: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    run.mkdir()
    (run / "checkpoints").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match=r"exists already; choose another --out$"):
        train_tiny()
    assert not contents(tmp_path / "theirs")


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    train_tiny: Train, run: Path, tmp_path: Path
) -> None:
    train_tiny(settings={"train.epochs": 1})
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    for name in ("summary.json", "summary.json.partial", "checkpoints/last.pt.partial", "metrics.jsonl"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(theirs)
    train_tiny(resume=True)
    assert theirs.read_text() == "theirs"
    assert not (run / "summary.json").is_symlink()


def test_a_run_folder_may_be_reached_through_links(train_tiny: Train, run: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    run.symlink_to("real")
    train_tiny(settings={"train.epochs": 1})
    train_tiny(resume=True, settings={"train.epochs": 2})
    assert (tmp_path / "real/summary.json").is_file()


PLACES = (
    *("metrics.jsonl", "summary.json", "report.html", "accuracy_loss_curve.png", "confusion_matrix.png"),
    *(
        "metrics.csv",
        "summary.json.partial",
        "split.json",
        "checkpoints/last.pt",
        "checkpoints/last.previous.pt",
    ),
    *("best/config.json", "best/model.safetensors", "checkpoints/epoch_007.safetensors"),
)


def test_what_takes_the_place_of_a_file_is_named_before_the_work(train_tiny: Train, run: Path) -> None:
    train_tiny(settings={"train.epochs": 1})
    for name in PLACES:
        for take in (Path.mkdir, os.mkfifo) if hasattr(os, "mkfifo") else (Path.mkdir,):
            kept = (run / name).rename(run / "kept") if (run / name).exists() else None
            take(run / name)
            with pytest.raises(
                UserError, match=rf"^{run / name}: not a regular file; move it away, or choose"
            ):
                train_tiny(resume=True)
            (run / name).rmdir() if take is Path.mkdir else (run / name).unlink()
            if kept is not None:
                kept.rename(run / name)
    train_tiny(resume=True)


def test_what_takes_the_place_of_a_folder_is_named(train_tiny: Train, run: Path) -> None:
    def become_a_file() -> None:
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints").write_text("x")

    told = rf"^{run / 'checkpoints'}: not a folder; move it away, "
    with pytest.raises(RunFailed, match=f"{told}then start again$"):
        train_tiny(reporter=After(0, become_a_file))
    with pytest.raises(UserError, match=told):
        train_tiny(resume=True)
