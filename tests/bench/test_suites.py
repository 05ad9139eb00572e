"""A whole small bench: what stands in its result, and that the verdict names what was made slow."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import flowerfast
from flowerfast.bench import suites, training_sources
from flowerfast.bench.compare import read_result
from flowerfast.bench.environment import SCHEMA
from flowerfast.bench.measure import measure_here
from flowerfast.bench.result import present
from flowerfast.bench.show import report
from flowerfast.bench.sources import sample
from flowerfast.bench.stages import NAMES, StageClock, cold_read
from flowerfast.bench.suites import run_bench
from flowerfast.bench.training_sources import steps, training
from flowerfast.bench.trials import LOADER, Bench, loader_trials, overrides, pack_sample
from flowerfast.config import Config, DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.loaders import speeds
from flowerfast.loaders.batch import Batch
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import samples as reading
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config

TINY = (
    "model.name=test_resnet", "data.image_size=32", "train.batch_size=4", "train.device=cpu",
    "data.backend=cpu", "data.kernels=torchvision", "data.workers=2",
)  # fmt: skip
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("short_rounds")


def tiny(data: Path, *more: str) -> Config:
    return load_config(None, [*TINY, *more], {"data.path": str(data)})


def slower_decode(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    decode = reading.decode

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return decode(*arguments, **options)

    monkeypatch.setattr(reading, "decode", slow)


def step_of(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The training step does nothing and takes so long."""
    monkeypatch.setattr(training_sources, "train_step", lambda *_: time.sleep(seconds))


def test_a_slow_decode_is_named(photo_folder, monkeypatch):
    slower_decode(monkeypatch, 0.01)
    step_of(monkeypatch, 0)
    data = photo_folder({"daisy": 4, "rose": 4})
    found = run_bench(tiny(data), ("stages", "loader", "model"), quick=True)
    assert found["stages"]["rows"]["decode"]["ms"] >= 10
    assert found["stages"]["loader_ms"] >= 10
    assert found["verdict"]["bound"] == "decode"
    assert found["verdict"]["findings"][0].startswith("decode-bound: ")


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
    assert found["settings"]["current"] == "cpu" == next(iter(found["loader"]))
    for name, row in found["loader"].items():
        assert {"backend", "cache", "workers", "batch_size", "kernels"} <= {*row}, name
        assert len(row["rounds"]) == 5
    assert found["loader"]["cpu, ram cache"]["cache"] == "ram"
    assert found["loader"]["cpu, workers=1"]["workers"] == 1
    assert 0 <= found["train"]["cpu"]["data_wait"] <= 1
    assert "training step" in found["model"]


def test_each_variant_in_a_process_of_its_own(photo_folder):
    found = run_bench(tiny(photo_folder({"a": 4, "b": 4})), ("model",))
    assert {*found} >= {"model", "verdict"}
    for name in ("training step", "forward"):
        assert found["model"][name]["images_per_sec"] > 0
    assert "loader" not in found


def test_what_was_left_out_is_said(photo_folder):
    data, told = photo_folder(), []
    (data / "rose/x.heic").write_bytes(b"no photo")
    run_bench(tiny(data), ("model",), quick=True, say=told.append)
    assert told[0].startswith("1 file is no photo that can be read: 1 .heic")


def test_an_unknown_suite_is_refused(photo_folder):
    with pytest.raises(UserError, match=r"--suite speed: no such suite; give any of stages, loader"):
        run_bench(tiny(photo_folder()), ("loader", "speed"))


def test_more_loaders_may_stand_beside(photo_folder):
    config = tiny(photo_folder())
    mine = bench_of(config)
    peer = replace(loader_trials(mine, True)[0][0].variant(mine), name="peer")
    found = run_bench(config, ("loader",), quick=True, extra={"peer": peer})
    assert [*found["loader"]][:2] == ["peer", "cpu"]
    assert found["loader"]["peer"]["images_per_sec"] > 0
    assert found["verdict"]["loader_images_per_sec"] == found["loader"]["cpu"]["images_per_sec"]


