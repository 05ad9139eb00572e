"""`import flowerfast as ff`: what the public names are and do, together."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module, resources
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import flowerfast as ff
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings

Write = Callable[..., Path]
TINY = {
    "model.name": "test_resnet",
    "model.pretrained": False,
    "data.image_size": 32,
    "data.workers": 2,
    "train.epochs": 1,
    "train.batch_size": 4,
}


def test_the_import_alone_loads_neither_torch_nor_numpy_loading_no_networks_training_no_plots() -> None:
    code = """
import json, sys
def loaded(*names): return [name for name in names if name in sys.modules]
import flowerfast
flowerfast.__version__, dir(flowerfast)
found = [loaded("torch", "numpy", "timm", "PIL", "pydantic", "yaml", "flowerfast.config")]
flowerfast.UserError
found.append(loaded("torch", "numpy", "timm"))
flowerfast.Loader
import flowerfast.bench.sources
found.append(loaded("torch", "timm", "torchvision", "numba", "matplotlib"))
flowerfast.train
found.append(loaded("torch", "matplotlib"))
import flowerfast.training.report
found.append(loaded("matplotlib.pyplot"))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [[], [], ["torch"], ["torch"], []]


def test_public_names_are_the_documented_things() -> None:
    assert sorted(ff.__all__) == ff.__all__
    for name in ff.__all__:
        value = getattr(ff, name)
        assert value.__name__ == name
        assert value.__module__.startswith("flowerfast.")
        assert value is getattr(import_module(value.__module__), name)
        assert len(inspect.getdoc(value) or "") > 20
    assert set(ff.__all__) <= set(dir(ff))
    assert "__version__" in dir(ff)
    with pytest.raises(AttributeError, match=r"^module 'flowerfast' has no attribute 'load_trained'$"):
        attrgetter("load_trained")(ff)


def test_the_package_is_typed() -> None:
    assert resources.files("flowerfast").joinpath("py.typed").is_file()


def test_train_then_predict_and_evaluate(
    photo_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photo_folder()
    monkeypatch.chdir(tmp_path)
    result = ff.train("photos", out="run", settings=TINY)
    assert isinstance(result, ff.TrainResult)
    assert result.folder == Path("run")
    stored = json.loads(Path("run/summary.json").read_text())
    assert result.summary == {key: value for key, value in stored.items() if key != "sha256"}
    assert 0 <= result.summary["best_val_acc"] <= 1
    model = ff.load_run(result.folder)
    assert isinstance(model, ff.TrainedModel)
    assert model.classes == ("daisy", "rose", "tulip")
    file = photos / "rose/rose_001.jpg"
    with Image.open(file) as image:
        pixels = np.array(image)
        given = [file, str(file), image, pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
        answers = [*(model.predict(one)[0] for one in given), *model.predict(given), *model.predict([file])]
    assert all(isinstance(answer, ff.Prediction) for answer in answers)
    assert len({answer.top for answer in answers}) == 1
    assert {name for name, _ in answers[0].top} == set(model.classes)
    with pytest.raises(ff.UserError, match=r"^predict: float of shape \(\) is no photo; give a path"):
        model.predict([0.5])
    (missing,) = model.predict("missing.jpg")
    assert (missing.path, missing.top, missing.error) == ("missing.jpg", (), "No such file or directory")
    scores = ff.evaluate("run", "photos", half="val")
    assert scores["confusion"] == result.summary["confusion"]
    assert ff.evaluate(result.folder, photos, options=ff.DataConfig(workers=1))["samples"] == 15


def test_errors_are_those_of_the_package(tmp_path: Path) -> None:
    with pytest.raises(ff.UserError, match="no such folder"):
        ff.train(tmp_path / "missing", out=tmp_path / "run", settings=TINY)
    with pytest.raises(ff.UserError, match=r"unknown key 'lr'; did you mean 'train\.lr'"):
        ff.train(tmp_path, settings={"lr": 1})
    with pytest.raises(ff.UserError, match="no trained model there"):
        ff.load_run(tmp_path)
    assert issubclass(ff.UserError, ValueError)
    assert issubclass(ff.RunFailed, RuntimeError)
    assert ff.Stopped(15).signum == 15


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: ff.Augment(flip=2), r"Augment: flip=2: input should be less than or equal to 1 \(Probab"),
        (lambda _: ff.Augment(crop_scale=(1, 0.5)), r"Augment: crop_scale=\(1, 0\.5\): must be \[low,"),
        (lambda _: ff.Augment(hflip=1), r"Augment: unknown argument 'hflip'; did you mean 'flip'\?$"),
        (lambda _: ff.Augment(mosaic=1), r"'mosaic': not supported; it has crop_scale, crop_ratio, flip"),
        (lambda _: ff.DataConfig(backend="gpu"), r"DataConfig: backend='gpu': input should be 'auto', 'cpu'"),
        (lambda _: ff.DataConfig(num_workers=1), r"argument 'num_workers'; did you mean 'workers'\?$"),
        (lambda root: ff.Photos(root, max_bad=3), r"Photos: max_bad=3: input should be less than"),
        (lambda root: ff.Loader(ff.Photos(root), size=5), r"Loader: size=5: input should be greater"),
        (lambda root: ff.Loader(ff.Photos(root), batch_size=0), r"Loader: batch_size=0: input"),
        (lambda root: ff.Loader(ff.Photos(root), seed=-1), r"Loader: seed=-1: input"),
        (lambda root: ff.Loader(ff.Photos(root), crop_pct=2), r"Loader: crop_pct=2: input"),
        (lambda root: ff.Loader(ff.Photos(root), workers=-1), r"Loader: workers=-1: input"),
        (lambda root: ff.Loader(ff.Photos(root), backend="gpu"), r"Loader: backend='gpu': input"),
        (lambda root: ff.Loader(ff.Photos(root), backend="dali", device="cpu"), r"^backend=dali: "),
        (lambda root: ff.Loader(ff.Photos(root), cache="vram", device="cpu", augment=ff.Augment(),
                                backend="cpu"), r"^cache=vram: "),
    ],
)  # fmt: skip
def test_errors_speak_of_the_arguments_that_were_typed(
    photo_folder: Write, make: Callable[[Path], object], said: str
) -> None:
    with pytest.raises(ff.UserError, match=said) as caught:
        make(photo_folder())
    message = str(caught.value)
    assert "\n" not in message
    assert not [word for word in ("data.image_size", "train.", "eval.", "--") if word in message]


