"""macOS and Windows, as far as that can be tested elsewhere: what POSIX alone has is not needed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.bench.suites import run_bench
from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.loaders.cache import file as cache_file
from flowerfast.loaders.device import device_name, pick_device
from flowerfast.machine import total_memory, usable_cores
from flowerfast.training.progress import sum_dtype
from flowerfast.training.run import train
from flowerfast.training.state import Precision

POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
POSIX_FUNCTIONS = (
    *(
        "fork",
        "getsid",
        "killpg",
        "link",
        "posix_fadvise",
        "preadv",
        "pwrite",
        "sched_getaffinity",
        "statvfs",
    ),
    "sysconf",
)
IMPORT_ALL = """
import importlib, pkgutil, sys
import torch, timm, torchvision, matplotlib.figure, webdataset, safetensors.torch
import numba, typer, rich.live, jinja2
for name in sys.argv[1:]:
    sys.modules[name] = None
import flowerfast
for module in pkgutil.walk_packages(flowerfast.__path__, "flowerfast."):
    if "__main__" not in module.name and ".dali" not in module.name:
        importlib.import_module(module.name)
"""


def test_every_module_is_imported_without_what_posix_alone_has() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *POSIX_MODULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without the functions that POSIX alone has."""
    for name in POSIX_FUNCTIONS:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(cache_file, "fcntl", None)


def test_a_run_needs_no_function_that_posix_alone_has(
    elsewhere: None, paint: Callable[[Path], Path], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "model.name": "test_resnet", "model.pretrained": False, "data.image_size": 32,
        "data.cache": "auto", "data.cache_gb": 1e-9, "train.epochs": 2, "checkpoints.keep": 1,
    }  # fmt: skip
    result = train(paint(tmp_path / "photos"), out=tmp_path / "run", settings=settings)
    assert result.summary["cache"] == "none"
    assert "this system lacks the file locks" in result.summary["cache_reason"]
    assert (tmp_path / "run/best/model.safetensors").is_file()
    assert (total_memory(), usable_cores() >= 1) == (None, True)


def test_bench_says_what_it_can_do_where_it_cannot_end_processes(elsewhere: None) -> None:
    with pytest.raises(UserError, match=r"^bench: this system cannot .*; give --quick"):
        run_bench(Config(), ["loader"])


def test_an_apple_gpu_is_taken_after_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"^train\.device=mps: torch sees no Apple GPU"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = pick_device("auto")
    assert device == pick_device("mps") == torch.device("mps")
    assert device_name(device).startswith("Apple GPU (")
    assert (Precision.choose("auto", device).name, Precision.choose("bf16", device).name) == ("off", "bf16")
    assert sum_dtype(device) == torch.float32  # it has no double precision
