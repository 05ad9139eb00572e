"""Which executor and which cache a run gets, and why."""

import numpy as np
import pytest
import torch

from flowerfast import loaders
from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.errors import UserError
from flowerfast.loaders import (
    BadFiles,
    Choice,
    Recipe,
    cache_choice,
    choose_backend,
    choose_cache,
    make_eval_loader,
    make_loader,
)
from flowerfast.loaders.cache import cache_bytes
from flowerfast.loaders.kept import KeptLoader
from flowerfast.loaders.torchvision import TorchvisionLoader

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def manifest(photo_folder) -> Manifest:
    return load_manifest(photo_folder({"a": 3, "b": 2}))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def no_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "find_spec", lambda _: None)


def test_torchvision_runs_anywhere(no_dali):
    for device in (CPU, CUDA):
        assert choose_backend(DataConfig(backend="torchvision"), device).backend == "torchvision"


def test_auto_without_a_gpu_is_torchvision_and_says_why(no_gpu):
    choice = choose_backend(DataConfig(), CPU)
    assert choice.backend == "torchvision"
    assert "torch sees no CUDA GPU" in choice.reason
    assert choice.cache == "none"


def test_auto_on_the_cpu_beside_a_gpu_is_torchvision_and_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choice = choose_backend(DataConfig(), CPU)
    assert choice.backend == "torchvision"
    assert "train.device=cpu" in choice.reason


def test_auto_without_dali_is_torchvision_and_says_how_to_get_it(no_dali):
    choice = choose_backend(DataConfig(), CUDA)
    assert choice.backend == "torchvision"
    assert 'pip install "flowerfast[dali]"' in choice.reason


def test_auto_with_both_is_dali(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loaders, "_dali_problem", lambda wanted, device: None)
    assert choose_backend(DataConfig(), CUDA).backend == "dali"


def test_dali_without_a_gpu_names_the_ways_out(no_gpu):
    with pytest.raises(UserError, match=r"data\.backend=dali: .*no CUDA GPU; use .*dali-cpu or torchvision"):
        choose_backend(DataConfig(backend="dali"), CPU)


@pytest.mark.parametrize(("backend", "device"), [("dali", CUDA), ("dali-cpu", CPU)])
def test_dali_not_installed_names_the_remedy(no_dali, backend, device):
    with pytest.raises(UserError, match=rf"data\.backend={backend}: .*pip install \"flowerfast\[dali\]\""):
        choose_backend(DataConfig(backend=backend), device)


def test_dali_cpu_needs_no_gpu(no_gpu):
    pytest.importorskip("nvidia.dali")
    assert choose_backend(DataConfig(backend="dali-cpu"), CPU).backend == "dali-cpu"


@pytest.mark.parametrize(
    ("backend", "cache", "places"),
    [("torchvision", "vram", "ram or on disk"), ("dali-cpu", "vram", "ram or on disk"),
     ("dali", "ram", "vram"), ("dali", "disk", "vram")],
)  # fmt: skip
def test_cache_that_the_executor_lacks_is_refused(manifest, backend, cache, places):
    with pytest.raises(
        UserError, match=rf"data\.cache={cache}: the {backend} backend .* {places}; use that or auto"
    ):
        choose_cache(DataConfig(cache=cache), backend, CPU, manifest, np.arange(5))


def test_cache_asked_for_is_taken(manifest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_choice, "free_memory", lambda device=None: 0)
    monkeypatch.setattr(cache_choice, "free_disk", lambda folder: 0)
    for backend, cache in (
        ("torchvision", "none"),
        ("torchvision", "ram"),
        ("torchvision", "disk"),
        ("dali-cpu", "disk"),
        ("dali", "vram"),
        ("dali", "none"),
    ):
        choice = choose_cache(DataConfig(cache=cache), backend, CPU, manifest, np.arange(5))
        assert choice == (cache, f"data.cache={cache}")