NAN, LONG = float("nan"), "x" * 5000
PATHS = ["", "a\0b", LONG, "x" * 300, 5, None, b"photos", True, []]


@pytest.mark.parametrize("given", PATHS, ids=lambda value: repr(value)[:9])
def test_what_is_no_path_is_refused_by_every_function(
    photo_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: object
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, calls = photo_folder(), [ff.Photos, ff.load_run, partial(ff.evaluate, data="photos")]
    named = [{key: given} for key in ("data", "out", "config", "start_from")] if given is not None else []
    named += [{"settings": {key: given}} for key in ("data.path", "data.cache_dir", "model.weights")]
    before = {*tmp_path.rglob("*")}
    for call in calls:
        with pytest.raises(ff.UserError) as caught:
            call(given)
        assert len(str(caught.value)) < 250
    for more in named:
        if more == {"settings": {"data.path": None}} or (given is None and "settings" in more):
            continue  # not given
        changes = {**TINY, "data.cache": "disk", **more.get("settings", {})}
        with pytest.raises(ff.UserError) as caught:
            ff.train(**{"data": folder, "out": "run", **more, "settings": changes})
        assert "\n" not in str(caught.value)
    assert {*tmp_path.rglob("*")} == before


def _loader(root: Path, **given: object) -> ff.Loader:
    return ff.Loader(ff.Photos(root), **{"size": 32, "batch_size": 4, "device": "cpu", **given})


def _model(_: Path) -> ff.TrainedModel:
    network = ff.with_normalisation(timm.create_model("test_resnet", num_classes=3)).eval()
    return ff.TrainedModel(network, ("a", "b", "c"), 32, 0.875, torch.device("cpu"), "apply")


PHOTO = np.zeros((40, 30, 3), np.uint8)
WRONG: dict[str, tuple[Callable[[Path, Any], object], list[object]]] = {
    "split.seed": (lambda r, v: ff.Photos(r).split(seed=v), [-1, 2**64, 1.5, NAN, "0", None, True]),
    "split": (lambda r, v: ff.Photos(r).split(v), [0, 1, NAN, None, True, [], np.ones(2)]),
    "subset": (lambda r, v: ff.Photos(r).subset(v), [[-1], [15], [1, [2]], [2**70], "x", None]),
    "read": (lambda r, v: ff.Photos(r).read(v), [[-1], [15], [1.5], [[1]], None, 5, "x"]),
    "sizes": (lambda r, v: ff.Photos(r).sizes(v), [[-1], [15], None, 5]),
    "orientations": (lambda r, v: ff.Photos(r).orientations(v), [[-1], [15], None, 5]),
    "with_classes": (lambda r, v: ff.Photos(r).with_classes(v), [["a"], [], None, 5, "ab", [1, 2],
                     ["daisy", "rose", "tulip", "rose"]]),
    "decode": (lambda r, v: ff.Photos(r).decode(v), [1.5, "1", None, NAN, True, 10**30]),
    "open": (lambda r, v: ff.Photos.open(r, v), [{}, None]),
    "max_pixels": (lambda r, v: ff.Photos(r, max_pixels=v), [0, True, NAN, None, 10**30]),
    "min_classes": (lambda r, v: ff.Photos(r, min_classes=v), [-1, "2", None, NAN, True, 4]),
    "progress": (lambda r, v: ff.Photos(r, progress=v), [5]),
    "batch_size": (lambda r, v: _loader(r, batch_size=v), [0, -1, 8.5, True, NAN, None, 10**30, []]),
    "size": (lambda r, v: _loader(r, size=v), [0, 33.5, True, NAN, None, 10**30]),
    "seed": (lambda r, v: _loader(r, seed=v), [-1, 2**63, 1.5, True, None]),
    "crop_pct": (lambda r, v: _loader(r, crop_pct=v), [0, 2, NAN, None, True]),
    "device": (lambda r, v: _loader(r, device=v),
               [5, -1, "cuda:99", "", "meta", "xla", None, True, [], "a\0b", LONG, torch.device("meta")]),
    "shuffle": (lambda r, v: _loader(r, shuffle=v), ["x", 1, []]),
    "keep": (lambda r, v: _loader(r, keep=v), ["x", 1, None]),
    "fold_last": (lambda r, v: _loader(r, fold_last=v), ["x", 1, None]),
    "rank": (lambda r, v: _loader(r, rank=v, world_size=1), [-1, 1, 0.5, "0", None, True]),
    "world_size": (lambda r, v: _loader(r, rank=0, world_size=v), [0, 1.5, "1", None, True]),
    "options": (lambda r, v: _loader(r, options=v), [5, {}, ff.DataConfig]),
    "workers": (lambda r, v: _loader(r, workers=v), [-1, 1.5, True, NAN]),
    "epoch": (lambda r, v: _loader(r).epoch(v), [-1, 2**48, 1.5, "0", None, NAN, True]),
    "start_batch": (lambda r, v: _loader(r).epoch(0, v), [-1, 5, 1.5, "0", NAN, True]),
    "execute": (lambda r, v: _loader(r).execute(v), [None, 5, "x"]),
    "state": (lambda r, v: _loader(r).load_state_dict(_loader(r).state_dict() | {"epoch": v}), [-1, 2**70]),
    "top_k": (lambda r, v: _model(r).predict(PHOTO, v), [-1, 0, 1.5, "3", None, NAN, True]),
    "predict.max_pixels": (lambda r, v: _model(r).predict(PHOTO, max_pixels=v), [0, 1.5, "3", None, NAN]),
    "prepare": (lambda r, v: _model(r).prepare(v), [None, 5, "x", PHOTO[:0], PHOTO[0], PHOTO / 2]),
    "evaluate": (lambda r, v: ff.evaluate(r, r, batch_size=v), [0, "8", 1.5, None, True]),
    "evaluate.options": (lambda r, v: ff.evaluate(r, r, options=v), [5, {}]),
    "settings": (lambda r, v: ff.train(r, settings=v),
                 [5, "x", [("a", 1)], {1: 2}, {None: 1}, {"train.epochs": 2**70}, {"data.cache_gb": 1e300},
                  {"train.batch_size": True}, {"model.name": "a\0b"}, {"model.name": b"x"},
                  {"train": {"epochs": 1}}]),
    "resume": (lambda r, v: ff.train(out=v, resume=True), ["a\0b", LONG, 5]),
    "resume itself": (lambda r, v: ff.train(r, settings=TINY, resume=v), ["x", 1, None]),
    "reporter": (lambda r, v: ff.train(r, settings=TINY, reporter=v), [5, "x"]),
    "stop": (lambda r, v: ff.train(r, out=r.with_name("run"), settings=TINY, stop=v),
             [5, nullcontext(None), nullcontext(5)]),
    "bars": (lambda r, v: ff.train(r, settings=TINY, bars=v),
             [5, lambda _: None, lambda _: nullcontext(5)]),
    "pack.bars": (lambda r, v: pack(r, r.with_name("out"), PackSettings(), ff.DataConfig(), v),
                  [5, lambda _: None, lambda _: nullcontext(5)]),
    "crop_scale": (lambda _, v: ff.Augment(crop_scale=v), [5, (1,), (NAN, 1), (True, 1), None]),
    "with_normalisation": (lambda _, v: ff.with_normalisation(v), [None, 5, torch.nn.Identity()]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_one_line(
    photo_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root, (call, values) = photo_folder(), WRONG[what]
    before = {*tmp_path.rglob("*")}
    for value in values:
        with pytest.raises(ff.UserError) as caught:
            call(root, value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 350
    assert {*tmp_path.rglob("*")} == before


def test_what_was_given_is_named(photo_folder: Write) -> None:
    with pytest.raises(ff.UserError, match=r"^with_normalisation: network=5: give a model of timm"):
        ff.with_normalisation(cast(torch.nn.Module, 5))
    with pytest.raises(ff.UserError, match=r"network=Identity\(\): has no pretrained_cfg; give a model"):
        ff.with_normalisation(torch.nn.Identity())
    with pytest.raises(ff.UserError, match=r"^settings: train is a section; .+ by dotted keys, as train\."):
        ff.train(photo_folder(), settings={"train": {"epochs": 1}})
    with pytest.raises(ff.UserError, match=r"^with_classes: class 'rose' is named twice; name each once"):
        ff.Photos(photo_folder()).with_classes(["daisy", "rose", "tulip", "rose"])


@pytest.mark.parametrize("given", [0, 999, True, "x", 15.5])
def test_a_stop_that_gives_no_signal_ends_the_run_in_one_line(
    photo_folder: Write, tmp_path: Path, given: object
) -> None:
    out, stop = tmp_path / "run", cast(Any, nullcontext(lambda: given))
    with pytest.raises(
        ff.RunFailed, match=r"^stop: its function gave .+; let it give the number of a signal"
    ):
        ff.train(photo_folder(), out=out, settings=TINY, stop=stop)
    assert not out.exists()


@pytest.mark.parametrize("backend", ["cpu"])
def test_an_epoch_of_a_loader_that_was_closed_says_so(photo_folder: Write, backend: str) -> None:
    loader = _loader(photo_folder(), backend=backend, options=ff.DataConfig(prefetch=1))
    batches = loader.epoch(0)
    next(batches)
    loader.close()
    with pytest.raises(ff.UserError, match=r"^this loader is closed; open another$"):
        list(batches)


@pytest.mark.parametrize("index", [-1, 15, 10**6])
@pytest.mark.parametrize("name", ["decode", "read_one", "path", "where", "place", "problem"])
def test_a_sample_that_is_not_there_is_an_index_error(photo_folder: Write, name: str, index: int) -> None:
    with pytest.raises(IndexError, match=rf"^no sample {index} in .*photos: there are 15, counted from 0$"):
        getattr(ff.Photos(photo_folder()), name)(index)


def test_numbers_of_numpy_are_numbers(photo_folder: Write) -> None:
    photos, n = ff.Photos(photo_folder(), max_pixels=np.int64(10**6), min_classes=np.uint8(3)), np.int64
    train, _ = photos.split(np.float64(0.2), seed=np.uint64(3))
    assert np.array_equal(train.indices, photos.split(0.2, seed=3)[0].indices)
    assert np.array_equal(photos.decode(n(2)), photos.decode(2))
    given = {"size": n(32), "batch_size": np.int32(4), "seed": n(1), "rank": n(0), "world_size": n(1)}
    with _loader(photos.root, **given, crop_pct=np.float32(0.5), workers=n(1)) as loader:
        assert [len(batch) for batch in loader.epoch(n(0), n(1))] == [4, 4, 3]
    assert len(_model(photos.root).predict(PHOTO, n(2), n(5000))[0].top) == 2


def test_errors_of_options_speak_of_the_settings(photo_folder: Write) -> None:
    with pytest.raises(ff.UserError, match=r"^data\.backend=dali: "):
        ff.Loader(
            ff.Photos(photo_folder()), device=torch.device("cpu"), options=ff.DataConfig(backend="dali")
        )


def test_a_loop_of_five_lines_trains(tmp_path: Path) -> None:
    for name, level in (("dark", 60), ("light", 140)):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (40, 36), (level + 4 * i,) * 3).save(tmp_path / name / f"{i}.png")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001)
    train, val = ff.Photos(tmp_path).split(0.2, seed=0)
    losses = []
    with ff.Loader(train, size=32, batch_size=8, augment=ff.Augment(rotate=0), device="cpu") as loader:
        for epoch in range(15):
            for images, labels in loader.epoch(epoch):
                loss = torch.nn.functional.cross_entropy(network(images / 255 - 0.5), labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
    assert len(losses) == 15 * len(loader) == 15 * 2
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    with ff.Loader(val, size=32, device="cpu") as loader:
        (batch,) = loader
    assert isinstance(batch, ff.Batch)
    assert batch.indices.tolist() == val.indices.tolist()
    assert batch.labels.tolist() == val.labels.tolist()
    assert network(batch.images / 255 - 0.5).argmax(1).tolist() == val.labels.tolist()
