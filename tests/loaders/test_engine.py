"""Which backend runs here, and why."""

from typing import Any

import pytest
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders import engine as module
from flowerfast.loaders.engine import choose_augmenter, choose_backend, workplace
from flowerfast.pixels import gpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def no_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)


@pytest.mark.usefixtures("no_dali")
@pytest.mark.parametrize("name", ["cpu", "torchvision"])
def test_cpu_runs_anywhere_also_by_its_older_name(name: str) -> None:
    for device in (CPU, CUDA):
        assert choose_backend(DataConfig(backend=name), device) == ("cpu", "data.backend=cpu")


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_cpu_and_says_why() -> None:
    backend, reason = choose_backend(DataConfig(), CPU)
    assert backend == "cpu"
    assert "torch sees no CUDA GPU" in reason


def test_auto_on_the_cpu_beside_a_gpu_is_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backend, reason = choose_backend(DataConfig(), CPU)
    assert backend == "cpu"
    assert "train.device=cpu" in reason


@pytest.mark.usefixtures("no_dali")
def test_auto_without_dali_is_cpu_and_says_how_to_get_it() -> None:
    backend, reason = choose_backend(DataConfig(), CUDA)
    assert backend == "cpu"
    assert 'pip install "flowerfast[dali]"' in reason


def test_auto_with_both_is_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_dali_problem", lambda wanted, device: None)
    assert choose_backend(DataConfig(), CUDA) == ("dali", "CUDA GPU and NVIDIA DALI are both there")


@pytest.mark.usefixtures("no_gpu")
def test_dali_without_a_gpu_names_the_ways_out() -> None:
    with pytest.raises(UserError, match=r"data\.backend=dali: .*no CUDA GPU; use .*dali-cpu or cpu"):
        choose_backend(DataConfig(backend="dali"), CPU)


@pytest.mark.usefixtures("no_dali")
@pytest.mark.parametrize(("backend", "device"), [("dali", CUDA), ("dali-cpu", CPU)])
def test_dali_not_installed_names_the_remedy(backend: str, device: torch.device) -> None:
    with pytest.raises(UserError, match=rf"data\.backend={backend}: .*pip install \"flowerfast\[dali\]\""):
        choose_backend(DataConfig(backend=backend), device)


@pytest.mark.usefixtures("no_gpu")
def test_dali_cpu_needs_no_gpu() -> None:
    pytest.importorskip("nvidia.dali")
    assert choose_backend(DataConfig(backend="dali-cpu"), CPU) == ("dali-cpu", "data.backend=dali-cpu")


def test_pixels_are_made_on_the_gpu_by_dali_alone() -> None:
    assert [workplace(name, CUDA) for name in ("cpu", "dali-cpu", "dali")] == [CPU, CPU, CUDA]


def test_pixels_of_photos_on_the_gpu_are_made_there() -> None:
    assert workplace("cpu", CUDA, "vram") == CUDA
    assert workplace("cpu", CUDA, "ram") == CPU


# ------------------------------------------------------------------------------------ who augments on the GPU

PASSED, OWN = "Triton's kernels gave the reference's pixels in a trial", "data.gpu_kernels=dali"


@pytest.mark.parametrize(
    ("problem", "wanted", "backend", "cache", "found"),
    [
        (None, "auto", "dali", "none", ("triton", PASSED)),
        (None, "triton", "dali", "vram", ("triton", PASSED)),
        (None, "auto", "cpu", "vram", ("triton", PASSED)),
        (None, "dali", "dali", "vram", ("dali", OWN)),
        ("no compiler", "auto", "dali", "vram", ("dali", "no compiler")),
        ("no compiler", "dali", "dali", "none", ("dali", OWN)),
        ("no compiler", "auto", "cpu", "ram", (None, "")),
        ("no compiler", "triton", "cpu", "none", (None, "")),
        (None, "auto", "dali-cpu", "ram", (None, "")),
        (None, "triton", "dali-cpu", "ram", ("triton", PASSED)),
    ],
)
def test_the_kernels_augment_where_a_trial_goes_well(
    monkeypatch: pytest.MonkeyPatch, problem: str | None, wanted: Any, backend: str, cache: str, found: Any
) -> None:
    monkeypatch.setattr(gpu, "kernel_problem", lambda *_: problem)
    assert choose_augmenter(DataConfig(gpu_kernels=wanted), backend, cache, CUDA, 32) == found


@pytest.mark.parametrize(
    ("wanted", "backend", "cache", "said"),
    [
        ("triton", "dali", "none", r"data\.gpu_kernels=triton: no compiler; use auto or dali"),
        ("triton", "cpu", "vram", r"data\.gpu_kernels=triton: no compiler; use auto or dali"),
        ("auto", "cpu", "vram", r"data\.cache=vram: .*Triton's kernels .*\(no compiler\); use ram or none"),
        ("dali", "cpu", "vram", r"data\.cache=vram: .*\(data\.gpu_kernels=dali\); use ram or none"),
    ],
)
def test_kernels_that_nothing_can_stand_in_for_are_an_error(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, backend: str, cache: str, said: str
) -> None:
    monkeypatch.setattr(gpu, "kernel_problem", lambda *_: "no compiler")
    with pytest.raises(UserError, match=said):
        choose_augmenter(DataConfig(gpu_kernels=wanted), backend, cache, CUDA, 32)
