"""A trained run at work: loaded, photos of all kinds predicted."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image, ImageOps
from torch import nn

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.model import with_normalisation
from flowerfast.training.trained import TrainedModel, load_run
from tests.training.saved_run import CLASSES, save_run

Write = Callable[..., Path]


# --------------------------------------------------------------------------------------------------- load_run


def test_trained_model_is_the_saved_one(network: nn.Module, trained: TrainedModel) -> None:
    assert (trained.classes, trained.image_size, trained.crop_pct) == (CLASSES, 32, 0.8)
    assert (trained.device, trained.model.training) == (torch.device("cpu"), False)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(trained.model(images), with_normalisation(network).eval()(images))


def test_best_folder_itself_is_taken(network: nn.Module, tmp_path: Path) -> None:
    assert load_run(str(tmp_path / "run/best"), "cpu").classes == CLASSES


def spoil(best: Path, how: str) -> None:
    config, weights = best / "config.json", best / "model.safetensors"
    stored = json.loads(config.read_text())
    if how == "no folder":
        shutil.rmtree(best.parent)
    elif how == "no weights":
        weights.unlink()
    elif how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "junk weights":
        weights.write_bytes(b"x")
    elif how == "half a config":
        config.write_text(config.read_text()[:99])
    elif how == "a list":
        config.write_text("[]")
    elif how == "no classes":
        del stored["label_names"]
        config.write_text(json.dumps(stored))
    else:
        config.write_text(json.dumps({**stored, "architecture": "nosuch"}))


@pytest.mark.parametrize(
    "how",
    ["no folder", "no weights", "cut weights", "junk weights", "half a config", "a list", "no classes",
     "no model"],
)  # fmt: skip
def test_folder_without_a_model(network: nn.Module, tmp_path: Path, how: str) -> None:
    spoil(tmp_path / "run/best", how)
    seen = r"run: no trained model there \(.+\); give the --out folder|damaged, its checksum does not fit"
    with pytest.raises(UserError, match=seen) as caught:
        load_run(tmp_path / "run", "cpu")
    assert "\n" not in str(caught.value)


def test_photo_in_place_of_a_run(tmp_path: Path, write_photo: Write) -> None:
    with pytest.raises(UserError, match="no trained model there"):
        load_run(write_photo(tmp_path / "a.jpg"), "cpu")


# ---------------------------------------------------------------------------------------------------- predict


def test_probabilities_are_the_models_on_the_evaluation_crop(
    network: nn.Module, trained: TrainedModel, tmp_path: Path, write_photo: Write
) -> None:
    photos = [write_photo(tmp_path / f"{i}.png", (50 + 9 * i, 48), seed=i) for i in range(4)]
    found = trained.predict(photos)
    transform = T.Compose([T.Resize(40), T.CenterCrop(32), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    for prediction, photo in zip(found, photos, strict=True):
        assert (prediction.path, prediction.error) == (str(photo), None)
        with torch.inference_mode():
            expected = network(transform(Image.open(photo).convert("RGB"))[None])[0].softmax(0)
        chances = dict(prediction.top)
        assert chances.keys() == set(CLASSES)
        for name, chance in zip(CLASSES, expected.tolist(), strict=True):
            # The resizes differ by a level here and there.
            assert chances[name] == pytest.approx(chance, abs=0.02)
    assert len({prediction.top[0] for prediction in found}) == 4


def test_top_is_sorted_and_sums_to_one(trained: TrainedModel, tmp_path: Path, write_photo: Write) -> None:
    photo = write_photo(tmp_path / "a.jpg")
    (prediction,) = trained.predict([photo], top_k=99)
    chances = [chance for _, chance in prediction.top]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert all(0 <= chance <= 1 for chance in chances)
    for k in (1, 2):
        assert trained.predict(photo, k)[0].top == prediction.top[:k]


def test_one_photo_has_one_answer_in_whatever_form_it_comes(
    trained: TrainedModel, zoo: Path, tmp_path: Path
) -> None:
    for file in sorted(zoo.rglob("*.*")):
        (expected,) = trained.predict([file])
        assert expected.path == str(file)
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            pixels = np.array(upright)
            frozen = np.asarray(upright)  # read-only, as Pillow gives it
            tensor = torch.from_numpy(pixels).permute(2, 0, 1)
            forms: list[Any] = [image, pixels, frozen, tensor, tensor.contiguous()]
            one_by_one = [trained.predict(form) for form in (file, str(file), *forms)]
            together = trained.predict(forms)
        for (prediction,) in one_by_one:
            assert prediction.top == expected.top
        for prediction in together:  # rounded otherwise in a batch
            assert dict(prediction.top) == pytest.approx(dict(expected.top), abs=1e-5)
        assert [prediction.path for prediction in together] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("exif", ["apply", "ignore", None])
def test_photos_are_turned_as_the_run_was_trained(
    tmp_path: Path, turned: tuple[Path, Path], exif: Literal["apply", "ignore"] | None
) -> None:
    save_run(tmp_path / "run", ["a", "b"], exif or "apply")
    config = tmp_path / "run/best/config.json"
    if exif is None:  # of earlier versions
        stored = json.loads(config.read_text())
        del stored["exif"]
        config.write_text(json.dumps(stored))
    trained, apply = load_run(tmp_path / "run", "cpu"), exif == "apply"
    assert trained.exif == (exif or "ignore")
    for file in sorted(turned[0].glob("*/[126]_*")):
        with Image.open(file) as image:
            pixels = np.array((ImageOps.exif_transpose(image) if apply else image).convert("RGB"))
        with Image.open(file) as image:
            forms = trained.predict([file, image, pixels])
        assert len({form.top for form in forms}) == 1, file
    # What the caller says is nothing to an evaluation.
    for options in (None, DataConfig(exif="ignore"), DataConfig(exif="apply")):
        result = evaluate(tmp_path / "run", turned[0], device="cpu", options=options)
        assert result["notes"] == [*Photos(turned[0], exif=trained.exif).notes]
        expected = evaluate(tmp_path / "run", turned[1] if apply else turned[0], device="cpu")
        assert (result["confusion"], result["loss"]) == (expected["confusion"], expected["loss"])


def test_files_that_cannot_be_read_are_named_and_the_rest_predicted(
    trained: TrainedModel, tmp_path: Path, write_photo: Write
) -> None:
    cut, junk, folder = write_photo(tmp_path / "cut.jpg"), tmp_path / "junk.jpg", tmp_path / "folder.jpg"
    cut.write_bytes(cut.read_bytes()[:-80])
    junk.write_text("no photo")
    folder.mkdir()
    huge, good = write_photo(tmp_path / "huge.png", (101, 100)), write_photo(tmp_path / "good.jpg")
    files = [cut, junk, huge, tmp_path / "gone.jpg", folder, good]
    found = trained.predict(files, top_k=1, max_pixels=10_000)
    assert [prediction.path for prediction in found] == list(map(str, files))
    errors = [prediction.error for prediction in found]
    assert "truncated" in str(errors[0])
    assert errors[1:] == [
        "not an image",
        "101x100 pixels, more than data.max_pixels=10000",
        "No such file or directory",
        "Is a directory",
        None,
    ]
    assert [len(prediction.top) for prediction in found] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("what", "shape"),
    [(np.zeros((4, 5), np.uint8), r"\(4, 5\)"), (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\)"),
     (np.zeros((4, 5, 3)), r"\(4, 5, 3\)"), (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
     (np.zeros((2, 4, 5, 3), np.uint8), r"\(2, 4, 5, 3\)"), (torch.zeros(3, 4, 5), r"\(3, 4, 5\)"),
     (torch.zeros(3, 4, 5, dtype=torch.bfloat16, requires_grad=True), r"\(3, 4, 5\)"),
     (torch.zeros(4, 5, 3, dtype=torch.uint8), r"\(4, 5, 3\)"),
     (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), r"\(2, 3, 4, 5\)"), (3, r"\(\)"), (None, r"\(\)")],
)  # fmt: skip
def test_what_is_no_photo_is_refused(trained: TrainedModel, what: Any, shape: str) -> None:
    for given in (what, [what]):
        with pytest.raises(
            UserError, match=rf"^predict: {type(what).__name__} of shape {shape} is no photo; give a path"
        ) as caught:
            trained.predict(given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raised", [RuntimeError("a\nb"), struct.error("short"), MemoryError()])
def test_an_image_that_cannot_be_decoded_is_an_answer_like_a_file_that_cannot(
    trained: TrainedModel, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    image = Image.new("RGB", (40, 30))

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(image, "convert", fail)
    broken, whole = trained.predict([image, Image.new("RGB", (40, 30))])
    assert (broken.path, broken.top) == ("0", ())
    assert broken.error is not None
    assert "\n" not in broken.error
    assert whole.error is None


@pytest.mark.parametrize("size", [(3_000_000, 1), (1, 3_000_000), (1300, 60_000)])
def test_long_pixels_are_predicted_by_their_middle(trained: TrainedModel, size: tuple[int, int]) -> None:
    pixels = np.broadcast_to(np.uint8([200, 100, 50]), (size[1], size[0], 3))
    square = trained.prepare(np.ascontiguousarray(pixels))
    assert (square == torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None]).all()


def test_no_photos_have_no_predictions(trained: TrainedModel) -> None:
    assert trained.predict([]) == []
