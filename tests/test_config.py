"""The configuration: frozen, checked, and each setting described once."""

import pytest
from pydantic import BaseModel, ValidationError

from flowerfast.config import Config, describe_settings, known_keys, validate
from flowerfast.errors import UserError


def test_configs_are_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        config.train = config.train


def test_validate_names_the_origin() -> None:
    assert validate({}, "x") == Config()
    with pytest.raises(UserError, match=r"^config\.json of RUN: train\.lr=-1"):
        validate({"train": {"lr": -1}}, "config.json of RUN")


def test_every_setting_is_described_once() -> None:
    rows = list(describe_settings())
    assert [key for key, _, _ in rows] == list(known_keys())
    assert len({key for key, _, _ in rows}) == len(rows)
    assert len({meaning for _, _, meaning in rows}) == len(rows)
    assert all(len(meaning) > 10 and "\n" not in meaning for _, _, meaning in rows)
    defaults = {key: default for key, default, _ in rows}
    assert defaults["train.lr"] == 0.001
    assert defaults["train.patience"] is None
    assert defaults["augment.crop_scale"] == [0.08, 1.0]
    assert defaults["data.backend"] == "auto"


def test_the_known_keys_are_all_fields() -> None:
    def count(model: type[BaseModel]) -> int:
        kinds = [info.annotation for info in model.model_fields.values()]
        return sum(
            count(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else 1 for kind in kinds
        )

    assert len(list(known_keys())) == count(Config)
    assert {"data.max_bad", "train.lr", "eval.augmented", "checkpoints.keep", "log.tensorboard"} < {
        *known_keys()
    }
