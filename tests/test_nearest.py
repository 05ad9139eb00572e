"""What a misspelt name may have meant: its like, or nothing."""

import pytest

from flowerfast.nearest import did_you_mean, hint, nearest, nearest_keys

KEYS = ["data.path", "data.image_size", "augment.flip", "train.lr", "train.batch_size", "train.step_size"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Batch-Size", ["batch_size"]), ("batch", ["batch_size", "batch_sizes"]), ("izes", ["batch_sizes"]),
     ("my_batch_size", ["batch_size"]), ("bacth_size", ["batch_size", "batch_sizes"]), ("flip", []),
     ("ba", []), ("", [])],
)  # fmt: skip
def test_names_that_are_near(name: str, expected: list[str]) -> None:
    assert nearest(name, ["lr", "batch_sizes", "batch_size"]) == expected
    assert nearest(name, ["lr", "batch_sizes", "batch_size"], count=1) == expected[:1]


@pytest.mark.parametrize(
    ("key", "expected"),
    [("train.size", ["data.image_size"]), ("lr", ["train.lr"]), ("model.lr", ["train.lr"]),
     ("learning-rate", ["train.lr"]), ("data.mosaic", []), ("wd", [])],
)  # fmt: skip
def test_keys_that_are_near(key: str, expected: list[str]) -> None:
    assert nearest_keys(key, KEYS) == expected


def test_what_is_said() -> None:
    assert did_you_mean(["a", "b"]) == "; did you mean 'a' or 'b'?"
    assert hint("train.epoch", KEYS) == (
        ": not supported; train has lr, batch_size, step_size; `flowerfast settings` lists all"
    )
    assert hint("mosaic", ["flip", "rotate"]) == (
        ": not supported; it has flip, rotate; `flowerfast settings` lists all"
    )
    assert hint("mosaic", KEYS) == ": not supported; `flowerfast settings` lists all"
