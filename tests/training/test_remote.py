"""A run on shards at a URL: bit by bit that on the local copy, resumed too, and nothing fetched twice."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec.config
import pytest
import yaml

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.run import TrainResult
from tests.photos.nginx import nginx
from tests.photos.store import Store

pytest.importorskip("aiohttp")
Train = Callable[..., TrainResult]
Outcome = Callable[[Path], dict[str, Any]]


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    pack(photos, tmp_path / "shards", PackSettings(shard_bytes=20_480), DataConfig())
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("backend", "order"),
    [("cpu", "random"), ("cpu", "blocks"), ("cpu", "blocks-first"), ("dali-cpu", "random")],
)
def test_a_run_is_that_on_the_local_copy(
    train_tiny: Train,
    shards: Path,
    tmp_path: Path,
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    order: str,
) -> None:
    if backend == "dali-cpu":
        pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    settings = {"data.backend": backend, "data.order": order}
    train_tiny("local", settings, data=shards)
    with Store(shards) as store:
        store.faults = lambda number, path: "error" if number % 7 == 1 else None
        train_tiny("far", settings, data=Path(store.url))
        fetched = store.of_shards()
        url = store.url
        assert fetched > 0
        assert evaluate(tmp_path / "far", url, half="val")["data"] == url
        assert store.of_shards() == fetched
    one, other = (outcome(tmp_path / run) for run in ("local", "far"))
    assert str(one) == str(other)
    assert yaml.safe_load((tmp_path / "far/config.yaml").read_text())["data"]["path"] == url


def test_a_run_goes_on_from_its_url(
    train_tiny: Train, shards: Path, tmp_path: Path, outcome: Outcome, stop_after: Callable[..., Any]
) -> None:
    from flowerfast.errors import Stopped

    with Store(shards) as store:
        train_tiny("whole", data=Path(store.url))
        with pytest.raises(Stopped):
            train_tiny("part", data=Path(store.url), stop=stop_after(2))
        train_tiny("part", resume=True)
    assert str(outcome(tmp_path / "part")) == str(outcome(tmp_path / "whole"))


def test_blocks_are_of_shards_alone(photos: Path, shards: Path) -> None:
    blocks = DataConfig(order="blocks", workers=1)
    with pytest.raises(UserError, match=r"^data\.order=blocks: .*photos holds no shards; use random"):
        Loader(Photos(photos), augment=None, options=blocks)
    packed = Photos(shards)
    with pytest.raises(UserError, match=r"^data\.order=blocks: not with train\.sampling=balanced"):
        Loader(packed, options=blocks, sampling="balanced")
    index = packed.table.shards
    assert index is not None
    given: dict[str, Any] = {"size": 32, "batch_size": 8, "shuffle": True, "device": "cpu"}
    with Loader(packed, options=blocks, **given) as loader:
        sampler = loader.plan_sampler
        seen = [index.shard[i] for epoch in (0, 1) for batch in sampler.batches(epoch) for i in batch]
        state = loader.state_dict()
    for turns in (seen[:36], seen[36:]):
        assert len([1 for a, b in pairwise(turns) if a != b]) == len(index.files) - 1
    with (
        Loader(packed, options=DataConfig(workers=1), **given) as loader,
        pytest.raises(UserError, match="order is 'blocks', this loader has 'random'"),
    ):
        loader.load_state_dict(state)


def test_a_run_from_nginx_over_tls_is_that_on_the_local_copy(
    train_tiny: Train, shards: Path, tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "nginx"
    place.mkdir()
    with nginx(tmp_path, place) as server:
        monkeypatch.setitem(fsspec.config.conf, "https", {"ssl": server.trusted()})
        train_tiny("local", data=shards)
        train_tiny("far", data=Path(f"{server.url}/moved/shards"))
        fetched = len(server.asked())
        assert fetched > len(list(shards.glob("*.tar")))
        evaluate(tmp_path / "far", f"{server.url}/moved/shards", half="val")
        assert {path.rpartition("/")[2] for _, _, path in server.asked()[fetched:]} == {INDEX}
    assert str(outcome(tmp_path / "local")) == str(outcome(tmp_path / "far"))
