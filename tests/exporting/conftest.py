"""Fixtures of the export tests: a run of a tiny network with all that a run can have, and its ONNX file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.exporting.onnx_file import onnx_bytes
from flowerfast.exporting.source import read_source
from flowerfast.training import run as run_module
from flowerfast.training.run import train
from tests.conftest import make_photo

NAMES = ("[x](y) *z*", "a|b `c` <i>", "line\nbreak")
"""Of classes: what Markdown, YAML and terminals would take for something else."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run, `run`, of photos in `photos`; read only."""
    root = tmp_path_factory.mktemp("exporting")
    for kind, name in enumerate(NAMES):
        for number in range(10):
            size = ((56, 48), (40, 90), (300, 41))[number % 3]
            make_photo(root / "photos" / name / f"{number}.jpg", size, 100 * kind + number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERFAST_CACHE", str(root / "cache"))
        patch.setattr(run_module, "draw", lambda *_: None)
        settings = {
            "model.name": "test_resnet", "model.pretrained": False, "data.image_size": 32, "data.workers": 1,
            "data.kernels": "torchvision",
            "eval.image_size": 40, "eval.flip": True, "train.ema": 0.5, "train.epochs": 2, "train.lr": 0.05,
            "train.batch_size": 8, "train.device": "cpu", "data.val_fraction": 0.3,
        }  # fmt: skip
        train(root / "photos", out=root / "run", settings=settings)
    return root


@pytest.fixture(scope="session")
def onnx_content(made: Path) -> bytes:
    """The ONNX file of that run: torch takes seconds to make one."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return onnx_bytes(read_source(made / "run"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, whose photos lie where they lay."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def quick(onnx_content: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """ONNX is at hand, not made: that of `made`, or what the function is given."""

    def give(content: bytes) -> None:
        monkeypatch.setattr("flowerfast.exporting.export.onnx_bytes", lambda _: content)

    give(onnx_content)
    return give