# -------------------------------------------------------------------------------- trials


def bench_of(config: Config, scratch: Path = Path("unused")) -> Bench:
    return Bench(config, Photos(str(config.data.path)), CPU, 8, scratch)


def test_each_trial_changes_one_thing(photo_folder):
    trials, _ = loader_trials(bench_of(tiny(photo_folder())), quick=False)
    names = [trial.name for trial in trials]
    assert names[0] == "cpu"
    assert {"cpu, ram cache", "cpu, disk cache", "cpu, batch 16"} <= {*names}
    assert not any("packed" in name or "decode_scale" in name for name in names)  # photos are small already
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    ("decoder", "names"),
    [("cpu", ["dali, decoder=gpu", "dali, decoder=gpu, load=0", "dali, decoder=gpu, load=0.1",
              "dali, decoder=gpu, load=0.65"]),
     ("gpu", ["dali, decoder=gpu, load=0", "dali, decoder=gpu, load=0.1", "dali, decoder=gpu, load=0.65"])],
)  # fmt: skip
def test_shares_of_the_hardware_decoder_are_set_beside(photo_folder, monkeypatch, decoder, names):
    settings = pytest.importorskip("flowerfast.loaders.dali.settings")
    monkeypatch.setattr(settings, "choose_share", lambda data, device, photos: 0.2)
    config = tiny(photo_folder(), "data.backend=dali", f"data.decoder={decoder}", "data.cache_gb=1")
    trials, _ = loader_trials(replace(bench_of(config), device=torch.device("cuda")), quick=False)
    by_gpu = [trial for trial in trials if "decoder" in trial.name]
    assert [trial.name for trial in by_gpu] == names
    for trial in by_gpu:
        data, load = trial.config(bench_of(config)).data, float(trial.name.partition("load=")[2] or 0.2)
        assert (data.decoder, data.hw_decoder_load) == ("gpu", load)
        assert trial.about(bench_of(config))["hw_decoder_load"] == load


def test_a_cache_without_room_for_all_is_left_out(photo_folder):
    config = tiny(photo_folder(), "data.cache_gb=0.00001")
    trials, left_out = loader_trials(bench_of(config), quick=False)
    assert not any("cache" in trial.name for trial in trials)
    assert "the budget is" in left_out["cpu, ram cache"]


def test_with_a_cache_the_trial_is_to_do_without(photo_folder):
    trials, _ = loader_trials(bench_of(tiny(photo_folder(), "data.cache=ram")), quick=True)
    assert [t.name for t in trials[:2]] == ["cpu, ram cache", "cpu"]


def test_large_photos_are_packed_and_shrunk(photo_folder, tmp_path):
    bench = bench_of(tiny(photo_folder(sizes=[(300, 200)])), tmp_path / "scratch")
    trials, _ = loader_trials(bench, quick=False)
    by_setting = {trial.setting: trial for trial in trials}
    packed = by_setting["flowerfast pack --max-side 48"].data
    assert packed is not None
    photos = Photos(packed)
    assert len(photos) == 8
    assert set(photos.sizes(photos.indices)[1].tolist()) == {48}
    assert "data.decode_scale=auto" in by_setting


def test_packed_photos_are_not_packed_again(photo_folder, tmp_path):
    packed = pack_sample(bench_of(tiny(photo_folder(sizes=[(300, 200)])), tmp_path / "a"), 150)
    _, left_out = loader_trials(bench_of(tiny(packed), tmp_path / "b"), quick=False)
    assert left_out["cpu, packed --max-side 48"] == "the photos are packed already"


def test_overrides_make_the_same_configuration():
    paths = ["data.cache_dir=a: b", "model.weights=123"]
    texts = ["train.lr=0.5", *paths, "augment.crop_scale=[0.2, 0.9]", "train.amp=off"]
    config = load_config("paper", texts)
    assert load_config(None, overrides(config)) == config


