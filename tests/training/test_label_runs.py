"""Runs on photos with several labels: exact after a stop and on several ranks, best by mAP, from Python."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowerfast as ff
from benchmarks.torture import crew
from flowerfast.errors import UserError
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from tests.tags import NAMES, cells, flags, tagged
from tests.training.outcomes import assert_same, change_last
from tests.training.rank_work import noted_run

Train = Callable[..., TrainResult]
SPACE = {"data.label_separator": " "}
MIXED = {**SPACE, "augment.mixup": 1.0, "train.class_weights": "balanced", "train.label_smoothing": 0.1}


@pytest.fixture
def has(tmp_path: Path) -> np.ndarray:
    return tagged(tmp_path)


@pytest.fixture
def table(tmp_path: Path, has: np.ndarray) -> Path:
    return cells(tmp_path / "tags.csv", has)


def test_a_stopped_run_goes_on_bit_by_bit(
    table: Path, train_tiny: Train, run: Path, stop_after: Any, outcome: Callable[[Path], dict[str, Any]]
) -> None:
    more = {**MIXED, "train.batch_size": 10, "train.epochs": 3, "train.accumulate": 2}
    whole = train_tiny("whole", more, table)
    with pytest.raises(ff.Stopped):
        train_tiny(settings=more, data=table, stop=stop_after(4))
    train_tiny(resume=True)
    assert_same(outcome(run), outcome(whole.folder))
    row = outcome(run)["rows"][-1]
    assert {"val_loss", "val_acc", "val_map", "val_macro_f1", "val_micro_f1"} <= row.keys()


@pytest.mark.skipif(sys.platform != "linux", reason="ranks are forked and meet by gloo")
def test_ranks_rank_all_photos_together(
    table: Path, tmp_path: Path, rows: Callable[[Path], list[dict[str, float]]]
) -> None:
    settings = {**MIXED, "eval.batch_size": 2, "eval.flip": True, "eval.augmented": "both"}
    begun = crew.start(2, tmp_path, noted_run, table, tmp_path / "many", settings)
    noted_run(table, tmp_path / "one", settings)
    assert None not in begun.results(), begun.said(0)
    for row, other in zip(rows(tmp_path / "many"), rows(tmp_path / "one"), strict=True):
        assert row == pytest.approx(other, abs=1e-5)
    assert json.loads((tmp_path / "many/summary.json").read_text())["val_samples"] == 7


def test_the_best_epoch_is_that_of_the_highest_map(table: Path, train_tiny: Train) -> None:
    result = train_tiny(settings={**SPACE, "train.epochs": 4}, data=table)
    summary, history = result.summary, result.summary["history"]
    maps = [row["val_map"] for row in history]
    assert (summary["best_by"], summary["best_epoch"]) == ("map", maps.index(max(maps)))
    assert summary["best_val_map"] == max(maps)
    assert RunFolder(result.folder).open().eval.best == "map"  # as a resumed run has it
    best = history[summary["best_epoch"]]
    assert [summary[key] for key in ("micro_f1", "macro_f1", "best_val_acc")] == [
        best[f"val_{key}"] for key in ("micro_f1", "macro_f1", "acc")
    ]
    assert [row["name"] for row in summary["per_class"]] == [*NAMES]
    assert sum(summary["data"]["halves"]["val"]) == sum(row["support"] for row in summary["per_class"])
    assert "confusion" not in summary
    report = (result.folder / "best/config.json").read_text()
    assert json.loads(report)["threshold"] == 0.5


def test_what_asks_for_the_other_kind_of_labels_is_refused(
    table: Path, photo_folder: Callable[..., Path], train_tiny: Train, tmp_path: Path
) -> None:
    two = photo_folder({"a": 4, "b": 4}, name="two")
    with pytest.raises(UserError, match=r"eval.best=map: \S+two has one label a photo; use accuracy, macr"):
        train_tiny("none", {"eval.best": "map"}, two)
    with pytest.raises(UserError, match=r"tune: \S+tags.csv has several labels a photo, and the search comp"):
        ff.tune(table, out=tmp_path / "tuned", settings=SPACE)
    several = train_tiny("several", {**SPACE, "train.epochs": 1}, table).folder
    one = train_tiny("one", {"train.epochs": 1}, two).folder
    with pytest.raises(UserError, match=r"two: one label a photo, and the model gives several; see data."):
        ff.evaluate(several, two, device="cpu")
    with pytest.raises(UserError, match=r"tags.csv: several labels a photo, and the model gives one; see"):
        ff.evaluate(one, table, device="cpu", options=ff.DataConfig(label_separator=" "))
    spaced = ff.DataConfig(label_separator=" ")
    for run, data, options in ((several, table, spaced), (one, table, spaced), (several, two, None)):
        with pytest.raises(UserError, match=r"scan --run \S+: \S+ has several labels a photo, and confident"):
            ff.scan(data, run=run, options=options, device="cpu")
    with pytest.raises(UserError, match=r"eval.threshold=0.3: the model gives a photo one label, the most"):
        ff.load_run(one, "cpu").at(ff.EvalConfig(threshold=0.3))
    change_last(several, lambda state: state["progress"]["label_scores"].pop("hits"))
    with pytest.raises(UserError, match=r"does not fit this run \('hits'\); start a new run"):
        train_tiny("several", resume=True, settings={"train.epochs": 2})


def test_a_trained_model_from_python(table: Path, has: np.ndarray, train_tiny: Train, tmp_path: Path) -> None:
    halves = cells(tmp_path / "tags.csv", has).read_text().splitlines()
    rows = zip(halves, ["split", *["train"] * 24, *["val"] * 6, *["test"] * 6], strict=True)
    table.write_text("".join(f"{row},{half}\n" for row, half in rows))
    result = train_tiny(settings={**SPACE, "train.epochs": 6, "eval.threshold": 0.4}, data=table)
    figures = ff.evaluate(result.folder, table, half="test", device="cpu")  # read as the run has read it
    assert (figures["samples"], figures["threshold"]) == (6, 0.4)
    assert result.summary["test_map"] == pytest.approx(figures["map"])
    assert result.summary["test_acc"] == pytest.approx(figures["accuracy"])
    trained = ff.load_run(result.folder, "cpu")
    assert (trained.multilabel, trained.threshold) == (True, 0.4)
    (answer,) = trained.predict(tmp_path / "photos/07.jpg", top_k=2)
    chances = dict(answer.top)
    assert answer.labels is not None
    assert len(chances) == 2
    assert [name for name, chance in answer.top if chance >= 0.4] == list(answer.labels[:2])
    lower = trained.at(ff.EvalConfig(threshold=1e-6)).predict(tmp_path / "photos/00.jpg", top_k=1)[0]
    assert lower.labels is not None
    assert {*lower.labels} == {*NAMES}
    by_column = flags(tmp_path / "flags.csv", has)
    again = ff.evaluate(result.folder, by_column, device="cpu", options=ff.DataConfig(label_columns="*"))
    assert (again["samples"], again["classes"]) == (36, [*NAMES])


def test_figures_are_of_the_classes_that_were_asked_for(
    table: Path, has: np.ndarray, train_tiny: Train, tmp_path: Path
) -> None:
    """What a table says nothing of is not counted as not there."""
    run = train_tiny(settings={**SPACE, "train.epochs": 1}, data=table).folder
    rows = {row["name"]: row for row in ff.evaluate(run, table, device="cpu")["per_class"]}
    part = flags(tmp_path / "part.csv", has[:, [2, 0]], ("red", "blue"))
    by_columns = ff.DataConfig(label_columns=("red", "blue"), label_separator=None)
    of_cells = ff.DataConfig(label_separator=" ", classes=["red", "blue"])
    for data, options in ((part, by_columns), (table, of_cells)):
        figures = ff.evaluate(run, data, device="cpu", options=options)
        assert figures["classes"] == ["blue", "red"]
        assert figures["per_class"] == [rows["blue"], rows["red"]]
        assert figures["macro_f1"] == pytest.approx((rows["blue"]["f1"] + rows["red"]["f1"]) / 2)
        right = [ff.load_run(run, "cpu").predict(tmp_path / f"photos/{n:02d}.jpg")[0] for n in range(36)]
        given = np.array([[name in (one.labels or ()) for name in ("blue", "red")] for one in right])
        assert figures["accuracy"] == pytest.approx((given == has[:, [0, 2]]).mean())
