"""The façade: epochs in turn, where it stands and goes on, what it chose, and what it refuses."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.loaders.cache import choice
from flowerfast.loaders.engine import open_engine
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler, make_eval_plan
from flowerfast.ranks.who import Ranks

Open = Callable[..., Loader]
Settings = dict[str, Any]
RANDOM: Settings = {"augment": Augment(), "seed": 3}
Digests = Callable[..., list[tuple[list[int], list[int], str]]]


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder(), max_bad=1)  # 15: four batches


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("flowerfast")}


# ---------------------------------------------------------------------------------------------- epochs


def test_epochs_come_in_turn_for_code_that_knows_none(
    photos: Photos, open_loader: Open, digests: Digests
) -> None:
    loader, other = open_loader(photos, **RANDOM), open_loader(photos, **RANDOM)
    assert [digests(loader) for _ in range(3)] == [digests(other.epoch(epoch)) for epoch in range(3)]
    for images, labels in loader:
        assert (len(images), len(labels)) == (4, 4)
        break  # and the epoch is over
    assert digests(loader) == digests(other.epoch(4))
    assert digests(loader.epoch(1)) == digests(other.epoch(1))
    assert digests(loader) == digests(other.epoch(2))
    assert len(loader) == 4


def test_augmented_photos_are_shuffled_unless_told_otherwise(photos: Photos, open_loader: Open) -> None:
    for augment, shuffle, expected in (
        (Augment(), None, True),
        (None, None, False),
        (Augment(), False, False),
        (None, True, True),
    ):
        order = [i for b in open_loader(photos, augment=augment, shuffle=shuffle) for i in b.indices.tolist()]
        assert (order != sorted(order)) == expected


def test_settings_reach_the_pixels(photos: Photos, open_loader: Open) -> None:
    loader = open_loader(photos, size=40, crop_pct=0.5, batch_size=20)
    plan = make_eval_plan(photos.indices, photos.sizes(photos.indices), 40, 0.5)
    (batch,) = loader
    assert np.array_equal(batch.images.permute(0, 2, 3, 1), loader.execute(plan))


def test_leaving_the_block_stops_the_threads(photos: Photos, open_loader: Open, backend: Settings) -> None:
    before = threads()
    with open_loader(photos, **backend, **RANDOM) as loader:
        assert sum(len(batch) for batch in loader) == 15
        next(iter(loader))
        assert threads() > before
    assert threads() == before
    loader.close()


def test_a_loader_lives_in_any_thread(
    photos: Photos, open_loader: Open, backend: Settings, digests: Digests
) -> None:
    def work() -> list[tuple[list[int], list[int], str]]:
        with open_loader(photos, **backend, **RANDOM) as loader:
            return [batch for _ in range(2) for batch in digests(loader)]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result(timeout=60) == work()


# ------------------------------------------------------------------------------------ where it stands


@pytest.mark.parametrize("done", [0, 1, 3, 4])
@pytest.mark.parametrize(
    "change",
    [{"workers": 1, "prefetch": 1}, {"kernels": "torchvision"}, {"cache": "ram"}, {"backend": "torchvision"}],
    ids=str,
)
def test_another_loader_goes_on_with_exactly_the_rest(
    photos: Photos, open_loader: Open, digests: Digests, done: int, change: Settings
) -> None:
    whole = [digests(open_loader(photos, **RANDOM).epoch(epoch)) for epoch in range(4)]
    loader = open_loader(photos, **RANDOM)
    list(loader.epoch(1))
    batches = loader.epoch(2)
    for _ in range(done):
        next(batches)
    state = json.loads(json.dumps(loader.state_dict()))
    batches.close()
    resumed = open_loader(photos, **RANDOM, **change)
    resumed.load_state_dict(state)
    assert resumed.next_epoch == (2 if done < 4 else 3)
    first = digests(resumed)
    assert first == (whole[2][done:] if done < 4 else whole[3])
    assert digests(resumed.epoch(3)) == whole[3]
    again = open_loader(photos, **RANDOM, **change)
    again.load_state_dict(state)
    assert digests(again.epoch(2)) == whole[2][done:]
    assert digests(again.epoch(2)) == whole[2]  # asked for once more, it is whole
    again.load_state_dict(state)
    assert digests(again.epoch(1)) == whole[1]
    again.load_state_dict(state)
    assert digests(again.epoch(2, 1)) == whole[2][1:]


def test_the_rest_has_the_same_samples_whatever_makes_them_and_on_however_many_ranks(
    photos: Photos, open_loader: Open
) -> None:
    pytest.importorskip("nvidia.dali")
    loader = open_loader(photos, **RANDOM)
    batches = loader.epoch(0)
    next(batches)
    state = loader.state_dict()
    rest = [batch.indices for batch in batches]
    dali = open_loader(photos, **RANDOM, backend="dali-cpu")
    ranks = [open_loader(photos, **RANDOM, rank=rank, world_size=2) for rank in range(2)]
    for other in (dali, *ranks):
        other.load_state_dict(state)
    assert [b.indices.tolist() for b in dali] == [indices.tolist() for indices in rest]
    for indices, shares in zip(rest, zip(*ranks, strict=True), strict=True):
        assert torch.equal(torch.cat([share.indices for share in shares]), indices)


def test_an_epoch_that_is_over_leaves_the_next(photos: Photos, open_loader: Open) -> None:
    loader = open_loader(photos)
    assert (loader.next_epoch, loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 0, 0)
    list(loader.epoch(6))
    assert (loader.next_epoch, loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (7, 7, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 5},
        {"seed": 4},
        {"size": 40},
        {"shuffle": False},
        {"augment": Augment(flip=0)},
        {"crop_pct": 1.0},
        {"samples": range(7)},
        {"samples": range(15)[::-1]},
        {"sampling": "balanced"},
        {"photos": "others"},
    ],
    ids=str,
)
def test_a_state_of_other_photos_or_settings_is_refused_in_one_line(
    photos: Photos,
    photo_folder: Callable[..., Path],
    open_loader: Open,
    change: Settings,
) -> None:
    state = open_loader(photos, **RANDOM).state_dict()
    (name,) = change
    if name == "photos":
        loader = open_loader(photo_folder({"a": 8, "b": 7}, name="others"), **RANDOM)
    elif name == "samples":
        loader = open_loader(photos.subset(change["samples"]), **RANDOM)
    else:
        loader = open_loader(photos, **{**RANDOM, **change})
    with pytest.raises(
        UserError, match=rf"loader state: {name} is .*, this loader has .*; open it"
    ) as caught:
        loader.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert loader.next_epoch == 0


# --------------------------------------------------------------------------------------- what it chose


def test_choices_and_their_reasons(
    photos: Photos, open_loader: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = open_loader(photos, **RANDOM, backend="torchvision")
    assert plain.choice() == {"backend": "cpu", "cache": "none"}
    assert (plain.backend_reason, plain.cache_reason) == ("data.backend=cpu", "data.cache=none")
    cached = open_loader(photos, **RANDOM, cache="ram")
    assert (cached.cache, cached.cache_reason) == ("ram", "data.cache=ram")
    monkeypatch.setattr(choice, "device_memory", lambda device=None: 0)
    monkeypatch.setattr(choice, "free_disk", lambda folder: 0)
    crowded = open_loader(photos, **RANDOM, cache="auto")
    assert crowded.cache == "none"
    assert "does not fit in the budget" in crowded.cache_reason
    exact = open_loader(photos, cache="ram")
    assert (exact.cache, exact.cache_reason) == ("none", "without augmentation photos are decoded exactly")
    state = cached.state_dict()
    assert (state["backend"], state["cache"]) == ("cpu", "ram")


def test_what_decides_a_measured_choice_is_the_loaders_own(
    photos: Photos, open_loader: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def choose(data: DataConfig, device: torch.device, among: Photos) -> tuple[str, str]:
        asked.append((data.image_size, data.cache, data.workers, among))
        return "cpu", "measured"

    monkeypatch.setattr(loader_module, "choose_backend", choose)
    loader = open_loader(photos, **RANDOM, size=48, image_size=224, cache="ram")
    assert (loader.backend, loader.backend_reason, loader.hw_decoder_load) == ("cpu", "measured", None)
    open_loader(photos, size=64, cache="ram")  # an evaluation has no cache
    assert asked == [(48, "ram", 2, photos), (64, "none", 2, photos)]


@pytest.mark.parametrize(
    ("settings", "share"),
    [({"decoder": "gpu"}, 0.3), ({"decoder": "auto"}, None), ({"decoder": "gpu", "cache": "vram"}, None),
     ({"decoder": "gpu", "augment": None}, None)],
)  # fmt: skip
def test_the_share_of_the_hardware_decoder_is_settled_where_the_gpu_decodes(
    photos: Photos,
    open_loader: Open,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    share: float | None,
) -> None:
    settled: list[DataConfig] = []
    dali = pytest.importorskip("flowerfast.loaders.dali.settings")
    monkeypatch.setattr(loader_module, "choose_backend", lambda *_: ("dali", "there"))
    monkeypatch.setattr(loader_module, "open_cache", lambda *_: None)
    monkeypatch.setattr(dali, "choose_share", lambda data, device, among: 0.3)

    def opened(backend: str, sampler: Sampler, data: DataConfig, *_: Any) -> Any:
        settled.append(data)
        return open_engine("cpu", sampler, data, torch.device("cpu"), None)

    monkeypatch.setattr(loader_module, "open_engine", opened)
    loader = open_loader(photos, **{**RANDOM, **settings})
    assert loader.hw_decoder_load == share
    assert loader.choice().get("hw_decoder_load") == share
    assert settled[0].hw_decoder_load == ("auto" if share is None else share)


def test_arguments_go_before_options(photos: Photos) -> None:
    options = DataConfig(backend="dali-cpu", cache="ram", workers=3)
    with Loader(
        photos, augment=Augment(), device="cpu", backend="cpu", cache="none", options=options
    ) as loader:
        assert loader.choice() == {"backend": "cpu", "cache": "none"}
        assert loader.device == torch.device("cpu")
        assert loader.photos is photos
        assert not hasattr(loader, "sampler")  # by which Lightning would take it for a DataLoader
        assert not hasattr(loader, "sampler")  # by which Lightning would take it for a DataLoader


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"backend": "gpu"}, r"Loader: backend='gpu': "),
        ({"cache": "tape"}, r"Loader: cache='tape': "),
        ({"workers": -1}, r"Loader: workers=-1: "),
        ({"cache": "vram", "augment": Augment()}, r"^cache=vram: the cpu backend keeps photos in ram"),
    ],
)
def test_what_is_not_to_be_had_is_refused_in_one_line(
    photos: Photos, open_loader: Open, wrong: Settings, said: str
) -> None:
    before = threads()
    with pytest.raises(UserError, match=said) as caught:
        open_loader(photos, **wrong)
    assert "\n" not in str(caught.value)
    assert threads() == before


def test_a_device_that_there_is_none_of_is_refused(photos: Photos) -> None:
    with pytest.raises(UserError, match=r"device='gpu': no such device; give auto, cpu, cuda, cuda:1 or mps"):
        Loader(photos, device="gpu")


def test_a_gpu_that_is_not_there_is_refused(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^device=cuda: torch sees no CUDA GPU; use device=auto"):
        Loader(photos, device="cuda")
    with Loader(photos) as loader:
        assert loader.device == torch.device("cpu")


def test_warming_up_changes_nothing_that_comes(photos: Photos, open_loader: Open) -> None:
    """It makes the pixels of one sample, without a word of it if that one is bad."""
    expected = [batch.images for batch in open_loader(photos, **RANDOM).epoch(0)]
    loader = open_loader(photos, **RANDOM)
    assert loader.warm_up() > 0
    assert all(map(torch.equal, expected, [batch.images for batch in loader.epoch(0)]))
    first = int(next(loader.plan_sampler.plans(0)).indices[0])
    (photos.root / photos.path(first)).unlink()
    assert loader.warm_up() > 0
    assert not photos.bad
    assert open_loader(photos.subset([]), **RANDOM).warm_up() >= 0


def test_notes_tell_why_dali_augments(
    photos: Photos, open_loader: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.loaders.loader.choose_augmenter", lambda *_: ("dali", "no compiler"))
    loader = open_loader(photos, **RANDOM)
    assert loader.notes == ["DALI's own operators augment on the GPU: no compiler"]
    assert loader.choice()["gpu_kernels"] == "dali"
    assert open_loader(photos, **RANDOM, gpu_kernels="dali").notes == []


def test_notes_tell_what_the_cache_could_not_hold(photos: Photos, open_loader: Open) -> None:
    loader = open_loader(photos, **RANDOM, cache="ram", cache_gb=1e-5)
    assert any("of 15 photos have a place" in note for note in loader.notes)


# ------------------------------------------------------------------------------------- what it is given


@pytest.mark.parametrize("batch", [-1, 5, "x", None])
def test_a_state_of_no_place_is_refused(photos: Photos, open_loader: Open, batch: Any) -> None:
    loader = open_loader(photos)
    with pytest.raises(
        UserError, match=r"loader state: epoch=0, batch=.*: no place among 4 batches an epoch"
    ):
        loader.load_state_dict({**loader.state_dict(), "batch": batch})
    with pytest.raises(UserError, match="expected what state_dict gave, got list"):
        loader.load_state_dict([])


@pytest.mark.parametrize("place", [(-1, 0), (0, -1)])
def test_an_epoch_or_batch_before_the_first_is_refused(
    photos: Photos, open_loader: Open, place: tuple[int, int]
) -> None:
    with pytest.raises(UserError, match=r"(epoch|start_batch)=-1: give a whole number from 0 to"):
        open_loader(photos).epoch(*place)


def test_a_closed_loader_says_so(photos: Photos, open_loader: Open) -> None:
    loader = open_loader(photos, keep=True)
    list(loader)
    loader.close()
    for use in (lambda: iter(loader), lambda: loader.epoch(0), lambda: loader.execute(None)):
        with pytest.raises(UserError, match="this loader is closed; open another"):
            use()


def test_ranks_are_those_of_torch_distributed_where_it_runs(
    photos: Photos, open_loader: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.loaders.loader.current", lambda: Ranks(2, 3))
    samplers = [open_loader(photos, **given).plan_sampler for given in ({}, {"rank": 0, "world_size": 1})]
    assert [(sampler.rank, sampler.world_size) for sampler in samplers] == [(2, 3), (0, 1)]


def test_more_processes_than_samples_of_a_batch_are_refused(photos: Photos, open_loader: Open) -> None:
    with pytest.raises(UserError, match=r"world_size=5, batch_size=4: .*each process needs a sample"):
        open_loader(photos, rank=1, world_size=5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"photos": "folder"}, "photos='folder': give ff.Photos"),
        ({"augment": {}}, "augment={}: give ff.Augment"),
    ],
)
def test_what_is_of_another_kind_is_refused(photos: Photos, given: Settings, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Loader(**{"photos": photos, **given})


@pytest.mark.parametrize("backend", ["cpu", "dali-cpu"])
def test_a_folded_last_batch_comes_from_every_backend_and_its_place_is_not_mistaken(
    photo_folder: Callable[..., Path], backend: str
) -> None:
    if backend == "dali-cpu":
        pytest.importorskip("nvidia.dali")
    given = {"size": 32, "batch_size": 5, "augment": Augment(), "device": "cpu", "backend": backend}
    photos = Photos(photo_folder({"a": 6, "b": 5}))
    with Loader(photos, fold_last=True, **given) as folded, Loader(photos, **given) as plain:
        batches, others = list(folded.epoch(1)), list(plain.epoch(1))
        assert ([len(b) for b in batches], [len(b) for b in others], len(folded)) == ([5, 6], [5, 5, 1], 2)
        for name in ("images", "labels", "indices"):
            assert torch.equal(*(torch.cat([getattr(b, name) for b in found]) for found in (batches, others)))
        with pytest.raises(UserError, match=r"^loader state: fold_last is True, this loader has False"):
            plain.load_state_dict(folded.state_dict())
        earlier = {
            key: value for key, value in plain.state_dict().items() if key not in ("fold_last", "sampling")
        }
        plain.load_state_dict(earlier)  # of a version that knew nothing of it
