"""A run of several labels a photo for other programs: sigmoid inside, the threshold beside it, and a card."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import flowerfast as ff
from flowerfast.exporting.card import model_card
from flowerfast.exporting.export import export
from flowerfast.exporting.source import Summary, read_source
from tests.conftest import make_photo
from tests.training.saved_run import CLASSES, save_run

SCRIPT = Path(ff.__file__).parent / "exporting/templates/use_onnx.txt"


def test_probabilities_of_a_file_are_those_of_predict(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    save_run(tmp_path / "run", threshold=0.25)
    exported = export(tmp_path / "run", tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["threshold"] == "0.25"
    trained = ff.load_run(tmp_path / "run", "cpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    (chances,) = session.run(None, {"images": images})
    with torch.inference_mode():
        assert chances == pytest.approx(trained.model(torch.from_numpy(images)).sigmoid().numpy(), abs=1e-4)
    assert exported.checked is not None
    for folder in ("a", "b"):
        (tmp_path / "folders" / folder).mkdir(parents=True)
        make_photo(tmp_path / "folders" / folder / "0.jpg", (60, 50))
    checked = export(tmp_path / "run", tmp_path / "again", data=tmp_path / "folders").checked
    assert checked is not None
    assert checked.on == "photos of folders"
    photo = make_photo(tmp_path / "photo.jpg", (60, 50))
    (answer,) = trained.predict(photo)
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT.read_text(), tmp_path / "out/model.onnx", photo],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert answer.labels
    assert {*said[1::2]} == {*answer.labels}
    card = (tmp_path / "out/README.md").read_text()
    assert "Normalisation and sigmoid are inside." in card
    assert "of which a photo may have several, or none" in card


def test_the_card_gives_the_figures_of_labels(tmp_path: Path) -> None:
    save_run(tmp_path / "run", threshold=0.5)
    source = read_source(tmp_path / "run")
    scores = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 4}
    each = zip(CLASSES, (0.9, None, 0.1), strict=True)
    rows = [{"name": name, **scores, "average_precision": average} for name, average in each]
    summary = Summary(
        classes=[*CLASSES], best_epoch=0, best_val_acc=0.75, best_val_map=0.625, epochs_run=1,
        train_samples=9, val_samples=4, per_class=rows, macro_f1=0.5, micro_f1=0.375, threshold=0.5,
        test_acc=0.25, test_map=0.875, test_samples=3,
    )  # fmt: skip
    card = model_card(replace(source, summary=summary), "safetensors", None)
    assert "| validation, clean | 62.5% | 75.0% | 4 photos |" in card
    assert "| test, asked once at the end | 87.5% | 25.0% | 3 photos |" in card
    assert "50.0% (macro), 37.5% (micro)" in card
    assert "| daisy | 90.0% | 50.0% | 50.0% | 50.0% | 4 |\n| rose | – | 50.0%" in card
    assert "value: 0.875" in card
    assert ".sigmoid()[0]" in card
