"""A resumed run sees the pixels that it began with, from another backend or cache, or says why it cannot."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import Config, DataConfig
from flowerfast.errors import Stopped, UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.cache import choice
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler
from flowerfast.settings import change_config
from flowerfast.training import fit, resuming
from flowerfast.training.progress import Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.split_file import read_split
from flowerfast.training.state import TrainState
from tests.training.outcomes import STEPS, assert_same, change_last

Train = Callable[..., TrainResult]
StopAfter = Callable[[int], AbstractContextManager[Stop]]
Outcome = Callable[[Path], dict[str, Any]]
SMALL_CACHE = {"data.cache_side": 32}  # of photos of 56x48: other pixels than without a cache
GB = 10**9


class Steps:
    """Stands for `train_step`, and notes the samples of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[int]] = []
        self._step = fit.train_step
        monkeypatch.setattr(fit, "train_step", self)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(batch.indices.tolist())
        return self._step(state, batch)


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [("cpu", "dali-cpu", 2), ("dali-cpu", "cpu", STEPS + 4), ("dali-cpu", "cpu", STEPS),
     pytest.param("cpu", "dali", 2, marks=pytest.mark.gpu),
     pytest.param("dali", "cpu", STEPS + 4, marks=pytest.mark.gpu)],
)  # fmt: skip
def test_another_backend_goes_on_with_the_next_sample(
    train_tiny: Train,
    begin: Callable[..., None],
    photos: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
    steps: int,
) -> None:
    pytest.importorskip("nvidia.dali")
    if "dali" in (first, second) and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    watched = Steps(monkeypatch)
    begin({"data.backend": first, "train.device": "auto"}, steps)
    result = train_tiny(resume=True, settings={"data.backend": second})
    assert result.summary["backend"] == second
    train_photos, _ = read_split(run / "split.json", Photos(photos))
    sampler = Sampler(train_photos, 32, 8, augment=Augment(), shuffle=True)
    planned = [plan.indices.tolist() for epoch in range(2) for plan in sampler.plans(epoch)]
    assert watched.seen == planned  # no sample is lost, none comes twice
    assert result.summary["epochs_run"] == 2


def test_the_backend_of_the_beginning_is_kept_where_it_can_be_had(
    train_tiny: Train, begin: Callable[..., None], run: Path
) -> None:
    pytest.importorskip("nvidia.dali")
    begin({"data.backend": "auto"})
    change_last(run, lambda state: state["loader"].update(backend="dali-cpu"))
    assert train_tiny(resume=True).summary["backend"] == "dali-cpu"
    change_last(run, lambda state: state["loader"].update(backend="dali"))  # of another machine
    assert train_tiny(resume=True).summary["backend"] == "cpu"


