"""Confident learning by hand, and a run asked about photos of which some carry a wrong label."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.photos.photos import Photos
from flowerfast.scanning.labels import confident, trained_on
from flowerfast.scanning.scan import scan
from flowerfast.training import run as run_module
from flowerfast.training.run import train

SETTINGS = {
    "model.name": "test_resnet",
    "model.pretrained": False,
    "data.image_size": 32,
    "data.workers": 1,
    "data.kernels": "torchvision",
    "train.epochs": 6,
    "train.batch_size": 8,
    "train.lr": 0.05,
    "train.device": "cpu",
}

PLAIN = DataConfig(kernels="torchvision")


def test_thresholds_and_confident_classes_are_those_of_the_definition() -> None:
    chances = np.array(
        [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.7, 0.3, 0], [0.45, 0.55, 0], [0.1, 0.1, 0.8]],
        np.float32,
    )
    labels = np.array([0, 0, 1, 1, 1, 0])
    thresholds, surely = confident(chances, labels, np.ones(6, bool))
    # Class 0: (0.9 + 0.6 + 0.1) / 3, class 1: (0.8 + 0.3 + 0.55) / 3, class 2: no photo.
    assert thresholds.tolist() == pytest.approx([1.6 / 3, 0.55, np.inf])
    assert surely.tolist() == [0, 0, 1, 0, 1, -1]  # the fourth is labelled 1; no threshold is there for 2
    thresholds, _ = confident(chances, labels, np.array([True, False, False, False, False, False]))
    assert thresholds.tolist() == pytest.approx([0.9, 0.55, np.inf])  # 1: of all, for none is of the basis


def test_of_several_classes_above_their_thresholds_the_most_probable_counts() -> None:
    chances = np.array([[0.45, 0.55], [0.4, 0.6], [0.6, 0.4]], np.float32)
    assert confident(chances, np.array([0, 1, 1]), np.ones(3, bool))[1].tolist() == [1, 1, 0]


@pytest.fixture(scope="session")
def learnt(paint: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(run, photos): three colours, and a red photo under blue in either half."""
    root = tmp_path_factory.mktemp("learnt")
    painted, photos = paint(root / "painted"), root / "photos"
    for file in painted.rglob("*.jpg"):
        inside = photos / ("val" if file.stem in ("08", "09", "10") else "train") / file.parent.name
        inside.mkdir(parents=True, exist_ok=True)
        file.rename(inside / file.name)
    for half, name in (("val", "10.jpg"), ("train", "11.jpg")):
        (photos / half / "red" / name).rename(photos / half / "blue" / "wrong.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERFAST_CACHE", str(root / "cache"))
        patch.setattr(run_module, "draw", lambda *_: None)
        train(photos, out=root / "run", settings=SETTINGS)
    return root / "run", photos


def test_a_wrong_label_is_found_and_it_is_said_what_the_run_was_trained_on(learnt: tuple[Path, Path]) -> None:
    run, photos = learnt
    result = scan(photos, run=run, device="cpu", options=PLAIN)
    assert result.run is not None
    assert (result.run.trained_on, result.run.out_of_sample) == (27, 9)
    assert f"{run}: 27 of these 36 photos it was trained on, as its split.json says" in result.notes
    errors = {photo.path: photo for photo in result.finding("label_errors").photos}
    wrong = errors["val/blue/wrong.jpg"]
    assert (wrong.label, wrong.suggested, wrong.trained_on) == ("blue", "red", False)
    assert wrong.probability is not None
    assert wrong.own_probability is not None
    assert wrong.probability > wrong.own_probability
    assert result.finding("label_errors").photos[0] is wrong  # before all that the run was trained on
    mistakes = result.finding("confident_mistakes").photos
    assert "val/blue/wrong.jpg" in [photo.path for photo in mistakes]
    certain = [photo.probability or 0 for photo in mistakes]
    assert certain == sorted(certain, reverse=True)
    assert not any(result.finding(kind).wants_eye for kind in ("label_errors", "confident_mistakes"))
    assert result.run.accuracy == pytest.approx(8 / 9)
    assert {*result.run.thresholds} == {"blue", "green", "red"}
    assert result.to_json()["run"]["thresholds"].keys() == result.run.thresholds.keys()


def test_a_run_that_does_not_know_the_photos_says_so(learnt: tuple[Path, Path], tmp_path: Path) -> None:
    run, photos = learnt
    others = Path(shutil.copytree(photos / "val", tmp_path / "others"))
    learned = trained_on(run, Photos(others))
    assert (learned.whole, int(learned.rows.sum()) if learned.rows is not None else None) == (False, 0)
    assert learned.note.endswith("split.json, which names 36 photos, 0 of them here")
    (photos_less := Path(shutil.copytree(photos, tmp_path / "less"))).joinpath("train/red/00.jpg").unlink()
    learned = trained_on(run, Photos(photos_less))
    assert learned.rows is not None
    assert (learned.whole, int(learned.rows.sum())) == (False, 26)
    alone = Path(shutil.copytree(run / "best", tmp_path / "alone"))
    result = scan(others, run=alone, device="cpu", options=PLAIN)
    assert result.run is not None
    assert (result.run.trained_on, result.run.out_of_sample, result.run.trained_accuracy) == (0, 0, None)
    assert f"{alone}: which photos it was trained on is not known (no split.json there)" in result.notes
    assert [photo.trained_on for photo in result.finding("label_errors").photos] == [None]


def test_a_run_of_other_classes_is_refused(
    learnt: tuple[Path, Path], write_photo: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("blue", "pink"):
        write_photo(tmp_path / "photos" / name / "1.jpg")
    with pytest.raises(
        ValueError, match=r"photos/pink: the model knows no such class; it knows blue, green, red"
    ):
        scan(tmp_path / "photos", run=learnt[0], device="cpu", options=PLAIN)
