"""Several ranks train what one process does, sample by sample, whatever happens to one of them."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.torture import crew
from tests.training.rank_work import (
    late_rank,
    noted_run,
    run_of_its_own,
    slow_rank,
    stopped_rank,
    struck_rank,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are forked and meet by gloo")

ROUNDING = 1e-5
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "two": (2, {"train.freeze": 1, "train.clip_grad": 1.0, "eval.augmented": "both", "eval.batch_size": 1}),
    "three, several batches a step": (
        3,
        {"train.accumulate": 3, "train.ema": 0.9, "train.class_weights": "balanced", "train.scale_lr": 4},
    ),
    "four, mixed in pairs": (4, {"augment.cutmix": 1.0, "augment.mixup": 0.4, "train.schedule": "onecycle"}),
}


def losses(run: dict[str, Any]) -> list[float]:
    return [loss for _, loss in run["steps"]]


def assert_alike(crew_runs: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """The ranks' parts make up the batches of the one process; losses differ by rounding alone."""
    assert [len(run["steps"]) for run in crew_runs] == [len(alone["steps"])] * len(crew_runs)
    parts = zip(*(run["steps"] for run in crew_runs), strict=True)
    together = [[sample for samples, _ in part for sample in samples] for part in parts]
    assert together == [samples for samples, _ in alone["steps"]]
    for run in crew_runs:
        assert losses(run) == pytest.approx(losses(alone), abs=ROUNDING)
    assert len({run["weights"] for run in crew_runs}) == 1


def assert_same_metrics(rows: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, abs=ROUNDING)


@pytest.mark.parametrize(("ranks", "settings"), CASES.values(), ids=CASES)
def test_ranks_train_as_one_process_does(
    photos: Path,
    tmp_path: Path,
    rows: Callable[[Path], list[dict[str, float]]],
    ranks: int,
    settings: dict[str, Any],
) -> None:
    begun = crew.start(ranks, tmp_path, noted_run, photos, tmp_path / "many", settings)
    alone = noted_run(photos, tmp_path / "one", settings)
    runs = begun.results()
    assert None not in runs, begun.said(0)
    assert_alike(runs, alone)
    assert_same_metrics(rows(tmp_path / "many"), rows(tmp_path / "one"))
    summary = json.loads((tmp_path / "many" / "summary.json").read_text())
    assert (summary["ranks"], sum(summary["confusion"]["count"])) == (ranks, summary["val_samples"])
    assert [run["summary"]["best_epoch"] for run in runs] == [summary["best_epoch"]] * ranks


def test_a_run_is_stopped_by_one_rank_and_goes_on_with_other_numbers_of_them(
    photos: Path, tmp_path: Path, rows: Callable[[Path], list[dict[str, float]]]
) -> None:
    settings, out = {"train.accumulate": 3, "checkpoints.every_seconds": 0}, tmp_path / "run"
    alone = noted_run(photos, tmp_path / "one", settings)
    first = crew.start(2, tmp_path, noted_run, photos, out, settings, (1, 2)).results()
    assert [run["error"] for run in first] == [("Stopped", "stopped by SIGTERM after saving", True)] * 2
    second = crew.start(3, tmp_path, noted_run, None, out, {}, (2, 4), resume=True).results()
    assert {run["error"][0] for run in second} == {"Stopped"}
    done = len(first[0]["steps"]) + len(second[0]["steps"])
    assert 0 < len(first[0]["steps"]) < done < len(alone["steps"])
    last = noted_run(None, out, {}, resume=True)
    for ended, since in ((first, 0), (second, len(first[0]["steps"])), ([last], done)):
        until = since + len(ended[0]["steps"])
        assert_alike(ended, {"steps": alone["steps"][since:until]})
    assert_same_metrics(rows(out), rows(tmp_path / "one"))


def damage(photo: Path) -> None:
    """Leave half of a photo, whose header stays."""
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])


def test_bad_files_of_one_rank_are_left_out_and_counted_by_all(
    photos: Path, tmp_path: Path, rows: Callable[[Path], list[dict[str, float]]]
) -> None:
    for photo in [*photos.glob("*/*.jpg")][::2]:
        damage(photo)
    settings = {"data.max_bad": 1, "train.batch_size": 2, "train.epochs": 1}
    begun = crew.start(2, tmp_path, noted_run, photos, tmp_path / "many", settings)
    alone = noted_run(photos, tmp_path / "one", settings)
    runs = begun.results()
    assert None not in runs, begun.said(0)
    assert any(not samples for samples, _ in runs[0]["steps"])  # a rank that had nothing left
    assert_alike(runs, alone)
    assert_same_metrics(rows(tmp_path / "many"), rows(tmp_path / "one"))
    named = [sorted(bad["path"] for bad in run["summary"]["bad_files"]) for run in (*runs, alone)]
    assert named == [named[0]] * 3
    assert len(named[0]) == 18


