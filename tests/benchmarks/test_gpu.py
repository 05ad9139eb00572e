"""gpu.py, rehearsed on the CPU: what it writes, what becomes of parts that fail or do not fit."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_session
from benchmarks.gpu_session import LEAST, Session, TimedPace, run_python
from benchmarks.gpu_variants import fast_enough, our_loaders
from benchmarks.peers import paper
from flowerfast.bench.child import Variant
from flowerfast.bench.measure import Pace, measure_here
from flowerfast.loaders.dali.probe import dali_problem

TINY = [
    "--device",
    "cpu",
    "--batch-size",
    "4",
    "--image-size",
    "32",
    "--model",
    "test_resnet",
    "--photos",
    "8",
]
CHECKS = """
import os
import pytest
pytestmark = pytest.mark.gpu
def test_good(): pass
@pytest.mark.parametrize("side", [1, 2])
def test_bad(side): assert side == 1, "the sides differ"
def test_elsewhere(): pytest.skip("needs a machine")
def test_last(): LAST
"""
Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Rows are measured in this process, for one epoch; the paper's, which needs others, are left out."""

    def here(variants: Sequence[Variant], pace: Pace, say: Any = print) -> dict[str, Any]:
        ours = [v for v in variants if paper.TARGET not in repr(v)]
        absent = {"error": "no workers here", "skipped": True}
        return measure_here(ours, pace, say) | {v.name: absent for v in variants if v not in ours}

    for module in (gpu, gpu_session):
        monkeypatch.setattr(module, "measure", here)
    checks = tmp_path / "checks" / "test_checks.py"
    checks.parent.mkdir()
    checks.write_text(CHECKS.replace("LAST", "pass"))
    monkeypatch.setattr(gpu, "TESTS", (str(checks),))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(photo_folder: Callable[..., Path], tmp_path: Path) -> Run:
    """Function (*arguments) → (exit code, content of the results file)."""
    out, data = tmp_path / "out" / "gpu.json", photo_folder({"daisy": 3, "rose": 2})

    def run_(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = gpu.main(["--data", str(data), "--out", str(out), *TINY, *arguments])
        return code, json.loads(out.read_text()) if out.exists() else {}

    return run_


@pytest.mark.skipif(dali_problem(torch.device("cpu")) is not None, reason="needs DALI")
def test_a_rehearsal_measures_loaders_and_training(run: Run, own_cache: Path):
    code, found = run("--parts", "start,loaders,train,profile")
    assert code == 0
    assert (found["schema"], found["kind"], found["rehearsal"]) == (1, "gpu", True)
    assert found["environment"]["device"].startswith("CPU")
    assert (found["sets"]["photos"]["photos"], found["sets"]["photos"]["photos_per_epoch"]) == (5, 10)
    assert [*found["parts"]] == ["start", "loaders", "train", "profile"]
    assert found["start"]["dali, decoder=cpu"]["seconds"] > 0
    rows = found["loaders"]["photos"]
    assert [*rows] == [paper.NAME, *our_loaders(cuda=False)]
    assert all(rows[name]["images_per_sec"] > 0 for name in our_loaders(cuda=False))
    (file,) = (own_cache / "speeds").iterdir()
    (kept,) = json.loads(file.read_text())["runs"]
    assert (kept["image_size"], kept["batch_size"]) == (32, 4)
    assert [speed["images_per_sec"] for speed in kept["speeds"]] == [
        rows[name]["images_per_sec"] for name in our_loaders(cuda=False)
    ]
    for batch in ("batch 4", "batch 2"):
        trained = found["train"][batch]
        assert trained["step"][gpu.EAGER]["images_per_sec"] > 0
        assert trained["step"][gpu.COMPILED]["images_per_sec"] > 0
        assert trained["step"][gpu.GRAPH] == {"error": "CUDA graphs need a CUDA GPU", "skipped": True}
        left_out, fed = trained["left out of photos"], trained["photos"]
        assert left_out[paper.NAME] == "no workers here"
        assert {*left_out, *fed} == {*rows, gpu.SYNTHETIC}
        assert fed[gpu.SYNTHETIC]["synthetic_share"] == 1
        assert all(fed[name]["counters"]["waited"] >= 0 for name in fed.keys() - {gpu.SYNTHETIC})
    fastest = max(our_loaders(cuda=False), key=lambda name: rows[name]["images_per_sec"])
    assert found["profile"]["fed_by"] == fastest
    assert found["profile"]["stages"]["backward"]["ms"] > 0


def test_the_tests_are_counted_and_failures_named(run: Run, capsys: pytest.CaptureFixture[str]):
    code, found = run("--parts", "tests")
    assert code == 1
    assert found["tests"]["counts"] == {"passed": 3, "failed": 1, "skipped": 1}
    ((name, reason),) = found["tests"]["failures"].items()
    assert name.endswith("test_bad[2]")
    assert "the sides differ" in reason
    assert "error" not in found["parts"]["tests"]
    assert "the sides differ" in capsys.readouterr().out


def test_tests_that_crash_are_counted_as_far_as_they_came(run: Run, tmp_path: Path):
    crash = CHECKS.replace("LAST", "os.kill(os.getpid(), 9)")
    (tmp_path / "checks" / "test_checks.py").write_text(crash)
    code, found = run("--parts", "tests")
    assert code == 1
    assert found["tests"]["counts"] == {"passed": 2, "failed": 1, "skipped": 1}
    assert [*found["tests"]["failures"].values()] == [""]
    assert found["parts"]["tests"]["error"].startswith("RuntimeError: exit code -9: ")
    assert found["parts"]["tests"]["error"].endswith("::test_last")


def test_a_command_that_does_not_end_is_ended():
    code, seconds, said = run_python(["-c", "import time; print('first'); time.sleep(100)"], 1.0)
    assert (code, said) == (None, "first\n")
    assert 1 <= seconds < 20


@pytest.mark.parametrize("ends", [True, False])
def test_the_recipe_counts_from_the_command(run: Run, monkeypatch: pytest.MonkeyPatch, ends: bool):
    plain: dict[str, float] = {"seconds": 7.0, "startup_seconds": 2.0}
    history, asked = [{"seconds": 2.5, "val_acc": 0.93}, {"seconds": 2.0, "val_acc": 0.95}], []

    def trained(arguments: Sequence[str], limit: float) -> tuple[int | None, float, str]:
        asked.append(arguments)
        if not ends:
            return None, limit, ""
        folder, now = Path(arguments[arguments.index("--out") + 1]), time.time()
        (folder / "best").mkdir(parents=True)
        for name, after in (("best/model.safetensors", 8.0), ("summary.json", 10.0)):
            (folder / name).write_text(json.dumps({**plain, "notes": [], "history": history}))
            os.utime(folder / name, (now + after,) * 2)
        return 0, 12.0, ""

    monkeypatch.setattr(gpu, "run_python", trained)
    code, found = run("--parts", "recipe")
    assert code == 0
    if not ends:
        assert found["parts"]["recipe"]["cut_short"].startswith("no end within")
        return
    recipe = found["recipe"]
    assert recipe["best_seconds"] == pytest.approx(8, abs=1)
    assert recipe["startup_seconds"] == pytest.approx(10 - 7 + 2, abs=1)  # the report is drawn afterwards
    assert (recipe["whole_seconds"], recipe["summary"]) == (12.0, plain)
    assert recipe["seconds_to_goal"] == 2 + 2.5 + 2
    assert "fast" not in found
    found = run("--parts", "recipe", "--weights", "w.safetensors")[1]
    assert found["fast"]["seconds_to_goal"] == 6.5
    assert [given[given.index("--config") + 1] for given in asked] == ["paper", "paper", "fast"]
    assert f"--set=model.weights={Path.cwd() / 'w.safetensors'}" in asked[-1]


def test_a_part_that_fails_is_named_and_the_next_one_runs(run: Run, tmp_path, monkeypatch):
    seen = []

    def fails(session: Session) -> None:
        session.keep("start/first", 1)
        raise ValueError("no such kernel\nand more")

    def looks(session: Session) -> None:
        seen.append(json.loads(session.args.out.read_text()))

    def late(session: Session) -> None:
        time.sleep(0.02)
        session.until = 0.0
        session.measure("loaders/photos", [])

    for name, work in (("start", fails), ("tests", looks), ("loaders", late)):
        monkeypatch.setitem(gpu.PARTS, name, (work, 1.0, 0.0))
    code, found = run("--parts", "start,tests,loaders,recipe", "--minutes", "0.1")
    assert code == 1
    assert seen[0]["start"] == {"first": 1}
    assert seen[0]["parts"]["start"]["error"] == "ValueError: no such kernel"
    assert found["parts"]["loaders"]["cut_short"] == "loaders/photos was not begun"
    assert found["parts"]["recipe"] == {"skipped": "6 s of 0.1 min are left, it takes 10"}


def test_rows_end_with_their_time():
    now, enough = time.monotonic(), [1.0] * LEAST
    assert not TimedPace(until=now + 9, end=now + 9).is_hopeless([enough])
    assert TimedPace(until=now, end=now + 9).is_hopeless([enough])
    assert not TimedPace(until=now, end=now + 9).is_hopeless([enough, enough[1:]])
    assert TimedPace(until=now, end=now).is_hopeless([enough[:1]])


def test_loaders_that_make_half_of_the_steps_speed_are_trained_with():
    rows = {"a": {"images_per_sec": 50}, "b": {"images_per_sec": 49}, "c": {"error": "why", "skipped": True}}
    assert fast_enough(rows, 100) == (["a"], {"b": "49 images/s, the step 100", "c": "why"})
    assert fast_enough(rows, None)[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--parts", "tests,speed"], "--parts speed: no such part; give any of start,"),
        (["--minutes", "0"], "must be positive"),
        (["--image-size", "7"], "data.image_size=7"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(run: Run, capsys: pytest.CaptureFixture[str], more, said):
    assert run(*more)[0] == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]