@pytest.mark.parametrize(("count", "wanted", "length"), [(10, None, 10), (10, 20, 10), (15, 7, 7)])
def test_a_sample_is_spread(photo_folder, count, wanted, length):
    few = sample(Photos(photo_folder()).subset(range(15 - count, 15)), wanted).indices.tolist()
    assert len({*few}) == length
    assert (few[0], few[-1]) == (15 - count, 14)


# -------------------------------------------------------------------------------- what is kept


@pytest.fixture
def here(monkeypatch) -> None:
    """Variants are measured in this process, however noisy."""
    monkeypatch.setattr(suites, "measure", measure_here)
    monkeypatch.setattr(speeds, "WIDE", float("inf"))


@pytest.mark.usefixtures("here")
def test_speeds_are_kept_and_read(photo_folder):
    pytest.importorskip("nvidia.dali")
    said: list[str] = []
    config = tiny(photo_folder())
    rows = run_bench(config, ("loader",), say=said.append)["loader"]
    (line,) = (text for text in said if text.startswith("speeds are kept in "))
    assert "data.backend=auto takes cpu (no DALI on the GPU" in line
    wanted = [config.data.model_copy(update={"backend": name}) for name in ("cpu", "dali-cpu")]
    wanted.append(config.data.model_copy(update={"cache": "ram"}))
    found = speeds.compare(Photos(str(config.data.path)), CPU, wanted)
    assert found is not None
    expected = [rows[name] for name in ("cpu", "dali-cpu", "cpu, ram cache")]
    assert [(s.images_per_sec, s.spread) for s in found[1]] == [
        (row["images_per_sec"], row["spread"]) for row in expected
    ]
    larger = config.data.model_copy(update={"workers": 1})  # of the scaling curve
    assert speeds.compare(Photos(str(config.data.path)), CPU, [larger]) is not None


@pytest.mark.usefixtures("here")
def test_a_cache_folder_that_cannot_be_written_costs_a_line(photo_folder, own_cache):
    (own_cache / "speeds").touch()
    said: list[str] = []
    found = run_bench(tiny(photo_folder()), ("loader",), say=said.append)
    assert found["loader"]["cpu"]["images_per_sec"] > 0
    (line,) = (text for text in said if text.startswith("speeds are not kept"))
    assert line.startswith(f"speeds are not kept for data.backend=auto: {own_cache}: ")
    assert "\n" not in line


def test_a_first_look_keeps_nothing(photo_folder, own_cache):
    run_bench(tiny(photo_folder()), ("loader",), quick=True)
    assert not (own_cache / "speeds").exists()


def test_the_present_loader_is_what_auto_takes_and_says_why(photo_folder, monkeypatch):
    """A speed that was measured long ago decides what is present, as for a training run, and is named."""
    config = tiny(photo_folder(), "data.backend=auto")
    told = "measured on this machine on 2026-01-02: cpu 9 images/s, dali 8"
    monkeypatch.setattr(loader_module, "choose_backend", lambda data, device, photos: ("cpu", told))
    found = run_bench(config, ("loader",), quick=True)
    assert found["settings"]["current"] == "cpu"
    assert (found["settings"]["backend"], found["settings"]["backend_reason"]) == ("cpu", told)
    assert f"backend: cpu ({told})" in [str(part) for part in report(found)]


# -------------------------------------------------------------------------------- sources


@pytest.fixture
def trained(monkeypatch) -> list[Any]:
    """What training steps were given; they do nothing else."""
    seen: list[Any] = []
    monkeypatch.setattr(training_sources, "train_step", lambda _, batch: seen.append(batch))
    return seen


def pairs() -> Any:
    """A loader of somebody else's."""
    while True:
        yield [(torch.zeros(3, 3, 32, 32), torch.tensor([2, 0, 1]))]


