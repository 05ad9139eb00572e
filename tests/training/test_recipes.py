"""Which settings a run begins with, and that those it leaves give the same run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.config import Config
from flowerfast.demo.synthetic import demo_folder
from flowerfast.errors import UserError
from flowerfast.settings import load_config, start_config
from flowerfast.training.run import TrainResult

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]


def test_the_config_it_leaves_gives_the_same_run(train_tiny: Train, rows: Rows, tmp_path: Path) -> None:
    first = train_tiny("a")
    second = train_tiny("b", data=None, config=tmp_path / "a/config.yaml")
    assert rows(first.folder) == rows(second.folder)
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()


def test_photos_named_by_a_setting_do_not_get_the_recipe_of_rendered_flowers(
    train_tiny: Train, photos: Path
) -> None:
    assert start_config(None, {"data.path": "p"}) == load_config(None, ["data.path=p"])
    folder = train_tiny(data=None, settings={"data.path": str(photos), "train.epochs": 1}).folder
    config, defaults = load_config(folder / "config.yaml"), Config()
    assert config.data.path == str(photos)
    for name in ("schedule", "weight_decay", "momentum"):
        assert getattr(config.train, name) == getattr(defaults.train, name)
    assert config.augment == defaults.augment


@pytest.mark.parametrize("base", [None, "demo"])
def test_without_photos_it_is_the_demo(base: str | None) -> None:
    assert start_config(base, {}) == load_config("demo")
    assert start_config(base, {"train.epochs": 3}).train.epochs == 3
    assert start_config(None, {"data.path": None}) == load_config("demo")


@pytest.mark.parametrize("base", ["paper", "mine.yaml"])
def test_another_recipe_needs_photos(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("train: {epochs: 3}\n")
    with pytest.raises(
        UserError, match=rf"^--config {base}: no photos are named; give their folder"
    ) as caught:
        start_config(base, {})
    assert "\n" not in str(caught.value)
    assert start_config(base, {"data.path": "photos"}) == load_config(base, ["data.path=photos"])
    Path("mine.yaml").write_text("data: {path: photos}\n")
    assert start_config("mine.yaml", {}).data.path == "photos"


def test_the_config_of_a_demo_run_is_a_config(
    train_tiny: Train, rows: Rows, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rendered(_: object = None) -> Path:
        if not demo_folder().exists():
            demo_folder().parent.mkdir(parents=True, exist_ok=True)
            photos.rename(demo_folder())
        return demo_folder()

    monkeypatch.setattr("flowerfast.training.beginning.demo_photos", rendered)
    quick = {"train.epochs": 1, "model.name": "test_resnet", "data.image_size": 32}
    first = train_tiny("first", quick, data=None)
    config = load_config(first.folder / "config.yaml")
    assert (config.train.schedule, config.train.lr) == ("onecycle", 0.05)  # the recipe, and a setting
    again = train_tiny("again", data=None, config=first.folder / "config.yaml")
    assert rows(again.folder) == rows(first.folder)
