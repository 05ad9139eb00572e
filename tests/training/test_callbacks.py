"""Callbacks of `train`: when they are called, with what, and what becomes of a run when one fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import flowerfast as ff
from benchmarks.torture import crew
from flowerfast.errors import RunFailed, UserError
from flowerfast.training.run import TrainResult, train
from tests.training.rank_work import Told, noted_run

Train = Callable[..., TrainResult]


class Noting(ff.Callback):
    """Keeps what it is told; raises in the function called `fails`, and spoils what it is given."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.told = fails, list[tuple[str, Any]]()

    def on_start(self, run: ff.RunFacts) -> None:
        self._note("on_start", run)
        run.config.clear()

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        self._note("on_epoch", dict(metrics))
        metrics.clear()

    def on_end(self, summary: dict[str, Any]) -> None:
        self._note("on_end", dict(summary))
        summary.clear()

    def _note(self, name: str, given: Any) -> None:
        self.told.append((name, given))
        if name == self.fails:
            raise ConnectionError("no tracker there\nand more")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_they_are_told_of_the_start_each_epoch_and_the_end(train_tiny: Train, run: Path) -> None:
    first, second = Noting(), Noting()
    result = train_tiny(callbacks=[first, second])
    assert first.names == second.names == ["on_start", "on_epoch", "on_epoch", "on_end"]
    facts = second.told[0][1]
    assert (facts.folder, facts.classes, facts.history) == (run, ("blue", "green", "red"), [])
    assert (facts.train_samples, facts.val_samples, facts.test_samples) == (30, 6, 0)
    assert [epoch for _, epoch in second.told[1:3]] == lines(run)
    assert second.told[3][1] == result.summary == {**result.summary, "epochs_run": 2}


def test_one_derived_function_is_enough(train_tiny: Train) -> None:
    seen: list[object] = []

    class Epochs(ff.Callback):
        def on_epoch(self, metrics: dict[str, Any]) -> None:
            seen.append(metrics["epoch"])

    train_tiny(callbacks=[Epochs()])
    assert seen == [0, 1]


@pytest.mark.parametrize("fails", ["on_start", "on_epoch", "on_end"])
def test_one_that_fails_ends_the_run_and_loses_nothing(
    train_tiny: Train, outcome: Callable[[Path], dict[str, Any]], run: Path, tmp_path: Path, fails: str
) -> None:
    failing, after = Noting(fails), Noting()
    with pytest.raises(RunFailed) as caught:
        train_tiny(callbacks=[Noting(), failing, after])
    then = {
        "on_start": "mend that, then run the same again",
        "on_epoch": f"mend that, then go on with resume=True, out='{run}'",
        "on_end": f"the run is complete; once that is mended, resume=True, out='{run}' calls it again",
    }
    said = f"callbacks[1] (Noting).{fails}: ConnectionError: no tracker there; {then[fails]}"
    assert str(caught.value) == said
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert fails not in after.names
    assert run.exists() == (fails != "on_start")
    again = Noting()
    if fails == "on_start":
        train_tiny(callbacks=[again])
    else:
        train_tiny(resume=True, callbacks=[again])
    done = {"on_start": 0, "on_epoch": 1, "on_end": 2}[fails]
    assert again.names == ["on_start", *["on_epoch"] * (2 - done), "on_end"]
    assert again.told[0][1].history == lines(run)[:done]
    assert [row for name, row in again.told if name == "on_epoch"] == lines(run)[done:]
    train_tiny("undisturbed")
    ended, whole = outcome(run), outcome(tmp_path / "undisturbed")
    assert ended["rows"] == whole["rows"]
    assert all(
        (ended[name][key] == whole[name][key]).all()
        for name in whole
        if name != "rows"
        for key in whole[name]
    )


def test_what_is_no_callback_is_refused_before_anything_begins(photos: Path, run: Path) -> None:
    for given, said in (
        (5, r"^callbacks=5: give a list$"),
        ([print], r"^callbacks\[0\]=.*: give an object of a class that is derived from ff\.Callback$"),
        ([Noting(), Noting], r"^callbacks\[1\]: the class Noting itself; give Noting\(\)$"),
    ):
        with pytest.raises(UserError, match=said):
            train(photos, out=run, callbacks=cast(Any, given))
    assert not run.exists()


def test_of_several_ranks_the_first_alone_calls_them(photos: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    settings = {"train.epochs": 1}
    begun = crew.start(2, tmp_path, noted_run, photos, tmp_path / "run", settings, callbacks=[Told(told)])
    assert all("summary" in run for run in begun.results()), begun.said(0)
    assert told.read_text() == "0: start\n0: epoch 0\n0: end of 2 ranks\n"
    told.unlink()
    begun = crew.start(
        2, tmp_path, noted_run, photos, tmp_path / "two", settings, callbacks=[Told(told, True)]
    )
    errors = [run["error"] for run in begun.results()]
    assert [error[0::2] for error in errors] == [("RunFailed", True)] * 2
    assert "callbacks[0] (Told).on_epoch: ValueError: no tracker there; mend that" in errors[0][1]
    assert told.read_text() == "0: start\n0: epoch 0\n"
