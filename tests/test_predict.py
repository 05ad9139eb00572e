"""A trained run at work: photos found, classes predicted, folders evaluated."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image
from torch import nn

from flowerfast.checkpoint import RunFolder
from flowerfast.config import DataConfig, ModelConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.data.split import Split, make_split, write_split
from flowerfast.errors import UserError
from flowerfast.model import build_network, with_normalisation
from flowerfast.predict import Trained, evaluate_run, find_photos, load_trained, predict

CPU = torch.device("cpu")
CLASSES = ("daisy", "rose", "tulip")
SETTINGS = DataConfig(workers=2, backend="torchvision")


def save_run(path: Path, classes: Sequence[str] = CLASSES) -> nn.Module:
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
    folder.save_best(network, classes, 0)
    return network


@pytest.fixture
def network(tmp_path) -> nn.Module:
    return save_run(tmp_path / "run")


@pytest.fixture
def trained(network, tmp_path) -> Trained:
    return load_trained(tmp_path / "run", CPU)


# ------------------------------------------------------------------------------------------- load_trained


def test_trained_model_is_the_saved_one(network, trained):
    assert (trained.classes, trained.image_size, trained.crop_pct) == (CLASSES, 32, 0.8)
    assert not trained.model.training
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(trained.model(images), with_normalisation(network).eval()(images))


def test_best_folder_itself_is_taken(network, tmp_path):
    assert load_trained(tmp_path / "run" / "best", CPU).classes == CLASSES


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
    [
        "no folder",
        "no weights",
        "cut weights",
        "junk weights",
        "half a config",
        "a list",
        "no classes",
        "no model",
    ],
)
def test_folder_without_a_model(network, tmp_path, how):
    spoil(tmp_path / "run" / "best", how)
    with pytest.raises(
        UserError, match=r"run: no trained model there \(.+\); give the --out folder"
    ) as caught:
        load_trained(tmp_path / "run", CPU)
    assert "\n" not in str(caught.value)


def test_photo_in_place_of_a_run(tmp_path, write_photo):
    with pytest.raises(UserError, match="no trained model there"):
        load_trained(write_photo(tmp_path / "a.jpg"), CPU)


# -------------------------------------------------------------------------------------------- find_photos


@pytest.fixture
def shelf(tmp_path, write_photo) -> Path:
    root = tmp_path / "shelf"
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "deep/d.jpeg"):
        write_photo(root / name)
    (root / "deep" / "notes.txt").write_text("no photo")
    (root / "empty").mkdir()
    (root / "folder.jpg").mkdir()
    return root


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("b.jpg", ["b.jpg"]), ("", ["a.PNG", "b.jpg", "deep/d.jpeg", "deep/er/c.webp"]),
     ("deep", ["deep/d.jpeg", "deep/er/c.webp"]), ("*.jpg", ["b.jpg"]), ("?.*", ["a.PNG", "b.jpg"]),
     ("**/*.jp*g", ["b.jpg", "deep/d.jpeg"]), ("deep/*", ["deep/d.jpeg"]),
     ("deep/notes.txt", ["deep/notes.txt"])],
)  # fmt: skip
def test_files_folders_and_globs(shelf, argument, expected):
    assert find_photos([os.path.join(shelf, argument)]) == [shelf / name for name in expected]


def test_arguments_keep_their_order(shelf):
    found = find_photos([str(shelf / "deep"), str(shelf / "b.jpg"), str(shelf / "a*")])
    assert [p.name for p in found] == ["d.jpeg", "c.webp", "b.jpg", "a.PNG"]


def test_name_with_brackets_is_a_file_first(tmp_path, write_photo):
    photo = write_photo(tmp_path / "rose [1].jpg")
    assert find_photos([str(photo)]) == [photo]


@pytest.mark.parametrize(
    ("argument", "what"),
    [("empty", "no photos in this folder"), ("absent.jpg", "no such file, folder or pattern"),
     ("*.gif", "no such file, folder or pattern"), ("deep/*.txt", "no such file, folder or pattern")],
)  # fmt: skip
def test_nothing_found(shelf, argument, what):
    with pytest.raises(UserError, match=what) as caught:
        find_photos([str(shelf / "b.jpg"), str(shelf / argument)])
    assert str(shelf / argument) in str(caught.value)
    assert ".webp" in str(caught.value)


# ------------------------------------------------------------------------------------------------ predict


def test_probabilities_are_the_models_on_the_evaluation_crop(network, trained, tmp_path, write_photo):
    photos = [write_photo(tmp_path / f"{i}.png", (50 + 9 * i, 48), seed=i) for i in range(4)]
    found, bad = predict(trained, photos, 3, 10**6)
    assert not bad
    transform = T.Compose([T.Resize(40), T.CenterCrop(32), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    for prediction, photo in zip(found, photos, strict=True):
        assert prediction.path == str(photo)
        with torch.inference_mode():
            expected = network(transform(Image.open(photo).convert("RGB"))[None])[0].softmax(0)
        chances = dict(prediction.top)
        assert chances.keys() == set(CLASSES)
        for name, chance in zip(CLASSES, expected.tolist(), strict=True):
            # The resizes differ by a level here and there.
            assert chances[name] == pytest.approx(chance, abs=0.02)
    assert len({prediction.top[0] for prediction in found}) == 4


def test_top_is_sorted_and_sums_to_one(trained, tmp_path, write_photo):
    (prediction,), _ = predict(trained, [write_photo(tmp_path / "a.jpg")], 99, 10**6)
    chances = [chance for _, chance in prediction.top]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert all(0 <= chance <= 1 for chance in chances)
    for k in (1, 2):
        (shorter,), _ = predict(trained, [tmp_path / "a.jpg"], k, 10**6)
        assert shorter.top == prediction.top[:k]


def test_bad_photos_are_reported_and_the_rest_predicted(trained, tmp_path, write_photo):
    cut, junk = write_photo(tmp_path / "cut.jpg"), tmp_path / "junk.jpg"
    cut.write_bytes(cut.read_bytes()[:-80])
    junk.write_text("no photo")
    huge, good = write_photo(tmp_path / "huge.png", (101, 100)), write_photo(tmp_path / "good.jpg")
    found, bad = predict(trained, [cut, junk, huge, tmp_path / "gone.jpg", good], 1, 10_000)
    assert [prediction.path for prediction in found] == [str(good)]
    assert [Path(b.path).name for b in bad] == ["cut.jpg", "junk.jpg", "huge.png", "gone.jpg"]
    assert all(b.error and "\n" not in b.error for b in bad)
    assert "10100 pixels" in bad[2].error or "data.max_pixels" in bad[2].error


# ------------------------------------------------------------------------------------------- evaluate_run


def predicted(trained: Trained, root: Path) -> list[int]:
    manifest = load_manifest(root, min_classes=1)
    found, _ = predict(trained, [root / p for p in manifest.paths()], 1, 10**6)
    return [CLASSES.index(p.top[0][0]) for p in found]


def evaluate(tmp_path: Path, data: Path, half: str = "all", **settings: object) -> dict:
    config = DataConfig(**{**SETTINGS.model_dump(), **settings})
    return evaluate_run(tmp_path / "run", data, config, CPU, half, 4, None)


def test_evaluation_agrees_with_single_predictions(trained, tmp_path, photo_folder):
    root = photo_folder(sizes=((50, 40), (44, 70)))
    labels = load_manifest(root).label.tolist()
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, predicted(trained, root)), 1)
    assert expected.sum(0).max() < 15  # the model does not say one thing to all
    report = evaluate(tmp_path, root)
    assert report["confusion"] == expected.tolist()
    assert (report["samples"], report["half"], report["backend"]) == (15, "all", "torchvision")
    assert report["classes"] == list(CLASSES)
    assert report["accuracy"] == pytest.approx(expected.trace() / 15)
    assert report["bad_files"] == []
    json.dumps(report)


@pytest.mark.parametrize("names", [("rose", "tulip"), ("tulip",)])
def test_folder_with_some_of_the_classes(trained, tmp_path, photo_folder, names):
    root = photo_folder(dict.fromkeys(names, 4))
    confusion = np.array(evaluate(tmp_path, root)["confusion"])
    assert confusion.sum(1).tolist() == [4 if name in names else 0 for name in CLASSES]


def test_class_that_the_model_does_not_know(trained, tmp_path, photo_folder):
    root = photo_folder({"rose": 2, "violet": 2})
    with pytest.raises(
        UserError, match=r"violet: the model knows no such class; it knows daisy, rose, tulip"
    ):
        evaluate(tmp_path, root)


def test_halves_of_the_runs_own_split(trained, tmp_path, photo_folder):
    root = photo_folder()
    manifest = load_manifest(root)
    split = make_split(manifest, 0.3, 0)
    write_split(split, manifest, RunFolder(tmp_path / "run").split)
    parts = {half: evaluate(tmp_path, root, half) for half in ("train", "val", "all")}
    assert {half: report["samples"] for half, report in parts.items()} == {
        "train": len(split.train),
        "val": len(split.val),
        "all": 15,
    }
    halves = np.array(parts["train"]["confusion"]) + np.array(parts["val"]["confusion"])
    assert halves.tolist() == parts["all"]["confusion"]


def test_half_of_another_folder_is_refused(trained, tmp_path, photo_folder):
    manifest = load_manifest(photo_folder())
    everything = np.arange(len(manifest))
    write_split(Split(everything, everything[:0]), manifest, RunFolder(tmp_path / "run").split)
    with pytest.raises(UserError, match="since the run began"):
        evaluate(tmp_path, photo_folder({"daisy": 2, "rose": 2}, name="other"), "val")


def test_bad_files_of_scan_and_decoder_are_reported(trained, tmp_path, photo_folder):
    root = photo_folder()
    (root / "rose" / "rose_000.jpg").write_text("no photo")
    cut = root / "tulip" / "tulip_001.jpg"
    cut.write_bytes(cut.read_bytes()[:-60])
    report = evaluate(tmp_path, root, max_bad=0.5)
    assert report["samples"] == 13
    assert [b["path"] for b in report["bad_files"]] == ["rose/rose_000.jpg", "tulip/tulip_001.jpg"]
    with pytest.raises(UserError, match=r"data\.on_bad=skip"):
        evaluate(tmp_path, root, on_bad="fail")