@pytest.mark.parametrize(
    ("settings", "kind", "line"),
    [
        ({"data.on_bad": "fail"}, "UserError", r"(blue/00|green/03)\.jpg: .*data\.on_bad=skip"),
        ({"data.max_bad": 0.05}, "UserError", r"2 of 36 files cannot be read, more than data\.max_bad=0\.05"),
        ({"train.lr": 1e30}, "RunFailed", r"epoch 1, batch .* lower train\.lr"),
        ({"data.cache": "ram"}, "UserError", r"each of the 2 ranks of this machine .* use disk"),
        ({"train.batch_size": 1}, "UserError", r"train\.batch_size=1: .* all 2 ranks.*give 2 or more"),
        (
            {"data.val_fraction": 0.97, "model.name": "test_resnet"},
            "UserError",
            r"photos: 3 photos to train on, too few for 2 ranks of which each needs 2; start fewer",
        ),
        ({"model.name": "no_such_network"}, "UserError", "no_such_network"),
    ],
)
def test_what_fails_on_a_rank_fails_on_all_with_one_line(
    photos: Path, tmp_path: Path, settings: dict[str, Any], kind: str, line: str
) -> None:
    if any(key.endswith("_bad") for key in settings):
        damage(photos / "blue" / "00.jpg")
        damage(photos / "green" / "03.jpg")
        settings = {"data.val_fraction": 0.01, **settings}
    begun = crew.start(2, tmp_path, noted_run, photos, tmp_path / "run", settings)
    errors = [run["error"] for run in begun.results()]
    assert [error[0::2] for error in errors] == [(kind, True)] * 2
    assert re.search(line, errors[0][1]), errors[0][1]


def test_arguments_of_ranks_that_differ_are_named(photos: Path, tmp_path: Path) -> None:
    begun = crew.start(2, tmp_path, run_of_its_own, photos, tmp_path / "run")
    line = "train.lr: 0.02 on rank 1, 0.01 on rank 0; start all with the same arguments"
    assert [run["error"] for run in begun.results()] == [("UserError", line, True)] * 2
    assert not (tmp_path / "run").exists()


NAMED = "rank 1 has ended or hangs: "


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_killed_or_hangs_ends_all_and_is_named(tmp_path: Path, how: signal.Signals) -> None:
    begun = crew.start(3, tmp_path, struck_rank, how)
    for process in (begun.processes[0], begun.processes[2]):
        process.join(60)
    begun.processes[1].kill()
    first, second, third = begun.results()
    assert second is None
    assert first[: len(NAMED)] == third[: len(NAMED)] == NAMED


def test_a_rank_that_is_killed_when_the_first_has_done_all_is_named_by_who_misses_it(tmp_path: Path) -> None:
    """Not the first, which keeps the store, and would end with it."""
    first, second, third = crew.start(3, tmp_path, late_rank).results()
    assert (first, third) == ("", None)
    assert second.startswith("rank 2 has ended or hangs: ")


@pytest.mark.parametrize(("victim", "parting"), [(1, False), (2, True)])
def test_a_rank_that_hangs_after_the_last_step_keeps_nobody(
    tmp_path: Path, victim: int, parting: bool
) -> None:
    begun = crew.start(3, tmp_path, stopped_rank, victim, parting)
    others = [rank for rank in range(3) if rank != victim]
    for rank in others:
        begun.processes[rank].join(60)
    assert [begun.processes[rank].exitcode for rank in others] == [0, 0]
    begun.processes[victim].kill()
    ended = begun.results()
    said = {ended[rank] for rank in others}
    named = f"rank {victim} has ended or hangs: "
    assert {"parted"} == said if parting else all(each.startswith(named) for each in said)
    assert ended[victim] is None


@pytest.mark.parametrize("asked", [False, True])
def test_a_rank_that_waits_for_photos_is_waited_for_until_a_stop(
    photos: Path, tmp_path: Path, asked: bool
) -> None:
    begun = crew.start(2, tmp_path, slow_rank, photos, asked)
    first, second = begun.results()
    if asked:
        assert first == second == {"seen": [], "stopped": signal.SIGINT}
        return
    assert (first["part"], second["part"], first["batches"]) == ((0, 2), (1, 2), 9)
    assert first["seen"] == second["seen"] == [(2, 4)] * 9


def test_torchrun_starts_a_run_that_speaks_once(photos: Path, tmp_path: Path) -> None:
    settings = ["model.name=test_resnet", "model.pretrained=false", "data.image_size=32", "train.epochs=1"]
    settings += ["train.batch_size=8", "data.cache=disk", "train.device=cpu"]
    given = [part for setting in settings for part in ("--set", setting)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "flowerfast", "train", photos, "--out", tmp_path / "run", *given],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best validation accuracy") == done.stdout.count("report: ") == 1
    assert done.stdout.count("epoch 1/1: train loss") == 1
    assert (tmp_path / "run" / "report.html").is_file()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ranks"] == 2
