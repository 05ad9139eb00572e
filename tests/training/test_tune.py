"""The search: which trials go on, that it does so after a stop, and what it writes."""

import json
import signal
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from flowerfast.augment import Augment
from flowerfast.errors import RunFailed, Stopped, UserError
from flowerfast.settings import load_config
from flowerfast.training import run as run_module
from flowerfast.training import trials
from flowerfast.training import tune as tune_module
from flowerfast.training.at_hand import weights_at_hand
from flowerfast.training.tune import TuneResult, tune
from tests.training.conftest import _TINY

Search = Callable[..., TuneResult]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def search(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Function (out="search", settings={}, **options) → TuneResult, of runs without plots."""
    monkeypatch.setattr(run_module, "draw", lambda *_: None)

    def run(out: str = "search", settings: dict[str, Any] | None = None, **options: Any) -> TuneResult:
        return tune(photos, out=tmp_path / out, settings={**_TINY, **(settings or {})}, **options)

    return run


def figures(result: TuneResult) -> list[tuple[Any, ...]]:
    return [(row["round"], row["trial"], row["epochs"], row["accuracy"]) for row in result.trials]


def test_a_third_goes_on_for_thrice_the_epochs_and_the_best_is_written(search: Search) -> None:
    told: list[str] = []
    result = search(trials=3, settings={"train.epochs": 3}, say=told.append)
    assert [row[:3] for row in figures(result)] == [
        *((0, trial, 1) for trial in range(3)),
        (1, max(result.trials[:3], key=lambda row: row["accuracy"])["trial"], 3),
    ]
    assert len(told) == 4
    assert told[0].startswith("round 1 of 2, trial 0 (as configured), 1 epochs: ")
    assert result.best == result.trials[-1]
    written = load_config(result.config)
    assert written.train.epochs == 3
    for key, value in result.best["settings"].items():
        section, _, name = key.partition(".")
        if not name:
            assert written.augment == Augment.preset(value)
            continue
        assert getattr(getattr(written, section), name) == (
            tuple(value) if isinstance(value, list) else value
        )
    run = result.folder / "round-2" / f"trial-{result.best['trial']:03}"
    assert (run / "best" / "model.safetensors").is_file()
    assert not (run / "checkpoints").exists()


def test_a_search_that_was_stopped_goes_on_and_ends_alike(search: Search) -> None:
    whole = search("whole", trials=3)
    steps = count()

    def stop() -> Any:
        return nullcontext(lambda: signal.SIGTERM if next(steps) > 9 else None)

    with pytest.raises(Stopped):
        search(trials=3, stop=stop)
    known = (whole.folder.parent / "search" / "trials.json").read_text()
    assert 0 < len(json.loads(known)["rows"]) < 4
    result = search(trials=3)
    assert figures(result) == figures(whole)
    assert figures(search(trials=3)) == figures(whole)  # of a complete one nothing is trained


def test_a_trial_that_fails_is_last_and_the_search_goes_on(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = trials._draw

    def wild(number: int, *of: Any) -> dict[str, Any]:
        return {**draw(number, *of), **({"train.lr": 1e38} if number else {})}

    monkeypatch.setattr(trials, "_draw", wild)
    result = search(trials=3)
    assert [row["accuracy"] is None for row in result.trials] == [False, True, True, False]
    assert "start a new run with a lower train.lr" in result.trials[1]["error"]
    with pytest.raises(RunFailed, match="no trial of the first round came to an end: "):
        search("other", {"train.lr": 1e38}, trials=1)


def test_without_time_the_last_complete_round_has_won(search: Search) -> None:
    told: list[str] = []
    with pytest.raises(RunFailed, match="no trial"):
        search(trials=3, minutes=0, say=told.append)
    assert told == ["no time is left: round 1 of 2 is not complete"]
    assert search(trials=3).best["round"] == 1


def test_folders_of_something_else_are_left_alone(search: Search, tmp_path: Path) -> None:
    search(trials=1)
    with pytest.raises(UserError, match="a search of other settings; choose another --out"):
        search(trials=1, settings={"train.lr": 0.01})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds something else than a search"):
        search("mine")
    known = tmp_path / "search" / "trials.json"
    known.write_text(known.read_text()[:-50])
    with pytest.raises(UserError, match="damaged; bring it back"):
        search(trials=1)


@pytest.mark.parametrize(
    ("settings", "options", "error"),
    [
        ({"model.name": "no_such_model"}, {}, "timm has no such model"),
        ({"data.classes": "red"}, {}, "only one class"),
        ({}, {"minutes": 0}, "no trial"),
        ({}, {"weights": "weights"}, r"^--weights weights: .+ model\.name=test_resnet is not; set"),
    ],
    ids=["model", "classes", "no time", "weights of one model"],
)
def test_a_search_that_cannot_begin_leaves_nothing(
    search: Search, tmp_path: Path, settings: dict[str, Any], options: dict[str, Any], error: str
) -> None:
    with pytest.raises((UserError, RunFailed), match=error):
        search(settings=settings, trials=1, **options)
    assert not (tmp_path / "search").exists()


def test_models_at_hand_are_tried_in_turn(search: Search, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("test_convnext", "test_resnet"):
        network = timm.create_model(name, num_classes=5)
        save_file(network.state_dict(), weights / f"{name}.tag.safetensors")
    (weights / "readme.txt").touch()
    (weights / "unknown_net.safetensors").touch()
    with pytest.raises(UserError, match="no weights of timm's models kept by the hub's client"):
        search(settings={"model.name": "auto"})
    assert [each["model.name"] for each in weights_at_hand(weights)] == ["test_convnext", "test_resnet"]
    given = {"model.name": "auto", "data.image_size": 160, "train.epochs": 1}
    result = search(settings=given, trials=2, weights=weights)
    assert [row["settings"]["model.name"] for row in result.trials[:2]] == ["test_convnext", "test_resnet"]
    assert load_config(result.config).model.weights == result.best["settings"]["model.weights"]


def test_what_a_network_does_not_take_is_not_tried(search: Search, tmp_path: Path) -> None:
    """Weights of a network of patches fit one image size alone."""
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, size in (("test_vit", {"img_size": 96}), ("test_resnet", {})):
        network = timm.create_model(name, num_classes=5, **size)
        save_file(network.state_dict(), weights / f"{name}.safetensors")
    vit = {"model.name": "test_vit", "model.weights": str(weights / "test_vit.safetensors")}
    given = {"train.epochs": 1, "data.image_size": 96}
    result = search("one", {**given, **vit}, trials=4)
    assert {row["error"] for row in result.trials} == {None}
    assert {row["settings"].get("data.image_size", 96) for row in result.trials} == {96}
    told: list[str] = []
    auto = {**given, "model.name": "auto", "data.image_size": 64}
    result = search("two", auto, trials=3, weights=weights, say=told.append)
    assert {row["settings"]["model.name"] for row in result.trials} == {"test_resnet"}
    assert told[0].startswith("left out: test_vit: model.weights=")
    none = {**auto, "train.frozen_stages": 9}
    with pytest.raises(UserError, match=r"^model.name=auto: none of test_resnet, test_vit can be trained "):
        search("three", none, trials=1, weights=weights)
    assert not (tmp_path / "three").exists()


def test_train_says_where_auto_is_understood(photos: Path, cli: Cli) -> None:
    code, _, complaint = cli("train", photos, "--set", "model.name=auto")
    assert code == 2
    assert "flowerfast tune" in complaint


def test_the_command(photos: Path, cli: Cli, tmp_path: Path) -> None:
    options = [
        word for key, value in {**_TINY, "train.epochs": 1}.items() for word in ("--set", f"{key}={value}")
    ]
    code, printed, _ = cli("tune", photos, "--trials", 2, "--json", "found.json", *options)
    assert code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["config"] == "tuned/best.yaml"
    assert "train with it: flowerfast train DATA --config tuned/best.yaml" in printed
    for quiet in ([], ["--quiet"]):
        code, printed, _ = cli("tune", photos, "--trials", 2, "--json", "-", *options, *quiet)
        assert (code, json.loads(printed)["best"]["accuracy"]) == (0, found["best"]["accuracy"])
    code, _, complaint = cli("tune", tmp_path / "none")
    assert (code, complaint.count("\n")) == (2, 1)


@pytest.mark.parametrize("when", ["in the first trial", "before its checkpoints are gone"])
def test_a_search_that_was_killed_goes_on(search: Search, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if when == "in the first trial":
            patch.setattr(tune_module, "train", kill)
        else:
            patch.setattr(tune_module.shutil, "rmtree", kill)
        with pytest.raises(Killed):
            search(trials=3)
    result = search(trials=3)
    assert figures(result) == figures(search("whole", trials=3))
    assert not [*result.folder.glob("*/*/checkpoints")]


@pytest.mark.parametrize(
    "change",
    [{"accuracy": "high"}, {"accuracy": [1]}, {"accuracy": 7.5}, {"accuracy": ...}, {"settings": ...},
     {"settings": []}, {"error": ...}, {"round": None}, {"settings": {"model.name": "hf-hub:a/b"}}],
)  # fmt: skip
def test_trials_of_somebody_else_are_not_believed(search: Search, change: dict[str, Any]) -> None:
    file = search(trials=1).folder / "trials.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    (row,) = content["rows"]
    row |= change
    content["rows"] = [{key: value for key, value in row.items() if value is not ...}]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"damaged; bring it back|a search of other settings"):
        search(trials=1)


def test_trials_whose_checksum_does_not_fit_are_damaged(search: Search) -> None:
    file = search(trials=1).folder / "trials.json"
    file.write_text(file.read_text().replace('"seconds": ', '"seconds": 1'))
    with pytest.raises(UserError, match="damaged; bring it back"):
        search(trials=1)
