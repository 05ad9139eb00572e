"""gpu_speed.py, rehearsed on the CPU: what it writes, how shares and goals are made, what failed rows do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu_speed, tables
from benchmarks.gpu import rows, session, shares, trace
from benchmarks.gpu.alone import run_python
from benchmarks.gpu.session import find_photos
from benchmarks.gpu.show import lines
from benchmarks.gpu.tables import headline
from benchmarks.peers import paper
from flowerfast.bench.child import ChildFailed, Variant
from flowerfast.bench.here import measure_here
from flowerfast.bench.measure import Pace, measure
from flowerfast.config import load_config
from flowerfast.data.manifest import load_manifest
from flowerfast.data.plan import End
from flowerfast.loaders.dali_probe import dali_problem
from flowerfast.loaders.sampling import Sampler
from flowerfast.parity import step_plans

needs_dali = pytest.mark.skipif(dali_problem(torch.device("cpu")) is not None, reason="needs DALI")
TINY = ["--device", "cpu", "--batch-size", "2", "--image-size", "32", "--model", "test_resnet"]
QUICK = ["--rounds", "1", "--seconds", "0", "--photos", "8", "--profile-steps", "2"]


# -------------------------------------------------------------------------------------------- the rehearsal


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are measured here: the paper's, which has worker processes, as a loader only; no compiled ones."""

    def quick(variants: list[Variant], pace: Pace, say: Any) -> dict[str, Any]:
        apart = [v for v in variants if v.target == paper.TARGET]
        here = [v for v in variants if v.name not in (rows.PAPER, rows.COMPILED)]
        found = {**measure_here(here, pace, say), **(measure(apart, pace, say) if apart else {})}
        return {v.name: found[v.name] for v in variants if v.name in found}

    monkeypatch.setattr(session, "measure", quick)


@needs_dali
def test_a_rehearsal_measures_every_part(photo_folder, tmp_path, capsys, in_this_process):
    small = photo_folder({"daisy": 3, "rose": 2})
    camera = photo_folder({"daisy": 3, "rose": 2}, sizes=[(300, 270)], name="camera")
    out = tmp_path / "out" / "gpu-speed-test.json"
    common = ["--data", str(small), "--out", str(out), *TINY, *QUICK]
    assert gpu_speed.main([*common, "--data", str(camera), "--parts", "floors"]) == 0
    assert gpu_speed.main([*common, "--parts", "loaders,train,sweep"]) == 0
    assert gpu_speed.main([*common, "--parts", "profile", "--only", "vram,translate"]) == 0
    result = json.loads(out.read_text())
    assert (result["schema"], result["kind"], result["rehearsal"]) == (1, "gpu-speed", True)
    assert result["sets"]["small"]["photos"] == result["sets"]["camera"]["photos"] == 5
    assert result["sets"]["small"]["photos_per_epoch"] == 10  # at least 8: each twice
    assert [*result["parts"]] == ["floors", "loaders", "train", "sweep", "profile"]
    for photos in ("small", "camera"):
        floors = result["floors"][photos]
        assert [*floors][:3] == [rows.PLAN, rows.READ, rows.AUGMENT]
        assert len(floors) == 3 + 2 * len(rows.DECODERS)
        assert all(row["images_per_sec"] > 0 for row in floors.values())
    assert result["floors"]["step"][rows.GRAPH] == {
        "error": "CUDA graphs need a CUDA GPU",
        "skipped": True,
    }
    assert [*result["loaders"]["small"]] == [*rows.LOADERS]
    for row in result["loaders"]["small"].values():
        assert row["floor_share"] > 0
        assert row["floor"] in {*result["floors"]["small"], rows.EAGER}
    trained = result["train"]["small"]
    assert [*trained] == [rows.SYNTHETIC, *rows.LOADERS[1:]]
    assert trained[rows.SYNTHETIC]["synthetic_share"] == 1
    assert all(trained[name]["counters"]["waited"] >= 0 for name in rows.LOADERS[1:])
    assert [*result["sweep"]["small"]] == [*rows.KNOBS]
    assert [*result["graph"]["small"]] == ["+ translate"]
    profile = result["profile"]["small"][rows.CACHE]
    stages = {stage["stage"]: stage["host_ms"] for stage in profile["stages"]}
    assert {"next batch", "feed DALI", "collect from DALI", "forward", "backward", "optimizer"} <= {*stages}
    assert 0 < stages["forward"] < profile["step_ms"]
    assert [goal["holds"] is None for goal in result["goals"]].count(True) == 4  # camera's, recipe
    assert "a rehearsal on the CPU" in capsys.readouterr().out