@pytest.mark.parametrize(
    ("backend", "place", "next_best"),
    [("torchvision", "ram", "disk"), ("dali-cpu", "ram", "disk"), ("dali", "vram", "none")],
)
def test_auto_cache_is_taken_when_it_fits_a_third(
    manifest, monkeypatch: pytest.MonkeyPatch, backend, place, next_best
):
    indices, data = np.arange(4), DataConfig(cache="auto")
    needed = cache_bytes(manifest, indices, data.cache_side)
    for free, expected in ((3 * needed, place), (3 * needed - 1, next_best)):
        monkeypatch.setattr(cache_choice, "free_memory", lambda device=None, free=free: free)
        found, why = choose_cache(data, backend, CPU, manifest, indices)
        assert found == expected
        assert f"{place}: " in why
    assert "does not fit" in why


def test_auto_takes_the_disk_only_where_all_photos_fit(manifest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_choice, "free_memory", lambda device=None: 0)
    needed = 2 * 4096 + cache_bytes(manifest, np.arange(5), 320)  # header, check values; all, not a half
    for free, expected in ((3 * needed, "disk"), (3 * needed - 3, "none")):
        monkeypatch.setattr(cache_choice, "free_disk", lambda folder, free=free: free)
        assert (
            choose_cache(DataConfig(cache="auto"), "torchvision", CPU, manifest, np.arange(3))[0] == expected
        )


def test_auto_goes_past_a_disk_that_cannot_be_used(manifest, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(cache_choice, "free_memory", lambda device=None: 0)
    (tmp_path / "file").write_text("in the way")
    data = DataConfig(cache="auto", cache_dir=str(tmp_path / "file/photos"))
    found, why = choose_cache(data, "torchvision", CPU, manifest, np.arange(5))
    assert found == "none"
    assert "file/photos cannot be made (Not a directory)" in why
    with pytest.raises(UserError, match=r"data\.cache=disk: .* cannot be made .*; set data\.cache_dir"):
        choose_cache(data.model_copy(update={"cache": "disk"}), "torchvision", CPU, manifest, np.arange(5))


def test_a_budget_of_the_users_own_takes_the_place_of_a_third(manifest, monkeypatch: pytest.MonkeyPatch):
    needed = cache_bytes(manifest, np.arange(5), 320)
    monkeypatch.setattr(cache_choice, "free_memory", lambda device=None: 3 * needed)
    monkeypatch.setattr(cache_choice, "free_disk", lambda folder: 2**40)
    for budget, expected in ((needed, "ram"), (needed - 1, "none")):
        data = DataConfig(cache="auto", cache_gb=budget / 1e9)
        assert choose_cache(data, "torchvision", CPU, manifest, np.arange(5))[0] == expected


def test_free_memory_of_the_host():
    assert loaders.free_memory() > 0
    assert loaders.free_memory(CPU) > 0


@pytest.fixture
def bad(manifest) -> BadFiles:
    return BadFiles(manifest, "skip", 1.0)


@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
def test_make_loader(manifest, bad, cache):
    recipe = Recipe(32, 2, augment=AugmentConfig(), shuffle=True)
    data = DataConfig(workers=1)
    loader = make_loader(Choice("torchvision", "", cache), manifest, np.arange(5), recipe, data, CPU, bad)
    assert isinstance(loader, TorchvisionLoader)
    assert (loader._executor._cache is not None) == (cache != "none")
    assert sum(len(b) for b in loader.epoch(0)) == 5
    loader.close()


@pytest.mark.parametrize(
    ("augment", "free", "kept"),
    [(None, 4 * 5 * 3 * 32**2 + 1, True), (None, 4 * 5 * 3 * 32**2, False), (AugmentConfig(), 2**40, False)],
)
def test_evaluation_is_kept_when_it_repeats_and_fits(
    manifest, bad, monkeypatch: pytest.MonkeyPatch, augment, free, kept
):
    monkeypatch.setattr(loaders, "free_memory", lambda device=None: free)
    choice, recipe = Choice("torchvision", "", "ram"), Recipe(32, 2, augment=augment)
    loader = make_eval_loader(choice, manifest, np.arange(5), recipe, DataConfig(workers=1), CPU, bad)
    assert isinstance(loader, KeptLoader) == kept
    assert sum(len(b) for b in loader.epoch(0)) == 5
    loader.close()
