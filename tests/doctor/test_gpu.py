"""GPU, driver, torch's CUDA and DALI, in every way they may be at odds."""

from collections.abc import Callable

import pytest
import torch

from flowerfast.doctor import gpu
from flowerfast.doctor.gpu import cuda_lines, dali_lines, driver_lines
from flowerfast.loaders.dali import probe

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Function (card, driver's CUDA, torch's CUDA): a machine on which torch sees no GPU."""

    def fake(card: str | None, driver: tuple[int, int] | None, built: str | None) -> None:
        said = {"name": card, "driver_version": "580.65" if card else None}
        monkeypatch.setattr(gpu, "nvidia_smi", said.__getitem__)
        monkeypatch.setattr(gpu, "has_gpu", lambda: card is not None)
        monkeypatch.setattr(gpu, "driver_cuda", lambda: driver)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return fake


@pytest.mark.parametrize(
    ("card", "driver", "built", "state", "found", "mend"),
    [
        (None, None, None, "ok", "no NVIDIA GPU: everything runs on the CPU", ""),
        (None, None, "12.8", "ok", "no NVIDIA GPU", ""),
        ("H100", (13, 0), None, "fail", "built without CUDA", "pip install --force-reinstall"),
        (
            "H100",
            (11, 8),
            "12.8",
            "fail",
            "built for CUDA 12.8, the driver supports 11.8",
            "update the driver",
        ),
        ("H100", (13, 0), "12.8", "fail", "torch (CUDA 12.8) sees none", "docker run --gpus all"),
        ("H100", None, "12.8", "fail", "sees none", "docker run --gpus all"),
    ],
)
def test_a_gpu_that_torch_does_not_see(
    machine: Machine,
    card: str | None,
    driver: tuple[int, int] | None,
    built: str | None,
    state: str,
    found: str,
    mend: str,
) -> None:
    machine(card, driver, built)
    (line,) = cuda_lines()
    assert (line.state, found in line.found, mend in line.mend) == (state, True, True), line
    assert bool(line.mend) is (state != "ok")


def test_a_gpu_that_is_hidden_is_a_warning(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("H100", (13, 0), "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (line,) = cuda_lines()
    assert (line.state, line.mend) == ("warn", "unset CUDA_VISIBLE_DEVICES")


def test_the_driver(machine: Machine) -> None:
    machine(None, None, None)
    assert [(line.state, line.mend) for line in driver_lines()] == [("ok", "")]
    machine("H100", None, "12.8")
    (line,) = driver_lines()
    assert (line.state, "libcuda" in line.found, "docker run --gpus all" in line.mend) == ("fail", True, True)
    machine("H100", (13, 1), "12.8")
    (line,) = driver_lines()
    assert (line.state, line.found) == ("ok", "580.65, CUDA 13.1")


def test_without_dali_a_machine_without_gpu_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "versions", dict)
    monkeypatch.setattr(probe, "_installed", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (line,) = dali_lines()
    assert (line.state, line.mend) == ("ok", "")
    assert line.found == "NVIDIA DALI is not installed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.sys, "platform", "linux")
    (line,) = dali_lines()
    assert (line.state, line.mend) == ("warn", 'pip install "flowerfast[dali]"')


def test_dali_that_cannot_be_loaded_or_lacks_its_decoder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {line.state for line in dali_lines()} == {"ok"}
    assert next(iter(dali_lines())).name == "dali"

    def broken(_: str) -> None:
        raise ImportError("libdali_core.so: undefined symbol")

    monkeypatch.setattr(probe.importlib, "import_module", broken)
    line = next(iter(dali_lines()))
    assert (line.state, "undefined symbol" in line.found) == ("fail", True)
    assert line.mend.startswith("reinstall it (pip install")

    monkeypatch.setattr(gpu, "unmet", lambda each: f"0.1, but {each.specifier} is needed")
    wrong = next(line for line in dali_lines() if "nvimgcodec" in line.name)
    assert (wrong.state, wrong.mend.startswith('pip install "nvidia-nvimgcodec')) == ("fail", True)
