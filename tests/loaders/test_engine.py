"""Which backend runs here, and why."""

import pytest
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders import engine as module
from flowerfast.loaders.engine import choose_backend, workplace

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
    assert (backend, reason) == ("cpu", "no DALI on the GPU: torch sees no CUDA GPU")  # no advice to use cpu


def test_auto_on_the_cpu_beside_a_gpu_is_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backend, reason = choose_backend(DataConfig(), CPU)
    assert (backend, reason) == ("cpu", "no DALI on the GPU: train.device=cpu")


@pytest.mark.usefixtures("no_dali")
def test_auto_without_dali_is_cpu_and_says_how_to_get_it() -> None:
    backend, reason = choose_backend(DataConfig(), CUDA)
    assert backend == "cpu"
    assert reason.endswith('on Linux: pip install "flowerfast[dali]"')


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
    remedy = r"pip install \"flowerfast\[dali\]\", or use data\.backend=cpu$"
    with pytest.raises(UserError, match=rf"data\.backend={backend}: .*{remedy}"):
        choose_backend(DataConfig(backend=backend), device)


@pytest.mark.usefixtures("no_gpu")
def test_dali_cpu_needs_no_gpu() -> None:
    pytest.importorskip("nvidia.dali")
    assert choose_backend(DataConfig(backend="dali-cpu"), CPU) == ("dali-cpu", "data.backend=dali-cpu")


def test_pixels_are_made_on_the_gpu_by_dali_alone() -> None:
    assert [workplace(name, CUDA) for name in ("cpu", "dali-cpu", "dali")] == [CPU, CPU, CUDA]
