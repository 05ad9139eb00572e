"""A trained run at work: loaded, photos of all kinds predicted, folders evaluated."""

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image, ImageOps
from torch import nn

from flowerfast.config import DataConfig, Exif, ModelConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.training.model import build_network, with_normalisation
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.scores import Confusion
from flowerfast.training.split_file import write_split
from flowerfast.training.trained import TrainedModel, evaluate, load_run

Write = Callable[..., Path]
CLASSES = ("daisy", "rose", "tulip")


def save_run(path: Path, classes: Sequence[str] = CLASSES, exif: Exif = "apply") -> nn.Module:
    """A run folder with a best model of random weights, whose answers differ from photo to photo."""
    torch.manual_seed(0)
    network = build_network(ModelConfig(name="test_resnet", pretrained=False), classes, 32, 0.8)
    network.eval()
    head = network.get_classifier()
    with torch.no_grad():
        blotches = nn.functional.interpolate(torch.rand(32, 3, 5, 7) * 2 - 1, (32, 32), mode="bicubic")
        features = network.forward_head(network.forward_features(blotches), pre_logits=True)
        head.weight.copy_(torch.randn(head.weight.shape) / features.std())
        head.bias.copy_(-head.weight @ features.mean(0))  # so that no class wins always
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    folder.save_epoch(0, network.state_dict(), None)
    folder.save_best(network, classes, 0, exif)
    return network


@pytest.fixture
def network(tmp_path: Path) -> nn.Module:
    return save_run(tmp_path / "run")


@pytest.fixture
def trained(network: nn.Module, tmp_path: Path) -> TrainedModel:
    return load_run(tmp_path / "run", "cpu")


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
        assert [prediction.top for prediction in together] == [expected.top] * len(forms)
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


# --------------------------------------------------------------------------------------------------- evaluate


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
    with pytest.raises(UserError, match="since the run began"):
        evaluation(tmp_path, other, half="val")
    RunFolder(tmp_path / "run").split.unlink()
    with pytest.raises(UserError, match=r"run/split\.json: not a split that flowerfast wrote"):
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
