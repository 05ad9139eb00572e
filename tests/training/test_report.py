"""The page of a run: right numbers, robust against odd names, self-contained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from flowerfast.errors import UserError
from flowerfast.training.calibration import Answers
from flowerfast.training.figures import CONFUSION_PNG, CURVES_PNG, plot_curves
from flowerfast.training.report import write_report
from flowerfast.training.scores import classification_report
from tests.training.reports import HOSTILE, Page, make_history, make_run


def test_classification_report_by_hand() -> None:
    # "c" has no samples and is never predicted: all its denominators are zero.
    report = classification_report(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert report["accuracy"] == pytest.approx(5 / 8)
    assert report["macro_f1"] == pytest.approx((2 / 3 + 4 / 7 + 0) / 3)
    expected = [
        {"name": "a", "precision": 3 / 5, "recall": 3 / 4, "f1": 2 / 3, "support": 4},
        {"name": "b", "precision": 2 / 3, "recall": 1 / 2, "f1": 4 / 7, "support": 4},
        {"name": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    ]
    assert report["per_class"] == [pytest.approx(row) for row in expected]
    json.dumps(report)  # plain Python numbers only


def test_classification_report_without_samples_is_zero() -> None:
    report = classification_report(np.zeros((2, 2), dtype=np.int64), ["a", "b"])
    assert (report["accuracy"], report["macro_f1"]) == (0.0, 0.0)


def test_report_is_one_self_contained_escaped_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r<i>un")
    red, _ = (run / CURVES_PNG).read_bytes(), (run / CONFUSION_PNG).unlink()
    out = write_report(run)
    assert (run / CURVES_PNG).read_bytes() == red  # what is there is not drawn anew
    assert (run / CONFUSION_PNG).is_file()
    assert out == run / "report.html"
    page = Page(out)
    assert not page.addresses
    assert not {"link", "iframe", "img", "i", "b"} & set(page.tags)
    assert page.tags.count("script") == 1  # that which sorts tables
    assert HOSTILE in page.texts
    assert "roses/<b>x</b>\\x1b\\xff.jpg" in page.texts
    assert "http:" not in (source := out.read_text(encoding="utf-8"))
    assert "https:" not in source
    assert "url(" not in source


def test_report_has_the_figures_of_the_run(tmp_path: Path) -> None:
    texts = Page(write_report(make_run(tmp_path / "run"))).texts
    for expected in (
        *("87.5%", "in epoch 2", "1,234", "2.1%", "stopped early, 4 min 07 s"),
        *("cpu", "no CUDA device & no DALI", "train: lr: 0.001 # a < b", "2.9.1"),
        *("88.9%", "80.0%", "84.2%"),  # precision 8/9, recall 8/10, F1 16/19 of the daisy
        *("Skipped files (1)", "Most frequent mistakes", "Photos"),
    ):
        assert expected in texts, expected
    assert texts.count("Recall") == 1
    assert not any("upport" in text for text in texts)
    assert any("resnet18, 11,179,077 parameters" in text for text in texts)


def said(run: Path) -> str:
    """The text of a run's page, every gap one space."""
    return " ".join(" ".join(Page(write_report(run)).texts).split())


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "cpu"),  # of an earlier version
        ({"optimizer": "sgd"}, "cpu · sgd"),
        ({"optimizer": "adamw", "ema": 0.99}, "cpu · adamw, average of the weights (0.99)"),
    ],
)
def test_report_says_what_trained_it(tmp_path: Path, changes: dict[str, Any], end: str) -> None:
    texts = Page(write_report(make_run(tmp_path / "run", **changes))).texts
    assert any(text.endswith(f"validation photos · {end}") for text in texts)


