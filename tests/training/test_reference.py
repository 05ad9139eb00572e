"""The paper's figures beside a run's: only where the run follows its recipe."""

from typing import Any

import pytest
import timm

from flowerfast.config import Config
from flowerfast.settings import load_config
from flowerfast.training.reference import beside_the_paper

HISTORY = [
    {"train_acc": a, "train_loss": b, "val_acc": c, "val_loss": d, "val_aug_acc": e, "val_aug_loss": f}
    for a, b, c, d, e, f in (
        (0.6, 0.9, 0.85, 0.3, 0.8, 0.4),
        (0.8, 0.5, 0.95, 0.2, 0.9, 0.3),
        (0.9, 0.3, 0.94, 0.21, 0.91, 0.31),
        (0.92, 0.19, 0.9, 0.22, 0.92, 0.29),
    )
]
CLEAN = ["60.0%", "85.0%", "95.0%", "95.0%", "2", "80.0%", "0.90, 0.19", "0.20, 0.30"]
AUGMENTED = ["60.0%", "80.0%", "91.0%", "92.0%", "4", "92.0%", "0.90, 0.19", "0.29, 0.40"]


def paper(**changes: Any) -> Config:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config("paper", (), {"data.path": "/photos", "train.seed": 3, "data.cache": "ram", **given})


@pytest.mark.parametrize(
    ("augmented", "first", "second"),
    [("both", AUGMENTED, CLEAN), (True, CLEAN, [None] * 8), (False, [None] * 8, CLEAN)],
)
def test_the_columns_are_what_the_run_was_validated_on(
    augmented: bool | str, first: list[Any], second: list[Any]
) -> None:
    """Of a run on augmented photos alone, `val_acc` is of those."""
    rows = beside_the_paper(paper(eval__augmented=augmented), HISTORY)
    assert rows is not None
    assert [row["augmented"] for row in rows] == first
    assert [row["clean"] for row in rows] == second
    assert [row["paper"] for row in rows][:6] == ["67.4%", "87.0%", "92.8%", "93.3%", "13", "93.3%"]


@pytest.mark.parametrize(
    "changes",
    [{"train__lr": 0.01}, {"data__image_size": 96}, {"model__name": "resnet18"}, {"augment__rotate": 0},
     {"eval__flip": True}, {"model__parent": "/run"}, {"eval__image_size": 256},
     {"model__pretrained": False}],
    ids=str,
)  # fmt: skip
def test_another_recipe_has_nothing_beside_it(changes: dict[str, Any]) -> None:
    assert beside_the_paper(paper(**changes), HISTORY) is None
    assert beside_the_paper(Config(), HISTORY) is None


def test_a_file_called_paper_is_not_taken_for_the_recipe(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = paper()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").write_text("train: {lr: 5}\n")
    assert beside_the_paper(config, HISTORY) is not None


def test_the_paper_begins_with_torchvisions_weights_prepared_as_they_were_tested() -> None:
    config = load_config("paper")
    cfg = timm.get_pretrained_cfg(config.model.name)
    assert cfg.hf_hub_id == "timm/resnet18.tv_in1k"
    assert cfg.url.startswith("https://download.pytorch.org/models/resnet18-")
    assert (cfg.mean, cfg.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (cfg.interpolation, cfg.crop_pct) == ("bilinear", config.eval.crop_pct)
    assert (cfg.input_size, cfg.test_input_size) == (
        (3, config.data.image_size, config.data.image_size),
        None,
    )
