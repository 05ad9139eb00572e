"""The ONNX file: what it takes, gives and says, and what happens where torch or the format refuses."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from flowerfast.errors import RunFailed, UserError
from flowerfast.exporting import onnx_file
from flowerfast.exporting.check import check_onnx
from flowerfast.exporting.onnx_file import check_packages, onnx_bytes
from flowerfast.exporting.source import read_source
from flowerfast.training.trained import load_run
from tests.exporting.conftest import NAMES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def test_pixels_go_in_and_probabilities_come_out(made: Path, onnx_content: bytes) -> None:
    model = onnx.load_from_string(onnx_content)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert model.producer_name == "flowerfast"
    session = onnxruntime.InferenceSession(onnx_content, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 3, 40, 40])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    trained, draw = load_run(made / "run", "cpu"), np.random.default_rng(1)
    for count in (1, 7):
        images = draw.integers(0, 256, (count, 3, 40, 40), dtype=np.uint8)
        (chances,) = session.run(None, {"images": images})
        assert chances.sum(1) == pytest.approx(1, abs=1e-5)
        predicted = trained.predict([torch.from_numpy(image) for image in _enlarged(images)])
        assert len(predicted) == count
        with torch.inference_mode():
            both = [trained.model(torch.from_numpy(i.copy())).softmax(1) for i in (images, images[..., ::-1])]
        assert chances == pytest.approx(((both[0] + both[1]) / 2).numpy(), abs=1e-5)


def _enlarged(images: np.ndarray) -> np.ndarray:
    return images.repeat(2, 2).repeat(2, 3)


def test_its_metadata_say_what_photos_need(onnx_content: bytes) -> None:
    session = onnxruntime.InferenceSession(onnx_content, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == [*NAMES]
    assert (about["image_size"], about["resize"], about["exif"], about["flip"]) == (
        "40",
        "46",
        "apply",
        "true",
    )
    assert "".join(about.values()).isascii()


def test_a_file_that_answers_otherwise_is_found_out(made: Path, onnx_content: bytes) -> None:
    trained = load_run(made / "run", "cpu")
    images = [np.random.default_rng(n).integers(0, 256, (n, 3, 40, 40), dtype=np.uint8) for n in (7, 2)]
    checked = check_onnx(onnx_content, trained, images, "images", 9)
    assert (checked.photos, checked.difference < 1e-6) == (9, True)
    with torch.no_grad():
        cast(Any, trained.model.network).get_classifier().bias[0] += 1e-3
    with pytest.raises(
        RunFailed, match=r"does not answer as PyTorch does on 9 images: .* differ by up to \d"
    ):
        check_onnx(onnx_content, trained, images, "images", 9)
    with pytest.raises(RunFailed, match="onnxruntime cannot run the ONNX file on 1 images"):
        check_onnx(onnx_content, trained, [images[0][..., :39]], "images", 7)
    with pytest.raises(RunFailed, match="onnxruntime does not take the ONNX file"):
        check_onnx(onnx_content[:999], trained, images, "images", 9)


def test_what_cannot_be_exported_is_said_in_one_line(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_source(made / "run")

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RunFailed, match=r"^test_resnet: .* \(no such operator\); give --format safetensors$"):
        onnx_bytes(source)
    monkeypatch.setattr(onnx_file, "_LARGEST", 1000)
    with pytest.raises(UserError, match="bytes of weights, and an ONNX file holds 2 GiB"):
        onnx_bytes(source)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError) as caught:
        check_packages()
    assert str(caught.value) == '--format onnx: onnxscript not installed; pip install "flowerfast[onnx]"'