def test_the_recipe_says_where_its_time_went(photo_folder, tmp_path):
    data, out = photo_folder(), tmp_path / "r.json"
    settings = ["model.name=test_resnet", "train.epochs=2", "data.image_size=32", "data.kernels=torchvision"]
    more = [part for text in settings for part in ("--set", text)]
    common = ["--data", str(data), "--out", str(out), "--device", "cpu", "--parts", "recipe", "--photos", "1"]
    assert gpu_speed.main([*common, *more]) == 0
    row = json.loads(out.read_text())["recipe"]
    parts = [row[f"{key}_seconds"] for key in ("import", "startup", "train", "eval", "write", "report")]
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(row["whole_seconds"], abs=0.1)
    assert row["startup_seconds"] < row["best_seconds"] < row["whole_seconds"]
    assert (row["epochs_run"], row["weights"], row["set"]) == (2, False, settings)


@needs_dali
def test_a_graph_that_stops_early_made_the_same_pixels(photo_folder):
    from flowerfast.bench.stages import recipe_of
    from flowerfast.loaders.dali_files import Files
    from flowerfast.loaders.dali_graph import Graph, GraphSettings

    config = load_config(None, ["data.image_size=32"])
    manifest = load_manifest(photo_folder(sizes=[(61, 47)]))
    recipe = Sampler(manifest, np.arange(len(manifest)), recipe_of(config)).recipe
    neutral_after = {"crop+resize": End.resize, "rotate": End.turn, "whole chain": End.all}
    files, seen = Files(manifest, 2), 0
    for step, plan in step_plans(manifest, np.arange(4), recipe, 0):
        if step not in neutral_after:
            continue
        _, photos, _ = files.start(plan).result()
        made = []
        for end in (neutral_after[step], End.all):
            graph = Graph(GraphSettings(True, 32, 4, None, 1, 2, end=end))
            graph.feed(plan, photos)
            made.append(graph.collect().clone())
            graph.close()
        assert torch.equal(*made), step
        seen += 1
    files.close()
    assert seen >= 2


@needs_dali
def test_both_ways_to_jitter_give_the_same_pixels(photo_folder):
    from flowerfast.bench.stages import recipe_of
    from flowerfast.loaders.dali_files import Files
    from flowerfast.loaders.dali_graph import Graph, GraphSettings

    manifest = load_manifest(photo_folder({"a": 20, "b": 20}))
    config = load_config(None, ["data.image_size=32", "augment.contrast=0.9", "augment.brightness=0.9"])
    sampler, files = Sampler(manifest, np.arange(len(manifest)), recipe_of(config)), Files(manifest, 2)
    plan = sampler.plan(0, np.arange(len(manifest)))
    _, photos, _ = files.start(plan).result()
    made = []
    for one_pass in (False, True):
        graph = Graph(GraphSettings(True, 32, len(plan), None, 1, 2, one_pass=one_pass))
        graph.feed(plan, photos)
        made.append(graph.collect().numpy().astype(int))
        graph.close()
    files.close()
    apart = np.abs(made[0] - made[1])
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def test_photos_are_listed_again_until_there_are_enough(photo_folder, tmp_path):
    data = photo_folder({"daisy": 2, "rose": 1})
    (found,) = find_photos([data], 7, tmp_path / "scratch")
    assert (found.name, len(found.manifest), found.manifest.classes) == ("small", 9, ("daisy", "rose"))
    assert np.bincount(found.manifest.label).tolist() == [6, 3]
    (whole,) = find_photos([data], 3, tmp_path / "scratch")
    assert whole.folder == data


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--parts", "floors,speed"], "--parts speed: no such part; give any of floors,"),
        (["--parts", ""], "no such part"),
        (["--rounds", "0"], "--rounds 0: must be at least 1"),
        (["--weights", "nowhere.safetensors"], "--weights nowhere.safetensors: no such file"),
        (["--set", "train.batchsize=3"], "unknown key 'train.batchsize'"),
    ],
)
def test_wrong_arguments_are_one_line(photo_folder, capsys, more, said):
    assert gpu_speed.main(["--data", str(photo_folder()), *TINY, *more]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]


