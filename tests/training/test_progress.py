"""Where a run's time goes, the sums of an epoch, and names for profilers."""

import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from flowerfast.loaders.ranges import name_stages, stage
from flowerfast.training import progress
from flowerfast.training.progress import Spent, Standing, Totals


def test_time_is_split_at_the_first_batch(monkeypatch):
    now = 10.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    spent = Spent()
    with spent.on("write"):
        now = 12.0  # last.pt, before there is a batch: still starting up
    now = 15.0
    spent.note_first_batch()
    now = 20.0
    spent.note_first_batch()
    with spent.on("evaluate"):
        now = 23.0
    with spent.on("write"):
        now = 24.0
    assert spent.summary(started=8.0, seconds=18.0) == {
        "startup_seconds": 7.0,
        "train_seconds": 7.0,
        "eval_seconds": 3.0,
        "write_seconds": 1.0,
    }


def test_a_run_without_anything_left_to_train_only_started_up():
    spent = Spent()
    with spent.on("evaluate"):
        pass
    assert spent.summary(0.0, 5.0) == {
        "startup_seconds": 5.0, "train_seconds": 0.0, "eval_seconds": 0.0, "write_seconds": 0.0
    }  # fmt: skip


def test_sums_are_weighted_by_samples_and_survive_a_checkpoint():
    totals = Totals(torch.device("cpu"))
    totals.add(torch.tensor(0.5), torch.tensor(3), 4)
    copy = Totals(torch.device("cpu"))
    copy.load_state_dict(totals.state_dict())
    for each in (totals, copy):
        each.add(torch.tensor(2.0, dtype=torch.bfloat16), torch.tensor(1), 1)
        assert each.loss() == pytest.approx(0.8)
        assert each.accuracy() == pytest.approx(0.8)


@pytest.mark.parametrize("sums", [10**30, None, [0.0, 0.0], torch.zeros(7), torch.tensor([math.nan, 0.0])])
def test_sums_that_are_none_are_refused(sums):
    with pytest.raises(ValueError, match=r"^totals"):
        Totals(torch.device("cpu")).load_state_dict({"sums": sums, "samples": 4})


@pytest.mark.parametrize("samples", [None, "x", torch.tensor(4), math.nan, 1.5, True, -1, 2**60])
def test_a_number_of_samples_that_is_none_is_refused(samples):
    with pytest.raises(ValueError, match=r"^totals"):
        Totals(torch.device("cpu")).load_state_dict({"sums": torch.zeros(2), "samples": samples})


@pytest.mark.parametrize(
    ("best", "rows", "out"), [(-1, 0, False), (0, 2, False), (0, 3, True), (2, 3, False)]
)
def test_patience_counts_the_epochs_since_the_best(best, rows, out):
    standing = Standing(best_epoch=best, history=[{}] * rows)
    assert standing.out_of_patience(2) == out
    assert not standing.out_of_patience(None)


def test_the_first_command_of_a_run_and_the_latest_are_kept():
    standing = Standing()
    for number in range(20):
        for command in (None, f"command {number}", f"command {number}"):
            standing.note_command(command)
    assert standing.commands == ["command 0", *(f"command {number}" for number in range(11, 20))]


def test_stages_have_names_when_asked_for():
    def names() -> set[str]:
        with profile(activities=[ProfilerActivity.CPU]) as found, stage("a stage"):
            torch.ones(2).sum()
        return {event.name for event in found.events()}

    assert "a stage" not in names()
    name_stages()
    try:
        assert "a stage" in names()
    finally:
        name_stages(False)
