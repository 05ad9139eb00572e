"""What the trials of a search try."""

from flowerfast.config import Config
from flowerfast.training import trials


def test_what_is_drawn_follows_from_the_seed() -> None:
    base = Config.model_validate({"data": {"path": "."}, "train": {"seed": 3}})
    drawn = [trials._draw(number, base, {}, (224, 160)) for number in range(40)]
    assert drawn == [trials._draw(number, base, {}, (224, 160)) for number in range(40)]
    assert drawn[0] == {}
    assert len({trial["train.lr"] for trial in drawn[1:]}) > 20
    assert all(1e-4 <= trial["train.lr"] <= 1e-2 for trial in drawn[1:])
    assert {trial["data.image_size"] for trial in drawn[1:]} == {160, 224}
    assert any(trial["train.weight_decay"] == 0 for trial in drawn[1:])
    assert {trial.get("augment") for trial in drawn[1:]} == {None, "light", "strong"}