def test_photos_and_results_must_fit(photo_folder, tmp_path, capsys):
    data = str(photo_folder())
    assert gpu_speed.main(["--data", data, "--data", data, *TINY, *QUICK]) == 2
    assert "is a set of small photos already" in capsys.readouterr().err
    assert gpu_speed.main(["--data", str(tmp_path / "nothing"), *TINY]) == 2
    capsys.readouterr()
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert gpu_speed.main(["--data", data, "--out", str(other), *TINY, *QUICK]) == 2
    assert "not a results file of this tool" in capsys.readouterr().err
    run = ["--data", data, "--out", str(other), *QUICK, "--parts", "floors", "--only", "no such row"]
    other.unlink()
    assert gpu_speed.main([*run, *TINY]) == 0  # nothing to measure, but the file says with what
    assert gpu_speed.main([*run, *TINY, "--batch-size", "3"]) == 2
    assert "on another machine, photos or settings" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_it_says_so(photo_folder, capsys):
    assert gpu_speed.main(["--data", str(photo_folder())]) == 2
    assert "torch sees no CUDA GPU" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- failed rows


def test_a_row_that_fails_is_a_row_with_an_error(tmp_path, photo_folder):
    said: list[str] = []
    job = rows.Job("cpu", 2, 32, 2)
    result: dict[str, Any] = {}
    out = tmp_path / "r.json"
    mine = session.Session(job, Pace(1, 0), [], result, out, say=said.append, limit=30)
    broken = Variant("broken", "benchmarks.gpu.floors:planning", {"data": "nowhere", "settings": []})
    fine = Variant("fine", "benchmarks.gpu.floors:planning", {"data": str(photo_folder()), "settings": []})
    mine.group(("floors", "small"), [broken, Variant("lost", "nowhere:nothing"), fine])
    written = json.loads(out.read_text())["floors"]["small"]
    assert written["broken"]["skipped"]  # said so itself
    assert written["broken"]["error"].startswith("nowhere: ")
    assert written["lost"] == {"error": "ModuleNotFoundError: No module named 'nowhere'", "skipped": False}
    assert written["fine"]["images_per_sec"] > 0
    assert "  lost: failed: ModuleNotFoundError: No module named 'nowhere'" in said


def test_a_command_that_fails_or_hangs_is_one_line():
    with pytest.raises(ChildFailed, match=r"^the last word$"):
        run_python(["-c", "import sys; sys.exit('first\\nthe last word')"], 30)
    with pytest.raises(ChildFailed, match=r"no answer within 0\.5 s") as error:
        run_python(["-c", "import time; time.sleep(60)"], 0.5)
    assert not error.value.skipped
    with pytest.raises(ChildFailed) as error:
        run_python(["-c", "import sys; sys.exit(2)"], 30)
    assert error.value.skipped
    assert [*lines(("recipe",), {"error": "why", "skipped": False})] == ["  recipe: failed: why"]


# ----------------------------------------------------------------------------------------- shares and goals


def row(rate: float, **more: Any) -> dict[str, Any]:
    return {"images_per_sec": rate, "spread": 1.0, "cpu_cores": 3.0, "counters": {}, **more}


