"""`flowerfast show`: the sheet as a file, its record, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from flowerfast.training.half_loaders import training_loader

Cli = Callable[..., tuple[int, str, str]]
SMALL = ["--set", "data.image_size=32", "--set", "train.device=cpu", "--set", "train.batch_size=8"]


def cut(sheet: Path, box: list[int]) -> np.ndarray:
    left, top, width, height = box
    with Image.open(sheet) as image:
        return np.asarray(image.convert("RGB"))[top : top + height, left : left + width]


def test_cells_on_the_sheet_are_training_batches(cli: Cli, photos: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    assert cli("pack", photos, shards)[0] == 0
    config = load_config(None, ["augment=strong", *SMALL[1::2]])
    train, _ = Photos(photos).split(config.data.val_fraction, config.train.seed)
    seen = {}
    with training_loader(config, train, "cpu") as loader:
        for epoch in range(3):
            for batch in loader.epoch(epoch):
                for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                    seen[epoch, train.path(index)] = image.permute(1, 2, 0).numpy().copy()
    for data in (photos, shards):
        code, out, err = cli(
            "show", data, *SMALL, "--set", "augment=strong", "--out", "s.png", "--json", "s.json"
        )
        assert (code, err, out) == (0, "", "12 pictures of 4 photos: s.png\n")
        record = json.loads((tmp_path / "s.json").read_text())
        assert len(record["cells"]) == 12
        for cell in record["cells"]:
            expected = seen[cell["epoch"], cell["photo"]]
            assert np.array_equal(cut(tmp_path / "s.png", cell["box"]), expected)
            assert (cell["backend"], cell["step"]) == ("cpu", None)
            assert cell["plan"]["mix"]["share"] <= 1


def test_steps_and_backends(cli: Cli, photos: Path, tmp_path: Path) -> None:
    code, out, _ = cli("show", photos, *SMALL, "--steps", "--out", "s.pdf", "--json", "-", "--samples", 1)
    record = json.loads(out)
    assert (code, record["backends"]) == (0, ["torchvision"])
    assert [cell["step"] for cell in record["cells"]] == ["crop", "flip", "rotation", "jitter", "shift"]
    assert (tmp_path / "s.pdf").read_bytes().startswith(b"%PDF")
    code, out, _ = cli(
        "show", photos, *SMALL, "--backend", "cpu, torchvision", "--out", "s.jpg", "--samples", 2
    )
    assert (code, out) == (0, "6 pictures of 2 photos: s.jpg\n")


def test_a_config_and_rendered_flowers(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(f"data: {{path: {photos}, image_size: 40}}\naugment: light\n")
    code, out, _ = cli("show", "--config", "mine.yaml", *SMALL[2:], "--out", "s.png", "--json", "-")
    record = json.loads(out)
    assert (code, record["image_size"], record["augment"]["brightness"]) == (0, 40, 0.1)
    monkeypatch.setattr("flowerfast.demo.synthetic.demo_photos", lambda bar: photos)
    code, out, _ = cli("show", "--out", "s.png", "--samples", 1, "--json", "-")
    assert (code, json.loads(out)["data"]) == (0, "rendered flowers")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos"], "Missing option '--out'"),
        (["nowhere", "--out", "s.png"], "nowhere: no such folder"),
        (["photos", "--out", "s.svg"], "--out s.svg: .svg is not drawn; give one of .png"),
        (
            ["photos", "--out", "s.png", "--backend", "gpu"],
            "--backend gpu: gpu is no backend; give any of auto",
        ),
        (["photos", "--out", "s.png", "--backend", "cpu,"], "--backend cpu,: nothing is no backend"),
        (["photos", "--out", "s.png", "--backend", "cpu,cpu"], "--backend cpu,cpu: one is named twice"),
        (["photos", "--out", "s.png", "--backend", "dali"], "data.backend=dali: "),
        (["photos", "--out", "s.png", "--steps", "--epochs", "2"], "--steps --epochs 2: "),
        (["photos", "--out", "s.png", "--samples", "0"], "Invalid value for '--samples'"),
        (["photos", "--out", "s.png", "--samples", "99999"], "too many for one sheet"),
        (["photos", "--out", "s.png", "--set", "train.lr=1"], "--set train.lr: show does not use it"),
        (["photos", "--out", "s.png", "--set", "augment.rotate=500"], "augment.rotate=500: "),
        (["photos", "--out", "s.png", "--config", "none"], "none: no such config file"),
        (["photos", "--out", "s.png", "--json", "s.png"], "named twice"),
        (["photos/red", "--out", "s.png"], "photos lie beside, not in, class folders"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, out, err = cli("show", *arguments, *SMALL[2:])
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert said in err
    assert not (tmp_path / "s.png").exists()


def test_odd_names_and_damaged_files(cli: Cli, photos: Path, tmp_path: Path) -> None:
    odd = photos / "red" / "\x1b[31m\n.jpg"
    shutil.copy(photos / "red/00.jpg", odd)
    for name in ("00", "01"):
        (photos / f"blue/{name}.jpg").write_bytes((photos / f"blue/{name}.jpg").read_bytes()[:-100])
    arguments = ["--samples", 99, "--out", "\x1b[31m.png", "--set", "data.max_bad=0.3", "--json", "s.json"]
    code, out, err = cli("show", photos, *SMALL, *arguments)
    assert (code, "\x1b" in out + err) == (0, False)
    assert out.endswith("\\x1b[31m.png\n")
    record = json.loads((tmp_path / "s.json").read_text())
    drawn = {cell["photo"] for cell in record["cells"]}
    assert not drawn & {"blue/00.jpg", "blue/01.jpg"}