def test_charts_follow_the_colours_of_the_page(tmp_path: Path) -> None:
    """Light, dark and print: colours stand in CSS variables alone, never in a chart."""
    source = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    style, body = source.split("</style>")
    assert body.count("<svg") == 4
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgb\(|(fill|stroke|color)=", body)
    light, dark, paper = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for name in ("page", "ink", "train", "val", "shade", "on-shade"):
        colours = [re.findall(rf"--{name}: (.*?);", block) for block in (light, dark, paper)]
        assert all(colours), name
        assert colours[0] != colours[1], name


def test_one_epoch_is_a_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", best_epoch=0)
    (run / "metrics.jsonl").write_text(json.dumps(make_history([0.5])[0]) + "\n")
    assert "One epoch so far: training accuracy 60.0% and loss 0.9000, validation accuracy 50.0% and" in said(
        run
    )
    assert "<svg" not in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("train_acc", "protocol", "told"),
    [(0.6, "clean", "on augmented photos, with dropout"), (0.6, "augmented", "it is taken with dropout"),
     (0.875, "clean", None), (0.9, "clean", None)],
)  # fmt: skip
def test_training_accuracy_below_validation_is_explained_where_it_is_so(
    tmp_path: Path, train_acc: float, protocol: str, told: str | None
) -> None:
    """Of the best epoch, which is the second here."""
    run = make_run(tmp_path / "run", val_protocol=protocol)
    rows = [row | {"train_acc": train_acc} for row in make_history([0.8, 0.875, 0.85])]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = said(run)
    assert ("Training accuracy lies below validation accuracy" in text) == (told is not None)
    assert told is None or told in text
    assert ("photos as they are" in text) == (told is not None and protocol == "clean")


def test_interval_calibration_and_the_paper_are_shown_where_a_run_has_them(tmp_path: Path) -> None:
    logits, labels = torch.tensor([[2.0, 0], [1, 0], [0, 3], [0, 1]]), torch.tensor([0, 1, 1, 1])
    confidence, predicted = logits.softmax(1).max(1)
    found = labels.numpy(), predicted.numpy(), confidence.numpy(), confidence.numpy(), np.arange(4)
    answers = Answers(*found, logits)
    calibration = answers.calibration()
    assert calibration.temperature is not None
    assert calibration.scaled_loss is not None
    figures: dict[str, Any] = {"figure": "best validation accuracy", "paper": "93.3%", "augmented": None}
    changes = {
        "accuracy_interval": [0.8, 0.93],
        "calibration": calibration.to_json(),
        "reference": [{**figures, "clean": "94.1%"}],
        "best_by": "loss",
    }
    plain = make_run(tmp_path / "plain")
    source = write_report(run := make_run(tmp_path / "run", **changes)).read_text(encoding="utf-8")
    text = said(run)
    for expected in (
        "Validation accuracy 87.5% in epoch 2 the best by loss 95% interval 80.0% to 93.0%",
        "This run, clean best validation accuracy 93.3% – 94.1%",
        f"Expected calibration error {calibration.ece:.1%}",
        f"divided by {calibration.temperature:.3f}, the temperature fitted on these same photos",
        "1 photos: confidence 88.1%, accuracy 100.0%",
    ):
        assert expected in text, expected
        assert expected not in said(plain)
    assert source.count("<svg") == 5
    assert source.count('class="bar"') == 3
    without = Answers(*found, None).calibration().to_json()
    assert "No temperature: more than 16,777,216 logits" in said(
        make_run(tmp_path / "w", calibration=without)
    )


