"""A whole small bench: what stands in its result, and that the verdict names what was made slow."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowerfast.bench import sources, suites
from flowerfast.bench.disk import cold_read
from flowerfast.bench.environment import SCHEMA
from flowerfast.bench.measure import Pace
from flowerfast.bench.sources import sample
from flowerfast.bench.stages import NAMES, StageClock
from flowerfast.bench.suites import run_bench
from flowerfast.bench.trials import Bench, loader_trials, overrides, pack_sample
from flowerfast.config import Config, load_config
from flowerfast.data.manifest import load_manifest
from flowerfast.errors import UserError
from flowerfast.loaders import Choice, torchvision
from flowerfast.runs import pick_device

TINY = (
    "model.name=test_resnet", "data.image_size=32", "train.batch_size=4", "train.device=cpu",
    "data.backend=torchvision", "data.kernels=torchvision", "data.workers=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures need not be good here."""
    monkeypatch.setattr(suites, "QUICK", Pace(rounds=5, seconds=0.03))


def tiny(data: Path, *more: str) -> Config:
    return load_config(None, [*TINY, *more], {"data.path": str(data)})


def slower_decode(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    decode = torchvision.decode

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return decode(*arguments, **options)

    monkeypatch.setattr(torchvision, "decode", slow)


def step_of(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The training step does nothing and takes so long."""
    monkeypatch.setattr(sources, "train_step", lambda *_: time.sleep(seconds))


def test_a_slow_decode_is_named(photo_folder, monkeypatch):
    slower_decode(monkeypatch, 0.005)
    step_of(monkeypatch, 0)
    found = run_bench(tiny(photo_folder()), ("stages", "loader", "model"), quick=True)
    assert found["stages"]["rows"]["decode"]["ms"] >= 5
    assert found["stages"]["loader_ms"] >= 5
    assert found["verdict"]["bound"] == "decode"
    assert found["verdict"]["findings"][0].startswith("decode-bound: ")
    assert found["verdict"]["advice"][0]["setting"] == "data.cache=ram"  # it alone does without the decode


def test_a_slow_model_is_named(photo_folder, monkeypatch):
    step_of(monkeypatch, 0.1)
    found = run_bench(tiny(photo_folder()), quick=True)
    assert found["verdict"]["bound"] == "model"
    assert found["verdict"]["data_wait"] < 0.3
    assert found["verdict"]["advice"] == []


def test_what_stands_in_the_result(photo_folder):
    found = run_bench(tiny(photo_folder()), quick=True)
    assert (found["schema"], found["kind"], found["quick"]) == (SCHEMA, "bench", True)
    assert found["seconds"] > 0
    assert found["data"]["photos"] == 15
    assert [*found["stages"]["rows"]] == [*NAMES.values(), "assemble"]
    assert found["stages"]["executor"] == "torchvision"
    total = sum(row["ms"] for row in found["stages"]["rows"].values())
    assert found["stages"]["sum_ms"] == pytest.approx(total)
    assert found["settings"]["current"] == "torchvision" == next(iter(found["loader"]))
    for name, row in found["loader"].items():
        assert {"backend", "cache", "workers", "batch_size", "kernels"} <= {*row}, name
        assert len(row["rounds"]) == 5
    assert found["loader"]["torchvision, ram cache"]["cache"] == "ram"
    assert found["loader"]["torchvision, workers=1"]["workers"] == 1
    assert 0 <= found["train"]["torchvision"]["data_wait"] <= 1
    assert "training step" in found["model"]


def test_each_variant_in_a_process_of_its_own(photo_folder):
    found = run_bench(tiny(photo_folder({"a": 4, "b": 4})), ("model",))
    assert {*found} >= {"model", "verdict"}
    for name in ("training step", "forward"):
        assert found["model"][name]["images_per_sec"] > 0
    assert "loader" not in found


def test_an_unknown_suite_is_refused(photo_folder):
    with pytest.raises(UserError, match=r"--suite speed: no such suite; give any of stages, loader"):
        run_bench(tiny(photo_folder()), ("loader", "speed"))


def test_more_loaders_may_stand_beside(photo_folder):
    config = tiny(photo_folder())
    mine = bench_of(config)
    peer = replace(loader_trials(mine, True)[0][0].variant(mine), name="peer")
    found = run_bench(config, ("loader",), quick=True, extra={"peer": peer})
    assert [*found["loader"]][:2] == ["peer", "torchvision"]
    assert found["loader"]["peer"]["images_per_sec"] > 0
    assert found["verdict"]["loader_images_per_sec"] == found["loader"]["torchvision"]["images_per_sec"]


# -------------------------------------------------------------------------------- trials


def bench_of(config: Config, scratch: Path = Path("unused"), cache: str = "none") -> Bench:
    manifest = load_manifest(Path(str(config.data.path)))
    choice = Choice("torchvision", "", cache)
    return Bench(config, Path(str(config.data.path)), manifest, pick_device("cpu"), choice, 8, scratch)


def test_each_trial_changes_one_thing(photo_folder):
    trials, _ = loader_trials(bench_of(tiny(photo_folder())), quick=False)
    names = [trial.name for trial in trials]
    assert names[0] == "torchvision"
    assert {"torchvision, ram cache", "torchvision, disk cache", "torchvision, batch 16"} <= {*names}
    assert not any("packed" in name or "decode_scale" in name for name in names)  # photos are small already
    assert len({*names}) == len(names)


def test_a_cache_without_room_for_all_is_left_out(photo_folder):
    config = tiny(photo_folder(), "data.cache_gb=0.00001")
    trials, left_out = loader_trials(bench_of(config), quick=False)
    assert not any("cache" in trial.name for trial in trials)
    assert "the budget is" in left_out["torchvision, ram cache"]


def test_with_a_cache_the_trial_is_to_do_without(photo_folder):
    trials, _ = loader_trials(bench_of(tiny(photo_folder(), "data.cache=ram"), cache="ram"), quick=True)
    assert [t.name for t in trials[:2]] == ["torchvision, ram cache", "torchvision"]


def test_large_photos_are_packed_and_shrunk(photo_folder, tmp_path):
    bench = bench_of(tiny(photo_folder(sizes=[(300, 200)])), tmp_path / "scratch")
    trials, _ = loader_trials(bench, quick=False)
    by_setting = {trial.setting: trial for trial in trials}
    packed = by_setting["flowerfast pack --max-side 48"].data
    assert packed is not None
    found = load_manifest(packed)
    assert len(found) == 8
    assert set(found.height.tolist()) == {48}
    assert "data.decode_scale=auto" in by_setting


def test_packed_photos_are_not_packed_again(photo_folder, tmp_path):
    packed = pack_sample(bench_of(tiny(photo_folder(sizes=[(300, 200)])), tmp_path / "a"), 150)
    _, left_out = loader_trials(bench_of(tiny(packed), tmp_path / "b"), quick=False)
    assert left_out["torchvision, packed --max-side 48"] == "the photos are packed already"


def test_overrides_make_the_same_configuration():
    texts = ["train.lr=0.5", "data.cache_dir=a: b", "augment.crop_scale=[0.2, 0.9]", "train.amp=off"]
    config = load_config("paper", texts)
    assert load_config(None, overrides(config)) == config


@pytest.mark.parametrize(("count", "wanted", "length"), [(10, None, 10), (10, 20, 10), (100, 7, 7)])
def test_a_sample_is_spread(count, wanted, length):
    found = sample(count, wanted)
    assert len(set(found.tolist())) == length
    assert (found[0], found[-1]) == (0, count - 1)


# -------------------------------------------------------------------------------- stages


def test_a_cached_photo_is_neither_read_nor_decoded_again(photo_folder, monkeypatch):
    config = tiny(photo_folder(), "data.cache=ram")
    manifest = load_manifest(Path(str(config.data.path)))
    clock = StageClock(config, manifest, sample(len(manifest), None), "ram")
    clock.warm_up()
    slower_decode(monkeypatch, 0.05)
    found = clock.measure(2, pick_device("cpu"))
    assert found["rows"]["decode"]["ms"] < 50
    assert found["rows"]["read"]["ms"] < found["loader_ms"]


def test_a_cold_read_is_measured_or_says_why_not(photo_folder):
    manifest = load_manifest(photo_folder())
    found = cold_read(manifest, range(len(manifest)), 3)
    assert ("ms" in found) != ("not_measured" in found)


@pytest.mark.real_data
def test_stages_of_real_photos_are_all_there(real_photos):
    manifest = load_manifest(real_photos)
    clock = StageClock(load_config(), manifest, sample(len(manifest), 32))
    clock.warm_up()
    found = clock.measure(5, pick_device("cpu"))
    assert max(found["rows"], key=lambda name: found["rows"][name]["ms"]) in ("decode", "crop+resize")