def made_up() -> dict[str, Any]:
    """A whole result: dali is held back by the decoder, the cache by the training step."""
    floors = {
        rows.PLAN: row(90_000), rows.READ: row(60_000), rows.AUGMENT: row(30_000),
        rows.CPU_WHOLE: row(8_000), rows.CPU_WINDOW: row(9_000),
        rows.MIX_WINDOW: {"error": "nvJPEG is too old", "skipped": True}, rows.MIX_WHOLE: row(7_000),
    }  # fmt: skip
    loaders = {
        rows.PAPER: row(2_000),
        rows.DALI: row(8_100, gpu_memory_bytes=2_500_000_000),
        rows.DECODER: row(3_500),
        rows.CACHE: row(19_000),
        rows.STOCK: {"error": "killed by SIGSEGV", "skipped": False},
    }
    trained = {
        rows.SYNTHETIC: row(12_000),
        rows.PAPER: row(1_800, counters={"waited": 0.85}),
        rows.DALI: row(11_400, counters={"waited": 0.02}),
        rows.CACHE: row(11_700, counters={"waited": 1.2}),
    }
    about = {"photos": 3000, "mean_pixels": 5e4, "photos_per_epoch": 3000}
    seconds = {f"{key}_seconds": 1.0 for key in ("import", "startup", "train", "eval", "write", "report")}
    recipe = {"best_epoch": 8, "epochs_run": 14, "best_seconds": 24.0, "whole_seconds": 31.0}
    return {
        "schema": 1,
        "kind": "gpu-speed",
        "rehearsal": False,
        "environment": {"device": "Some GPU", "cores": 16, "date": "2030-01-02"},
        "settings": {"batch_size": 256, "image_size": 224, "model": "resnet18", "set": []},
        "sets": {"small": about, "camera": {**about, "photos": 400}},
        "parts": {"floors": {"date": "2030-01-02"}, "train": {"date": "2030-01-03"}},
        "floors": {"step": {rows.EAGER: row(12_000), rows.GRAPH: row(13_000)}, "small": floors},
        "loaders": {"small": loaders},
        "train": {"small": trained, "camera": trained},
        "recipe": {**recipe, **seconds, "train_samples": 2500},
    }


def test_the_floor_is_the_slowest_stage_on_the_way():
    result = made_up()
    assert shares.floor(rows.DALI, "small", result) == (rows.CPU_WINDOW, 9_000)
    assert shares.floor(rows.PAPER, "small", result) == (rows.CPU_WHOLE, 8_000)
    assert shares.floor(rows.DECODER, "small", result) == (rows.MIX_WHOLE, 7_000)  # windows could not run
    assert shares.floor(rows.CACHE, "small", result) == (rows.EAGER, 12_000)
    assert shares.floor(rows.CACHE, "camera", result) is None  # its floors were not measured
    del result["floors"]["small"][rows.READ]
    assert shares.floor(rows.DALI, "small", result) is None
    assert {*shares.PASSES} == {*rows.LOADERS}


def test_shares_stand_in_the_rows():
    result = made_up()
    shares.add_shares(result)
    loaders = result["loaders"]["small"]
    assert (loaders[rows.DALI]["floor"], loaders[rows.DALI]["floor_share"]) == (rows.CPU_WINDOW, 0.9)
    assert loaders[rows.CACHE]["floor_share"] == pytest.approx(19 / 12)
    assert "floor" not in loaders[rows.STOCK]
    assert result["train"]["small"][rows.DALI]["synthetic_share"] == 0.95


def test_stages_on_the_way_are_rows_that_are_measured():
    measured = {v.name for v in rows.part_rows(rows.Job("cpu", 2, 32, 2), Path("photos"))}
    for ways in shares.PASSES.values():
        assert {name for names in ways for name in names} <= measured


def test_goals_hold_from_their_bound_on():
    goals = [(g["found"], g["holds"]) for g in shares.goals(made_up())]
    assert goals == [
        (pytest.approx(0.95), True),  # dali on small photos
        (pytest.approx(0.975), False),  # the cache on camera photos wants 0.98
        (pytest.approx(4.05), True),
        (None, None),
        (pytest.approx(9.5), False),
        (None, None),
        (24.0, True),
    ]
    slow = {"recipe": {"best_seconds": 30.1}}
    assert shares.goals(slow)[-1]["holds"] is False
    assert all(goal["holds"] is None for goal in shares.goals({}))


# --------------------------------------------------------------------------------------------------- tables


