"""Files that are no photos whatever their names say: every command names and skips them, and runs nothing."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowerfast.photos.header import MAX_SIDE
from tests.commands.runs import sets

Cli = Callable[..., tuple[int, str, str]]
TINY = ("train.epochs=1", "train.batch_size=8", "model.name=test_resnet", "model.pretrained=false")
SMALL = ("data.image_size=32", "data.workers=2", "data.max_bad=0.5")
BAD_AT_SCAN = {
    "blue/page.jpg": "not an image",
    "blue/texture.jpg": "not an image",
    "green/sparse.jpg": "has 1099511627776 bytes, more than 1280000000: no photo is that large",
    "red/line.png": f"1x{MAX_SIDE + 1} pixels: no photo has a side of more than {MAX_SIDE}",
}


def encoded(kind: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    stream = io.BytesIO()
    picture = Image.linear_gradient("L").resize(size).convert(options.pop("mode", "RGB"))
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def hostile(photos: Path, zoo: Path, postscript: bytes) -> Path:
    """Good photos, one of them a 4:4:1 JPEG, and bad ones among them: `red/cut.jpg` only when decoded."""
    shutil.copy(zoo / "odd/jpeg-441.jpg", photos / "red")
    (photos / "blue/page.jpg").write_bytes(postscript)
    (photos / "blue/texture.jpg").write_bytes(encoded("DDS"))
    with (photos / "green/sparse.jpg").open("wb") as file:
        file.truncate(1 << 40)
    (photos / "red/line.png").write_bytes(encoded("PNG", (1, MAX_SIDE + 1), mode="1"))
    avif = encoded("AVIF")
    (photos / "red/cut.jpg").write_bytes(avif[: len(avif) - 40])
    return photos


COMMANDS = {
    "train": ["train", "PHOTOS", *sets(*SMALL, *TINY)],
    "train plainly": ["train", "PHOTOS", *sets(*SMALL, *TINY, "data.kernels=torchvision", "data.cache=ram")],
    "evaluate": ["evaluate", "RUN", "PHOTOS", *sets("data.max_bad=0.5", "train.device=cpu")],
    "predict": ["predict", "RUN", "PHOTOS", *sets("train.device=cpu")],
    "parity": ["parity", "PHOTOS", "--backend", "cpu", *sets(*SMALL)],
    "pack": ["pack", "PHOTOS", "shards", *sets("data.max_bad=0.5")],
    "pack --max-side": ["pack", "PHOTOS", "shards", "--max-side", "16", *sets("data.max_bad=0.5")],
}  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="sparse files, and a program that is a script")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_what_it_skips_and_runs_nothing(
    cli: Cli, trained: Any, hostile: Path, ghostscript: Path, command: str
) -> None:
    places = {"PHOTOS": hostile, "RUN": trained.run}
    code, out, err = cli(*(places.get(argument, argument) for argument in COMMANDS[command]))
    assert (code, "Traceback" in out + err) == (0, False), err
    skipped = [line for line in (out + err).splitlines() if line.startswith("skipped: ")]
    prefix = f"{hostile}/" if command == "predict" else ""
    for path, why in BAD_AT_SCAN.items():
        assert f"skipped: {prefix}{path}: {why}" in skipped
    cut = [line for line in skipped if "red/cut.jpg" in line]
    assert len(cut) == (command != "pack"), "copies are not decoded"
    assert len(skipped) == len(BAD_AT_SCAN) + len(cut)
    if command.startswith("train"):
        assert "5 of 42 files skipped" in out
    assert not ghostscript.exists()
