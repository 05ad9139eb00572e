"""docs/python.md: every code block is executed, in order, as a reader would type it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flowerfast.training.architecture import Architecture

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore")  # lightning and accelerate have much to say, none of it about us
def test_every_code_block_runs(
    photo_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Photos are few and small and the network is tiny: neither changes what the code does."""
    photo_folder({"daisy": 8, "rose": 7, "tulip": 6}, name="photos")
    monkeypatch.chdir(tmp_path)
    make = timm.create_model

    def tiny(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        return make(
            name if name.startswith("local-dir") else "test_resnet", pretrained=_local(name), **options
        )

    monkeypatch.setattr(timm, "create_model", tiny)
    monkeypatch.setattr(Architecture, "create_pretrained", Architecture.create)  # any weights will do here
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    for said in (
        "torch.Size",
        "because",
        "batches are left",
        "photos right",
        "top-1",
        "accuracy",
        "no such folder",
    ):
        assert said in printed
    shutil.rmtree(tmp_path / "runs")


def _local(name: str) -> bool:
    return name.startswith("local-dir")


def test_the_page_names_every_public_name() -> None:
    import flowerfast

    text = PAGE.read_text(encoding="utf-8")
    assert [
        name for name in flowerfast.__all__ if name not in text and name not in ("Prediction", "TrainedModel")
    ] == ["TrainResult"]