def test_a_resumed_run_keeps_its_backend_whatever_was_measured_since(
    train_tiny: Train, begin: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nvidia.dali")
    measured = {"backend": "dali-cpu"}

    def choose(data: DataConfig, device: torch.device, photos: Photos | None = None) -> tuple[str, str]:
        chosen = measured["backend"] if data.backend == "auto" else data.backend
        return chosen, "measured"

    monkeypatch.setattr(loader_module, "choose_backend", choose)
    begin({"data.backend": "auto"})
    measured["backend"] = "cpu"
    assert train_tiny(resume=True).summary["backend"] == "dali-cpu"
    assert train_tiny("another").summary["backend"] == "cpu"


def test_a_resumed_run_keeps_its_share_of_the_hardware_decoder(
    train_tiny: Train, begin: Callable[..., None], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin()
    change_last(run, lambda state: state["loader"].update(hw_decoder_load=0.12))
    shares, open_engine = [], loader_module.open_engine

    def opened(backend: str, sampler: Sampler, data: DataConfig, *more: Any) -> Any:
        shares.append(data.hw_decoder_load)
        return open_engine(backend, sampler, data, *more)

    monkeypatch.setattr(loader_module, "open_engine", opened)
    train_tiny(resume=True)
    assert shares == [0.12, 0.12]


@pytest.mark.parametrize(
    ("record", "changed", "found"),
    [
        ({"backend": "dali", "cache": "none"}, None, "dali"),  # of a version that had no kernels of its own
        ({"backend": "dali", "cache": "vram", "gpu_kernels": "dali"}, None, "dali"),
        ({"backend": "dali", "cache": "vram", "gpu_kernels": "triton"}, None, "auto"),
        ({"backend": "dali", "cache": "none"}, "triton", "triton"),
        ({"backend": "cpu", "cache": "none"}, None, "auto"),
    ],
)
def test_who_augmented_on_the_gpu_goes_on_with_it_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, record: dict[str, str], changed: str | None, found: str
) -> None:
    monkeypatch.setattr(resuming, "choose_backend", lambda *_, **__: (record["backend"], ""))
    stored = Config()
    config = change_config(stored, (), {"data.gpu_kernels": changed} if changed else {})
    kept = resuming.as_recorded(config, stored, {"loader": record})
    assert kept.data.gpu_kernels == found


# ------------------------------------------------------------------------------------------- caches and sizes


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Function (memory, disk): from now on so many bytes are free."""

    def set_free(memory: int, disk: int) -> None:
        monkeypatch.setattr(choice, "free_memory", lambda: memory)
        monkeypatch.setattr(choice, "free_disk", lambda _: disk)

    return set_free


@pytest.mark.parametrize(
    ("cache", "at_first", "later"),
    [("ram", (GB, GB), (0, GB)), ("disk", (0, GB), (GB, GB)), ("none", (0, 0), (GB, GB))],
)
def test_a_cache_that_was_chosen_is_kept_however_much_is_free_now(
    train_tiny: Train,
    begin: Callable[..., None],
    stop_after: StopAfter,
    run: Path,
    outcome: Outcome,
    free: Callable[[int, int], None],
    cache: str,
    at_first: tuple[int, int],
    later: tuple[int, int],
) -> None:
    settings = {"data.cache": "auto", **SMALL_CACHE}
    free(*at_first)
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings)
    free(*later)
    assert train_tiny("anew", {**settings, "train.epochs": 1}).summary["cache"] != cache
    with pytest.raises(Stopped):
        train_tiny(resume=True, stop=stop_after(STEPS))
    result = train_tiny(resume=True)
    assert result.summary["cache"] == undisturbed.summary["cache"] == cache
    assert_same(outcome(run), outcome(undisturbed.folder))


@pytest.mark.parametrize(
    ("before", "now"), [("none", "ram"), ("ram", "none"), ("none", "auto"), ("disk", "none")]
)
def test_a_cache_that_would_change_pixels_is_refused(
    train_tiny: Train, begin: Callable[..., None], run: Path, before: str, now: str
) -> None:
    begin({"data.cache": before, **SMALL_CACHE})
    saved = (run / "checkpoints/last.pt").read_bytes()
    with pytest.raises(UserError) as caught:
        train_tiny(resume=True, settings={"data.cache": now})
    assert str(caught.value) == (
        f"data.cache={now if now != 'auto' else 'ram'}: the run began with {before}, and a cache shrinks "
        f"these photos to data.cache_side=32; set data.cache={before}"
    )
    assert (run / "checkpoints/last.pt").read_bytes() == saved


@pytest.mark.parametrize(
    ("before", "now", "side"), [("none", "ram", 48), ("ram", "none", 48), ("ram", "disk", 32)]
)
def test_a_cache_that_gives_the_same_pixels_may_come_and_go(
    train_tiny: Train,
    begin: Callable[..., None],
    run: Path,
    outcome: Outcome,
    before: str,
    now: str,
    side: int,
) -> None:
    settings = {"data.cache": before, "data.cache_side": side}
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings)
    assert train_tiny(resume=True, settings={"data.cache": now}).summary["cache"] == now
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_photos_of_other_sizes_are_refused_and_packed_ones_of_the_same_are_not(
    train_tiny: Train, begin: Callable[..., None], photos: Path, tmp_path: Path, run: Path, outcome: Outcome
) -> None:
    undisturbed = train_tiny("undisturbed")
    begin()
    pack(photos, tmp_path / "small", PackSettings(max_side=40), DataConfig())
    with pytest.raises(
        UserError, match=r"small: photos have other sizes in pixels than when the run"
    ) as caught:
        train_tiny(resume=True, settings={"data.path": str(tmp_path / "small")})
    assert "\n" not in str(caught.value)
    pack(photos, tmp_path / "whole", PackSettings(), DataConfig())
    train_tiny(resume=True, settings={"data.path": str(tmp_path / "whole")})
    assert_same(outcome(run), outcome(undisturbed.folder))