def test_the_table_names_device_and_dates_and_shows_goals():
    result = made_up()
    shares.add_shares(result)
    result["goals"] = shares.goals(result)
    text = headline("gpu-speed-some.json", result)
    assert text.startswith("Some GPU, 16 cores, resnet18, batch 256, 224 px, 2030-01-02 to 2030-01-03 ([gpu-")
    assert "Small photos: 3,000 of 0.05 megapixels" in text
    wanted = "| dali | 8,100 | 4.0 | 90% | decode on the CPU, window | 3.0 | 2.5 | 11,400 | 95.0% | 2.0% |"
    assert wanted in text
    assert "| stock DALI | failed: killed by SIGSEGV |" in text
    assert "| *none: pixels on the device* |" in text
    assert "share of the synthetic speed | ≥ 0.98 | 0.975 | does not hold |" in text
    assert "seconds from start to best checkpoint | ≤ 30 | 24 | holds |" in text
    assert "| ≥ 10 |  | not measured |" in text
    assert "eager 12,000, eager in a CUDA graph 13,000" in text
    assert "best checkpoint after 24.0 s" in text
    widths = {
        line.count("|") for line in text.splitlines() if line.startswith(("| loader", "| dali |", "| *n"))
    }
    assert widths == {11}


def test_readme_takes_the_new_results_once_there_are_any(tmp_path, monkeypatch):
    before = tables.speed()
    assert "speed-nvidia-h100-224px.json" in before
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rehearsal = {**made_up(), "goals": [], "rehearsal": True}
    (tmp_path / "gpu-speed-rehearsal.json").write_text(json.dumps(rehearsal))
    assert tables.speed() == ""
    (tmp_path / "gpu-speed-some.json").write_text(json.dumps({**rehearsal, "rehearsal": False}))
    assert tables.speed().startswith("Some GPU, 16 cores")


# -------------------------------------------------------------------------------------------------- profile


def event(
    cat: str, name: str, ts: float, dur: float, tid: int, correlation: int | None = None
) -> dict[str, Any]:
    args = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def test_kernels_and_waits_find_their_stage():
    main, autograd, dali, stream = 1, 2, 3, 7
    call, note = "cuda_runtime", "user_annotation"
    found = trace.digest(
        {
            "traceEvents": [
                event(note, trace.WINDOW, 1000, 2000, main),
                event(note, "forward", 1100, 400, main),
                event(note, "backward", 1600, 600, main),
                event(note, "Optimizer.step#SGD.step", 2300, 100, main),
                event(note, "optimizer", 2250, 200, main),
                event(call, "cudaLaunchKernel", 1200, 5, main, 1),
                event("kernel", "conv", 1250, 300, stream, 1),
                event(call, "cudaLaunchKernel", 1700, 5, autograd, 2),
                event("kernel", "dgrad", 1720, 200, stream, 2),
                event(call, "cudaLaunchKernel", 1300, 5, dali, 3),  # while the main thread is in forward
                event("kernel", "void dali::kernels::warp::BatchWarp<...>", 1310, 100, 8, 3),
                event(call, "cudaLaunchKernel", 2310, 5, main, 4),
                event("kernel", "sgd", 3200, 100, stream, 4),  # after the host has left the window
                event(call, "cudaMemcpyAsync", 2000, 5, dali, 5),
                event("gpu_memcpy", "Memcpy HtoD", 2010, 50, 8, 5),
                event(call, "cudaStreamSynchronize", 2500, 40, main, 6),
                event(call, "cudaEventSynchronize", 2500, 40, dali, 7),
                event(call, "cudaDeviceSynchronize", 3100, 40, main, 8),  # the profiler's own
                event(call, "cudaLaunchKernel", 500, 5, main, 9),
                event("kernel", "warm-up", 1010, 10, stream, 9),
            ]
        },
        steps=2,
    )
    gpu = {s["stage"]: (s["gpu_ms"], s["kernels"]) for s in found["stages"]}
    assert gpu == {
        "forward": (0.15, 0.5),
        "backward": (0.1, 0.5),
        "DALI: rotate": (0.05, 0.5),
        "optimizer": (0.05, 0.5),
        "Memcpy HtoD, outside the stages": (0.025, 0.5),
    }
    assert {s["stage"]: s["host_ms"] for s in found["stages"]}["backward"] == pytest.approx(0.3)
    assert found["syncs"] == {
        "training thread": {"cudaStreamSynchronize": 0.5},
        "other threads": {"cudaEventSynchronize": 0.5},
    }
    assert found["gpu_busy_ms"] == pytest.approx((300 + 200 + 100 + 50) / 2000)  # warp ran beside conv
    assert found["step_ms"] == pytest.approx(2300 / 2000)
    assert found["top"][0] == {"name": "conv", "gpu_ms": 0.15, "times": 0.5}
