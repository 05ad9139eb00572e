"""A trained run evaluated on folders and shards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.scores import Confusion
from flowerfast.training.split_file import write_split
from flowerfast.training.trained import TrainedModel
from tests.photos.tars import write_tar
from tests.training.saved_run import CLASSES, save_run

Write = Callable[..., Path]


def evaluation(tmp_path: Path, data: Path, run: str = "run", **options: Any) -> dict[str, Any]:
    settings = {name: options.pop(name) for name in ("max_bad", "on_bad") if name in options}
    read = DataConfig(workers=2, backend="cpu", **settings)
    return evaluate(tmp_path / run, data, batch_size=4, device="cpu", options=read, **options)


def matrix(report: dict[str, Any]) -> np.ndarray:
    """Its confusion, rows true, columns predicted."""
    return Confusion.read(report["confusion"], report["classes"]).matrix()


def test_evaluation_agrees_with_single_predictions(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write
) -> None:
    photos = Photos(photo_folder(sizes=((50, 40), (44, 70))))
    answers = trained.predict([photos.root / photos.path(i) for i in range(15)])
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (photos.labels, [CLASSES.index(p.top[0][0]) for p in answers]), 1)
    assert expected.sum(0).max() < 15  # the model does not say one thing to all
    report = evaluation(tmp_path, photos.root)
    assert matrix(report).tolist() == expected.tolist()
    assert "top5" not in report  # of three classes
    assert (report["samples"], report["half"], report["backend"]) == (15, "all", "cpu")
    assert report["classes"] == list(CLASSES)
    assert report["accuracy"] == pytest.approx(expected.trace() / 15)
    assert report["bad_files"] == []
    json.dumps(report)


@pytest.mark.parametrize("names", [("rose", "tulip"), ("tulip",)])
def test_folder_with_some_of_the_classes(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write, names: tuple[str, ...]
) -> None:
    confusion = matrix(evaluation(tmp_path, photo_folder(dict.fromkeys(names, 4))))
    assert confusion.sum(1).tolist() == [4 if name in names else 0 for name in CLASSES]


def test_class_that_the_model_does_not_know(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write
) -> None:
    root = photo_folder({"rose": 2, "violet": 2})
    with pytest.raises(
        UserError, match=r"violet: the model knows no such class; it knows daisy, rose, tulip"
    ):
        evaluation(tmp_path, root)


@pytest.mark.parametrize("run", ["run", "run/best"])
def test_halves_of_the_runs_own_split(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write, run: str
) -> None:
    root = photo_folder()
    train, val = Photos(root).split(0.3, 0)
    write_split(train, val, RunFolder(tmp_path / "run").split)
    parts = {half: evaluation(tmp_path, root, run, half=half) for half in ("train", "val", "all")}
    counts = {half: report["samples"] for half, report in parts.items()}
    assert counts == {"train": len(train), "val": len(val), "all": 15}
    halves = matrix(parts["train"]) + matrix(parts["val"])
    assert halves.tolist() == matrix(parts["all"]).tolist()


def test_there_are_no_other_halves(trained: TrainedModel, tmp_path: Path, photo_folder: Write) -> None:
    with pytest.raises(UserError, match=r"^half='dev': give one of all, train, val, test$"):
        evaluation(tmp_path, photo_folder(), half="dev")


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_the_test_half_is_what_lies_in_test(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write, form: str
) -> None:
    root = photo_folder({"train/daisy": 3, "train/rose": 3, "Testing/daisy": 2, "Testing/rose": 1})
    if form == "shards":
        pack(root, tmp_path / "shards", PackSettings(), DataConfig())
        root = tmp_path / "shards"
    report = evaluation(tmp_path, root, half="test")
    assert [row["support"] for row in report["per_class"]] == [2, 1, 0]
    assert evaluation(tmp_path, root)["samples"] == 9
    without = photo_folder(name="without")
    with pytest.raises(UserError, match=r"without: no photos in a test/ there"):
        evaluation(tmp_path, without, half="test")


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_class_names_match_in_either_form_of_unicode(tmp_path: Path, photo_folder: Write, form: str) -> None:
    save_run(tmp_path / "run", ("caf\u00e9", "rose"))
    root = photo_folder({"cafe\u0301": 3, "rose": 1})
    if form == "shards":
        pack(root, tmp_path / "shards", PackSettings(), DataConfig())
        root = tmp_path / "shards"
    assert [row["support"] for row in evaluation(tmp_path, root)["per_class"]] == [3, 1]


def test_what_was_left_out_is_among_the_notes(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write
) -> None:
    root = photo_folder()
    (root / "rose/x.heic").write_bytes(b"no photo")
    (note,) = evaluation(tmp_path, root)["notes"]
    assert note.startswith("1 file is no photo that can be read: 1 .heic (convert to JPEG)")


def test_half_of_another_folder_is_refused(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write
) -> None:
    photos = Photos(photo_folder())
    write_split(photos, photos.subset([]), RunFolder(tmp_path / "run").split)
    other = photo_folder({"daisy": 2, "rose": 2}, name="other")
    with pytest.raises(UserError, match="when the run began"):
        evaluation(tmp_path, other, half="val")
    RunFolder(tmp_path / "run").split.unlink()
    with pytest.raises(
        UserError, match=r"run/split\.json: gone, and with it which photo is in which half; bring it back"
    ):
        evaluation(tmp_path, photos.root, half="val")


def test_bad_files_of_scan_and_decoder_are_reported(
    trained: TrainedModel, tmp_path: Path, photo_folder: Write
) -> None:
    root = photo_folder()
    (root / "rose/rose_000.jpg").write_text("no photo")
    cut = root / "tulip/tulip_001.jpg"
    cut.write_bytes(cut.read_bytes()[:-60])
    report = evaluation(tmp_path, root, max_bad=0.5)
    assert report["samples"] == 13
    assert [b["path"] for b in report["bad_files"]] == ["rose/rose_000.jpg", "tulip/tulip_001.jpg"]
    with pytest.raises(UserError, match=r"data\.on_bad=skip"):
        evaluation(tmp_path, root, on_bad="fail")


def test_photos_are_read_by_the_columns_that_the_run_was_trained_by(
    train_tiny: Callable[..., TrainResult], photos: Path, tmp_path: Path
) -> None:
    """Of a table, whose other columns have the usual names; and of tar files that others wrote."""
    files = sorted(photos.glob("*/*.jpg"))
    cells = [f"{file},{file.parent.name},gone.jpg,x," for file in files]
    rows = [f"{row}{'test' if number % 4 else 'train'}" for number, row in enumerate(cells)]
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["where,species,path,label,part", *rows]))
    columns = {"path_column": "where", "label_column": "species", "split_column": "part"}
    settings = {f"data.{name}": value for name, value in columns.items()}
    result = train_tiny("by-table", settings, table)
    assert evaluate(result.folder, table, half="test")["accuracy"] == result.summary["test_acc"]
    with pytest.raises(UserError, match=r"gone\.jpg"):  # another column, when it is named
        evaluate(result.folder, table, options=DataConfig(path_column="path"))
    members = []
    for number, file in enumerate(files):
        about = json.dumps({"species": file.parent.name, "label": "x"}).encode()
        members += [(f"{number:02d}.json", about), (f"{number:02d}.jpg", file.read_bytes())]
    tars = write_tar(tmp_path / "tars/all.tar", members).parent
    result = train_tiny("by-tars", {"data.label_column": "species"}, tars)
    figures = evaluate(result.folder, tars, half="val")
    assert figures["accuracy"] == result.summary["best_val_acc"]
    by_table = tmp_path / "by-table"  # columns of a table are none of tar files; and the other way round
    assert evaluate(by_table, tars, options=DataConfig(label_column="species"))["samples"] == len(files)
    usual = tmp_path / "usual.csv"
    usual.write_text("\n".join(["path,label", *(f"{file},{file.parent.name}" for file in files)]))
    assert evaluate(result.folder, usual)["samples"] == len(files)
    named = DataConfig(path_column="path", label_column="label")
    assert evaluate(by_table, usual, options=named)["samples"] == len(files)  # no split is asked for
    with pytest.raises(UserError, match=r"no column 'where'; its columns are .+: set data\.path_column$"):
        evaluate(by_table, usual)
    unset = DataConfig(path_column=None, label_column=None, split_column=None)
    assert evaluate(by_table, usual, options=unset)["samples"] == len(files)