def test_augmented_validation_has_lines_and_columns_of_its_own(drawn: list[Figure], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", best_val_aug_acc=0.8)
    rows = [row | {"val_aug_acc": 0.8, "val_aug_loss": 0.5} for row in make_history([0.8, 0.875, 0.85])]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = said(run)
    assert "on augmented photos 80.0%" in text
    assert "Aug. loss Aug. acc." in text
    assert (run / "report.html").read_text(encoding="utf-8").count('<g class="val augmented">') == 2
    plot_curves(rows, tmp_path / "c.png", best_epoch=2)
    names = [text.get_text() for text in drawn[-1].legends[0].get_texts()]
    assert names == ["training", "validation", "validation, augmented", "best: 85.0% in epoch 3"]


def test_test_accuracy_is_shown_where_there_is_one(tmp_path: Path) -> None:
    assert "Test accuracy" not in said(make_run(tmp_path / "without"))
    assert "Test accuracy" not in said(make_run(tmp_path / "none", test_acc=None, test_samples=0))
    text = said(make_run(tmp_path / "with", test_acc=0.912, test_samples=1055))
    assert "Test accuracy 91.2% of 1,055 photos of test/" in text


@pytest.mark.parametrize(
    ("count", "tables", "svgs"), [(1, 1, 4), (30, 1, 4), (31, 0, 5), (200, 0, 5), (201, 0, 4)]
)
def test_a_matrix_of_any_number_of_classes(tmp_path: Path, count: int, tables: int, svgs: int) -> None:
    classes = [f"{HOSTILE} {i}" if i % 2 else "long " * 60 + str(i) for i in range(count)]
    confusion = np.eye(count, dtype=np.int64)
    confusion[0, -1] += 2
    scores = classification_report(confusion, classes)["per_class"]
    run = make_run(tmp_path / "run", classes=classes, confusion=confusion.tolist(), per_class=scores)
    page = Page(write_report(run))
    source = (run / "report.html").read_text(encoding="utf-8")
    assert (source.count('<table class="matrix'), page.tags.count("svg")) == (tables, svgs)
    assert page.tags.count("script") == 1
    assert ("details" in page.tags) == (count > 30)
    assert any("too many classes to draw" in text for text in page.texts) == (count > 200)
    assert len(source) < 400_000


@pytest.mark.parametrize("bad_files", [[], None])
def test_report_without_bad_files_has_no_such_section(bad_files: list[Any] | None, tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", bad_files=bad_files)))
    assert not any("Skipped" in text for text in page.texts)


def test_report_marks_the_best_epoch_only(tmp_path: Path) -> None:
    source = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert source.count('class="best"') == 1
    assert '<tr class="best"><td>2</td>' in source


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", None, r"summary\.json \(No such file or directory\): give the folder"),
        ("summary.json", "{", r"summary\.json is damaged"),
        ("summary.json", "[]", r"summary\.json is damaged \(not a JSON object\)"),
        ("summary.json", "{}", r"lacks a value \('classes'\)"),
        ("metrics.jsonl", "\n", r"metrics\.jsonl has no epoch yet"),
        ("metrics.jsonl", '{"epoch": 0', r"metrics\.jsonl is damaged"),
        ("metrics.jsonl", '{"epoch": 0}', r"lacks a value"),
        ("config.yaml", None, r"cannot read .*config\.yaml"),
    ],
)
def test_incomplete_run_folder_is_one_clear_line(
    file: str, content: str | None, message: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)


def test_missing_headline_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="best_val_acc"):
        write_report(make_run(tmp_path / "run", best_val_acc=None))


def test_of_very_many_classes_the_most_frequent_mistakes_are_shown(
    drawn: list[Figure], tmp_path: Path
) -> None:
    classes = [f"kind {i}" for i in range(5000)]
    places = np.arange(200)
    true, predicted = np.concatenate([places, [7]]), np.concatenate([places, [4999]])
    confusion = {"true": true.tolist(), "predicted": predicted.tolist(), "count": [3] * 200 + [9]}
    run = make_run(tmp_path / "run", classes=classes, confusion=confusion)
    (run / CONFUSION_PNG).unlink()
    texts = Page(write_report(run)).texts
    assert "kind 4999" in texts
    assert "75.0%" in texts  # 9 of the 12 of kind 7
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kind 7 → kind 4999"]
    assert axes.get_title() == "98.5% of 609 photos right; most frequent mistakes"