@pytest.mark.parametrize("kind", ["ours", "pairs", "synthetic"])
def test_what_is_trained_on_is_a_batch(photo_folder, trained, kind):
    data = photo_folder()
    if kind == "synthetic":
        source = steps(TINY)
    else:
        ours = {"target": LOADER, "options": {"data": str(data), "settings": TINY, "photos": 6}}
        others = {"target": f"{__name__}:pairs", "options": {}}
        source = training(ours if kind == "ours" else others, TINY)
    for drawn in next(source.epochs):
        images, labels = drawn
        assert len(images) == len(labels)
    source.close()
    assert trained
    for batch in trained:
        assert isinstance(batch, Batch)
        assert batch.images.shape[1:] == (3, 32, 32)
        for part in (batch.labels, batch.indices):
            assert part.dtype == torch.int64
            assert part.shape == (len(batch),)
        assert batch.indices.device == CPU
    if kind == "ours":
        photos = Photos(data)
        drawn_samples = torch.cat([batch.indices for batch in trained])
        assert sorted(drawn_samples.tolist()) == sample(photos, 6).indices.tolist()
        assert (
            torch.cat([batch.labels for batch in trained]).tolist() == photos.labels[drawn_samples].tolist()
        )


# -------------------------------------------------------------------------------- stages


def test_a_cached_photo_is_neither_read_nor_decoded_again(photo_folder, monkeypatch):
    config = tiny(photo_folder(), "data.cache=ram")
    clock = StageClock(config, Photos(str(config.data.path)), "ram")
    clock.warm_up()
    slower_decode(monkeypatch, 0.05)
    stages = clock.measure(2, CPU)
    clock.close()
    assert stages["rows"]["decode"]["ms"] < 50
    assert stages["rows"]["read"]["ms"] < stages["loader_ms"] < 50


@pytest.mark.parametrize("packed", [False, True])
def test_a_cold_read_is_measured_or_says_why_not(photo_folder, tmp_path, packed):
    folder = photo_folder()
    if packed:
        pack(folder, tmp_path / "packed", PackSettings(), DataConfig())
    figures = cold_read(Photos(tmp_path / "packed" if packed else folder), 3)
    assert ("ms" in figures) != ("not_measured" in figures)
    assert "mapped" not in figures.get("not_measured", "")


@pytest.mark.real_data
def test_stages_of_real_photos_are_all_there(real_photos):
    clock = StageClock(load_config(), sample(Photos(real_photos), 32))
    clock.warm_up()
    stages = clock.measure(5, CPU)
    clock.close()
    assert max(stages["rows"], key=lambda name: stages["rows"][name]["ms"]) in ("decode", "crop+resize")


# -------------------------------------------------------------------------------- results


def test_the_revision_of_another_project_is_not_ours(tmp_path):
    """flowerfast is installed in an environment that lies in somebody's checkout."""
    site = tmp_path / "theirs" / ".venv" / "site-packages"
    package = Path(flowerfast.__file__).parent
    shutil.copytree(package, site / "flowerfast", ignore=shutil.ignore_patterns("__pycache__"))
    git = ("git", "-C", str(tmp_path / "theirs"), "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    script = (
        "import json, torch, flowerfast; from flowerfast.bench.environment import environment;"
        "print(json.dumps([flowerfast.__file__, environment(torch.device('cpu'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, env = json.loads(done.stdout)
    assert Path(file).is_relative_to(site)
    assert (env["git"], env["git_changed"]) == (None, None)


def test_a_result_with_the_older_name_of_the_backend_is_read_with_the_present_one():
    old = read_result(Path(__file__).parents[2] / "benchmarks/results/bench-cpu-2cores.json")
    assert (old["settings"]["backend"], old["settings"]["current"]) == ("cpu", "cpu")
    assert present(old, "loader") == old["loader"]["cpu"]
    assert {row["backend"] for row in old["loader"].values()} == {"cpu", "dali-cpu"}
    assert old["loader"]["cpu, kernels=torchvision"]["kernels"] == "torchvision"
