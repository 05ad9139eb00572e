"""Which backend runs here, and why."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders import engine as module
from flowerfast.loaders import speeds
from flowerfast.loaders.engine import choose_augmenter, choose_backend, workplace
from flowerfast.loaders.speeds import remember
from flowerfast.photos.photos import Photos
from flowerfast.pixels import gpu
from flowerfast.settings import load_config

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def no_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI, and a CUDA GPU with a name."""
    monkeypatch.setattr(module, "_dali_problem", lambda wanted, device: None)
    monkeypatch.setattr(speeds, "device_name", lambda _: "NVIDIA Test")


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 2, "b": 2}))


def measured(backend: str, rate: float, **settings: Any) -> tuple[DataConfig, dict[str, float]]:
    """What `remember` takes of a loader."""
    return DataConfig(backend=backend, **settings), {"images_per_sec": rate, "spread": rate / 100}


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


@pytest.mark.usefixtures("both")
def test_auto_with_both_is_dali_where_photos_are_not_in_question() -> None:
    assert choose_backend(DataConfig(), CUDA) == ("dali", "CUDA GPU and NVIDIA DALI are both there")


@pytest.mark.usefixtures("both")
def test_auto_with_both_and_no_measurement_is_dali_and_says_who_decides(photos: Photos) -> None:
    backend, reason = choose_backend(DataConfig(), CUDA, photos)
    assert backend == "dali"
    assert reason.endswith("was not measured on this machine: flowerfast bench DATA decides")
    remember(photos, CUDA, load_config(), [measured("dali", 9000)])  # alone it decides nothing
    assert choose_backend(DataConfig(), CUDA, photos) == ("dali", reason)


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(
    ("cpu", "dali", "backend", "said"),
    [(18000, 10400, "cpu", "cpu 18,000 images/s, dali 10,400"),
     (9000.4, 10367.3, "dali", "dali 10,367 images/s, cpu 9,000")],
)  # fmt: skip
def test_auto_with_both_takes_what_was_measured_to_be_faster(
    photos: Photos, cpu: float, dali: float, backend: str, said: str
) -> None:
    remember(photos, CUDA, load_config(), [measured("cpu", cpu), measured("dali", dali)])
    today = time.strftime("%Y-%m-%d")
    reason = f"measured on this machine on {today}: {said}"
    assert choose_backend(DataConfig(), CUDA, photos) == (backend, reason)
    other = DataConfig(image_size=448)
    assert choose_backend(other, CUDA, photos)[0] == "dali"
    for told in ("cpu", "dali"):
        assert choose_backend(DataConfig(backend=told), CUDA, photos) == (told, f"data.backend={told}")


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(("cache", "backend"), [("ram", "cpu"), ("disk", "cpu"), ("vram", "dali")])
def test_auto_has_the_cache_that_was_asked_for(photos: Photos, cache: str, backend: str) -> None:
    other = {"cpu": "dali", "dali": "cpu"}[backend]
    remember(photos, CUDA, load_config(), [measured(backend, 1), measured(other, 9)])
    assert choose_backend(DataConfig(cache=cache), CUDA, photos)[0] == backend


@pytest.mark.usefixtures("both")
def test_caches_are_compared_with_caches(photos: Photos) -> None:
    cached = [measured("cpu", 7000, cache="ram"), measured("dali", 21766, cache="vram")]
    remember(photos, CUDA, load_config(), [measured("cpu", 9), measured("dali", 8), *cached])
    auto = DataConfig(cache="auto", cache_gb=1)
    backend, reason = choose_backend(auto, CUDA, photos)
    assert backend == "dali"
    assert reason.endswith(": dali with vram cache 21,766 images/s, cpu with ram cache 7,000")
    assert choose_backend(DataConfig(), CUDA, photos)[0] == "cpu"


@pytest.mark.usefixtures("both")
def test_the_decoder_that_was_asked_for_is_compared_and_none_is_chosen(photos: Photos) -> None:
    by_gpu = measured("dali", 30000, decoder="gpu", hw_decoder_load=0.1)
    remember(photos, CUDA, load_config(), [measured("cpu", 18000), measured("dali", 10400), by_gpu])
    assert choose_backend(DataConfig(), CUDA, photos)[0] == "cpu"  # never other pixels unasked
    backend, reason = choose_backend(DataConfig(decoder="gpu"), CUDA, photos)
    assert backend == "dali"
    assert reason.endswith(": dali 30,000 images/s, cpu 18,000")


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
