"""recipes.py: which photos lie apart, which settings are put back, what is known is not run again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipes, tables
from flowerfast.photos.photos import Photos
from flowerfast.training import run as run_module

Write = Callable[..., Path]
Run = Callable[..., tuple[int, dict[str, Any]]]
RECIPE = """
data: {image_size: 32}
augment: light
model: {name: test_resnet, pretrained: false}
train: {epochs: 1, batch_size: 8, label_smoothing: 0.1}
"""


@pytest.fixture
def folder(photo_folder: Write) -> Path:
    return photo_folder({"daisy": 24, "rose": 24, "tulip": 24})


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Function (*arguments) → (exit code, results) of a recipe on `folder`; the same file each time."""
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "recipe-tiny.json"
    recipe.write_text(RECIPE)
    monkeypatch.setattr(run_module, "draw", lambda *_: None)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def measured(*arguments: object) -> tuple[int, dict[str, Any]]:
        given = ["recipes.py", folder, recipe, "--seeds", 1, "--out", out, *arguments]
        monkeypatch.setattr("sys.argv", [*map(str, given)])
        return recipes.main(), json.loads(out.read_text())

    return measured


@pytest.mark.parametrize(("uneven", "rose"), [(1, 16), (5, 4)])
def test_a_third_of_each_class_lies_apart(folder: Path, tmp_path: Path, uneven: int, rose: int) -> None:
    apart = recipes.set_apart(Photos(folder), tmp_path / "apart", uneven)
    counts = {
        half: [len([*each.iterdir()]) for each in sorted((apart / half).iterdir())]
        for half in ("train", "test")
    }
    assert counts == {"train": [16, rose, 16], "test": [8, 8, 8]}
    files = [file.resolve() for file in apart.rglob("*.jpg")]
    assert len({*files}) == len(files)
    assert {file.parent for file in files} == {*folder.iterdir()}
    again = recipes.set_apart(Photos(folder), tmp_path / "again", 1)
    assert {*map(Path.resolve, (again / "test").rglob("*.jpg"))} == {
        *map(Path.resolve, (apart / "test").rglob("*.jpg"))
    }


def test_each_setting_is_put_back_by_itself_and_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, first = run()
    assert (code, [*first["runs"]]) == (0, ["the recipe"])
    code, result = run("--ablate")
    assert [*result["runs"]] == [
        "the recipe",
        "without data.image_size=32",
        "without augment=the recipe's",
        "without train.batch_size=8",
        "without train.label_smoothing=0.1",
    ]
    assert result["runs"]["without train.label_smoothing=0.1"]["settings"] == {"train.label_smoothing": 0.0}
    assert result["runs"]["the recipe"] == first["runs"]["the recipe"]  # known, so not run again
    (row,) = first["runs"]["the recipe"]["runs"]
    assert (row["seed"], len(row["history"]), 0 <= row["test_acc"] <= 1) == (0, 1, True)
    assert run("--ablate")[1] == result
    table = tables.PAGES["docs/recipes.md"]["recipes"]()
    assert "|>" not in table
    assert "seconds in all" in table
    capsys.readouterr()
    assert run("--whole")[0] == 2
    assert "of another measurement; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "figure", "rows"),
    [
        (["--whole"], "validation accuracy", ["the recipe"]),
        (
            ["--uneven", 4],
            "test macro F1",
            ["the recipe", "with train.sampling=balanced", "with train.class_weights=balanced"],
        ),
    ],
)
def test_what_is_compared_without_a_clock_has_no_seconds(
    run: Run, kind: list[object], figure: str, rows: list[str]
) -> None:
    code, result = run(*kind)
    assert (code, [*result["runs"]]) == (0, rows)
    table = tables.PAGES["docs/recipes.md"]["recipes"]()
    assert figure in table
    assert "seconds in all" not in table
    assert ("test" in table.splitlines()[2]) == ("--whole" not in kind)
