"""A whole small bench: what stands in its result, and that the verdict names what was made slow."""

import time
from dataclasses import replace

import pytest

from flowerfast.bench import suites, training_sources
from flowerfast.bench.environment import SCHEMA
from flowerfast.bench.measure import measure_here
from flowerfast.bench.show import report
from flowerfast.bench.stages import NAMES
from flowerfast.bench.suites import run_bench
from flowerfast.bench.trials import loader_trials
from flowerfast.errors import UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.loaders import speeds
from flowerfast.photos.photos import Photos
from tests.bench.small import CPU, bench_of, slower_decode, tiny

pytestmark = pytest.mark.usefixtures("short_rounds")


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
