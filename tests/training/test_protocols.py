"""Validation as section `eval` has it: on clean and augmented photos, by mirror images, at another size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch

from flowerfast.config import DataConfig, EvalConfig, ModelConfig
from flowerfast.errors import UserError
from flowerfast.training import fit
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.model import build_network, with_normalisation
from flowerfast.training.progress import is_better
from flowerfast.training.run import TrainResult
from flowerfast.training.trained import TrainedModel, load_run
from tests.training.outcomes import STEPS, assert_same, change_last

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]


def test_one_run_validates_on_clean_and_on_augmented_photos(train_tiny: Train, rows: Rows) -> None:
    settings = {"train.epochs": 2, "train.lr": 0.01}
    both, clean, augmented = (
        train_tiny(str(how), {**settings, "eval.augmented": how}) for how in ("both", False, True)
    )
    found = rows(both.folder)
    columns = [{key: row.pop(f"val_aug_{key}") for key in ("loss", "acc")} for row in found]
    assert found == rows(clean.folder)
    assert columns == [{key: row[f"val_{key}"] for key in ("loss", "acc")} for row in rows(augmented.folder)]
    assert columns[0]["loss"] != found[0]["val_loss"]
    best = both.summary["best_epoch"]
    assert (best, both.summary["val_protocol"]) == (clean.summary["best_epoch"], "clean")
    assert both.summary["best_val_aug_acc"] == columns[best]["acc"]
    assert "best_val_aug_acc" not in clean.summary


@pytest.mark.parametrize(
    ("by", "better"), [("accuracy", [1, 0, 0]), ("macro_f1", [0, 1, 0]), ("loss", [0, 0, 1])]
)
def test_what_is_best_is_as_asked_and_equals_do_not_replace_it(by: str, better: list[int]) -> None:
    base = {"val_acc": 0.5, "val_macro_f1": 0.5, "val_loss": 0.5}
    changed = [{**base, "val_acc": 0.6}, {**base, "val_macro_f1": 0.6}, {**base, "val_loss": 0.4}]
    assert [is_better(row, base, by) for row in changed] == better
    assert not is_better(base, base, by)


@pytest.mark.parametrize("by", ["macro_f1", "loss"])
def test_best_and_patience_follow_what_is_asked_for(
    train_tiny: Train, rows: Rows, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    order = iter([False, False])  # the second epoch is no better, nor is the third
    seen = []

    def told(row: dict[str, Any], than: dict[str, Any], asked: str) -> bool:
        seen.append((row["epoch"], than["epoch"], asked))
        return next(order)

    monkeypatch.setattr("flowerfast.training.fit.is_better", told)
    result = train_tiny(settings={"train.epochs": 9, "train.patience": 2, "eval.best": by})
    assert seen == [(1, 0, by), (2, 0, by)]
    summary = result.summary
    assert (summary["best_epoch"], summary["epochs_run"], summary["best_by"]) == (0, 3, by)
    assert summary["best_val_acc"] == rows(result.folder)[0]["val_acc"]
    assert summary["macro_f1"] == rows(result.folder)[0]["val_macro_f1"]


PROTOCOL = {"eval.augmented": "both", "eval.flip": True, "eval.image_size": 48, "eval.best": "macro_f1"}


def test_a_resumed_run_validates_as_if_nothing_had_happened(
    train_tiny: Train, begin: Callable[..., None], outcome: Callable[[Path], dict[str, Any]], run: Path
) -> None:
    whole = train_tiny("undisturbed", PROTOCOL)
    begin(PROTOCOL, STEPS + 3)  # within the validation of the first epoch, or just after
    resumed = train_tiny(resume=True)
    assert_same(outcome(run), outcome(whole.folder))
    for key in ("calibration", "accuracy_interval", "macro_f1_interval", "best_epoch", "confusion"):
        assert resumed.summary[key] == whole.summary[key]
    assert resumed.summary["calibration"]["ece"] >= 0
    trained = load_run(run, "cpu")
    assert (trained.image_size, trained.flip) == (48, True)
    network = timm.create_model(f"local-dir:{run / 'best'}", pretrained=True)
    assert timm.data.resolve_data_config(network.pretrained_cfg)["input_size"] == (3, 48, 48)
    with pytest.raises(UserError, match=r"^eval\.flip=False: the run began with True"):
        train_tiny(resume=True, settings={"eval.flip": False})
    report = evaluate(run, run.parent / "photos", half="val", device="cpu", options=DataConfig(workers=1))
    assert report["accuracy"] == pytest.approx(whole.summary["best_val_acc"])
    assert report["macro_f1"] == pytest.approx(whole.summary["macro_f1"])
    assert report["calibration"]["ece"] == pytest.approx(whole.summary["calibration"]["ece"], abs=1e-5)
    assert (report["image_size"], report["flip"]) == (48, True)


def test_a_run_of_an_earlier_version_goes_on(
    train_tiny: Train, begin: Callable[..., None], run: Path
) -> None:
    def forget(state: dict[str, Any]) -> None:
        del state["progress"]["calibration"]
        for row in state["progress"]["history"]:
            del row["val_macro_f1"]

    begin(steps=2 * STEPS)
    change_last(run, forget)
    result = train_tiny(resume=True, plots=True)
    assert "val_macro_f1" not in result.summary["history"][0]
    assert "val_macro_f1" in result.summary["history"][1]
    assert (result.folder / "report.html").is_file()


# ---------------------------------------------------------------------------- a trained model asked otherwise


def test_a_model_is_asked_as_the_given_fields_say(trained: TrainedModel) -> None:
    assert trained.at(EvalConfig()) == trained
    other = trained.at(EvalConfig(image_size=64, crop_pct=1.0, flip=True))
    assert (other.image_size, other.crop_pct, other.flip) == (64, 1.0, True)
    assert trained.at(EvalConfig(image_size=None, crop_pct=None)) == trained
    with pytest.raises(UserError, match=r"^at: protocol=5: give ff\.EvalConfig"):
        trained.at(cast(EvalConfig, 5))


def test_with_flip_a_photo_and_its_mirror_image_give_one_answer(trained: TrainedModel) -> None:
    photo = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    one, other = (dict(answer.top) for answer in trained.predict([photo, mirrored]))
    flipped = dict(trained.at(EvalConfig(flip=True)).predict(photo)[0].top)
    assert one != pytest.approx(other, abs=1e-4)
    assert flipped == pytest.approx({name: (one[name] + other[name]) / 2 for name in one}, abs=1e-5)


def test_an_evaluation_agrees_with_predictions_asked_the_same_way(
    trained: TrainedModel, tmp_path: Path, photo_folder: Callable[..., Path]
) -> None:
    root = photo_folder(sizes=((50, 40), (44, 70)))
    protocol = EvalConfig(image_size=48, crop_pct=1.0, flip=True)
    report = evaluate(tmp_path / "run", root, device="cpu", options=DataConfig(workers=1), protocol=protocol)
    model = trained.at(protocol)
    right, confidence = 0, []
    for file in sorted(root.rglob("*.jpg")):
        name, chance = model.predict(file)[0].top[0]
        right += name == file.parent.name
        confidence.append(chance)
    assert report["accuracy"] == pytest.approx(right / 15)
    bins = report["calibration"]["bins"]
    assert sum(one["count"] * one["confidence"] for one in bins) == pytest.approx(sum(confidence), abs=1e-4)
    assert (report["image_size"], report["crop_pct"], report["flip"]) == (48, 1.0, True)


def test_a_size_that_a_network_does_not_take_is_refused() -> None:
    settings, classes = ModelConfig(name="vit_tiny_patch16_224", pretrained=False), ("a", "b")
    with pytest.raises(
        UserError, match=r"^eval\.image_size=64: vit_tiny_patch16_224 does not take"
    ) as caught:
        build_network(settings, classes, 32, 0.875, eval_size=64)
    assert "\n" not in str(caught.value)
    model = with_normalisation(build_network(settings, classes, 32, 0.875, eval_size=32))
    trained = TrainedModel(model, classes, 32, 0.875, torch.device("cpu"), "apply")
    with pytest.raises(UserError, match=r"^eval\.image_size=64: the model does not take such images"):
        trained.at(EvalConfig(image_size=64))


def test_the_loss_of_augmented_validation_must_be_a_number_too(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = fit.validate

    def spoilt(run: Any, loader: Any) -> Any:
        result = validate(run, loader)
        if loader is run.augmented_loader:
            object.__setattr__(result, "loss", float("nan"))
        return result

    monkeypatch.setattr(fit, "validate", spoilt)
    with pytest.raises(RuntimeError, match=r"^epoch 1: the validation loss is nan"):
        train_tiny(settings={"eval.augmented": "both"})
