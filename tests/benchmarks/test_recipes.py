"""recipes.py: which photos lie apart, which settings are put back, what is known is not run again."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipes, tables
from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
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
    """Function (*arguments) → (exit code, results) of a recipe on `folder`, or on other `data`; the same file
    each time.
    """
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "recipe-tiny.json"
    recipe.write_text(RECIPE)
    monkeypatch.setattr(run_module, "draw", lambda *_: None)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def measured(
        *arguments: object, data: Path = folder, recipe: Path = recipe
    ) -> tuple[int, dict[str, Any]]:
        given = ["recipes.py", data, recipe, "--seeds", 1, "--out", out, *arguments]
        monkeypatch.setattr("sys.argv", [*map(str, given)])
        return recipes.main(), json.loads(out.read_text())

    return measured


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take no time; the one of seed 7 fails."""

    def once(_folder: Path, _config: str, _settings: object, seed: int) -> dict[str, Any]:
        if seed == 7:
            raise RunFailed("the training loss is nan; lower train.lr")
        return {"seed": seed, "val_acc": 0.5, "seconds": 1.0}

    monkeypatch.setattr(recipes, "once", once)


def labelled(photos: Photos) -> dict[Path, int]:
    files = [(photos.root / photos.path(index)).resolve() for index in photos.indices.tolist()]
    return dict(zip(files, photos.labels.tolist(), strict=True))


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
    assert all(file.name == file.resolve().name for file in apart.rglob("*.jpg"))
    again = recipes.set_apart(Photos(folder), tmp_path / "again", 1)
    assert {*map(Path.resolve, (again / "test").rglob("*.jpg"))} == {
        *map(Path.resolve, (apart / "test").rglob("*.jpg"))
    }


@pytest.mark.parametrize(
    "classes",
    [
        ["daisy/2023/a", "daisy/2024/a", "rose/a"],
        ["train/daisy", "train/rose", "val/daisy", "val/rose"],
        ["march", "april"],
    ],
)
def test_links_lie_in_the_class_of_their_photo(
    photo_folder: Write, tmp_path: Path, classes: list[str]
) -> None:
    data = photo_folder(dict.fromkeys(classes, 6))
    if "march" in classes:  # of a table that says what is on them
        rows = [f"{file.relative_to(data)},{file.stem[-1] < '3'}" for file in data.rglob("*.jpg")]
        data /= "photos.csv"
        data.write_text("\n".join(["path,label", *rows]))
    photos = Photos(data)
    apart = Photos(recipes.set_apart(photos, tmp_path / "apart"))
    assert apart.classes == photos.classes
    assert labelled(apart) == labelled(photos)
    assert len(apart) == len(photos)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("settings", "classes", "count"),
    [
        ("{layout: classes}", ("train", "val"), 24),
        ("{classes: [tulip, daisy]}", ("tulip", "daisy"), 16),
        ("{max_pixels: 2000, max_bad: 1}", ("daisy", "rose", "tulip"), 18),
        ("{label_column: month}", ("april", "march"), 24),
    ],
)
def test_all_rows_are_of_the_photos_that_the_recipe_opens(
    photo_folder: Write,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,
    settings: str,
    classes: tuple[str, ...],
    count: int,
) -> None:
    kinds = ("train/daisy", "train/rose", "val/rose") if "train" in classes else ("daisy", "rose", "tulip")
    data, recipe = photo_folder(dict.fromkeys(kinds, 8), name="data"), tmp_path / "its.yaml"
    files = sorted(data.rglob("*.jpg"))
    if "april" in classes:
        rows = [f"{file},{file.parent.name},{('march', 'april')[n % 2]}" for n, file in enumerate(files)]
        data = tmp_path / "photos.csv"
        data.write_text("\n".join(["path,label,month", *rows]))
    recipe.write_text(f"data: {settings}")
    opened: list[tuple[dict[Path, int], tuple[str, ...], bool]] = []

    def once(folder: Path, config: str, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        photos = Photos.open(folder, load_config(config, (), settings).data)
        opened.append((labelled(photos), photos.classes, len(photos.test) == 0))
        return {"seed": seed, "val_acc": 0.5, "seconds": 1.0}

    monkeypatch.setattr(recipes, "once", once)
    expected = Photos.open(data, load_config(recipe).data)
    code, result = run("--paper", "--ablate", *["--whole"] * whole, data=data, recipe=recipe)
    assert (code, result["data"]["photos"], len(expected)) == (0, count, count)
    assert opened == [(labelled(expected), classes, whole)] * 2


def test_what_cannot_lie_apart_is_refused(photo_folder: Write, tmp_path: Path) -> None:
    folder, table = photo_folder(), tmp_path / "photos.csv"
    pack(folder, tmp_path / "shards", PackSettings(), DataConfig(workers=1))
    table.write_text("path,label\nphotos/daisy/daisy_000.jpg,a/b\nphotos/rose/rose_000.jpg,c\n")
    refused = {
        "are no files of their own": Photos(tmp_path / "shards"),
        "have several labels": Photos(table, label_separator="/"),
        "class 'a/b' is no name of a folder": Photos(table),
    }
    for why, photos in refused.items():
        with pytest.raises(UserError, match=f"{why}.*--whole"):
            recipes.set_apart(photos, tmp_path / "apart")
    assert not (tmp_path / "apart").exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["--whole"], ["--seeds", 2]),
        ([], ["--whole"]),
        ([], ["--uneven", 2]),
        (["--paper", "--paper-lr", 0.5], ["--paper", "--seeds", 2]),
    ],
)
@pytest.mark.usefixtures("untrained")
def test_another_measurement_is_not_gone_on_with(
    run: Run, capsys: pytest.CaptureFixture[str], first: list[object], second: list[object]
) -> None:
    code, result = run(*first)
    assert code == 0
    assert run(*second) == (2, result)
    assert "of another measurement; choose another --out" in capsys.readouterr().err


@pytest.mark.usefixtures("untrained")
def test_rows_that_are_not_asked_for_stay(run: Run) -> None:
    def seeds(*arguments: object) -> dict[str, int]:
        code, result = run(*arguments)
        assert code == 0
        return {name: len(row["runs"]) for name, row in result["runs"].items()}

    assert seeds() == {"the recipe": 1}
    assert seeds("--paper", "--paper-lr", 0.5) == {"the recipe": 1, "paper's recipe": 1}
    assert seeds("--seeds", 2) == {"the recipe": 2, "paper's recipe": 1}
    assert len(seeds("--ablate")) == 6


@pytest.mark.usefixtures("untrained")
def test_a_run_that_fails_ends_in_a_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run("--seeds", 9)
    assert code == 1
    assert [each["seed"] for each in result["runs"]["the recipe"]["runs"]] == [*range(7)]
    assert capsys.readouterr().err == "the training loss is nan; lower train.lr\n"


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(("write", "file"), [("write_text", "recipe-tiny.json"), ("symlink_to", ".jpg")])
def test_a_full_disk_ends_in_a_line_and_takes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write: str, file: str
) -> None:
    def full(file: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    before = run()
    capsys.readouterr()
    monkeypatch.setattr(Path, write, full)
    assert run("--seeds", 2) == (1, before[1])
    said = capsys.readouterr().err
    assert f"{file}: cannot be written (No space left on device" in said
    assert said.endswith("; make room, then run the same command again\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("rate", [0, -1, "nan", "inf"])
@pytest.mark.usefixtures("untrained")
def test_a_learning_rate_that_is_none_is_refused_before_anything_runs(
    run: Run, capsys: pytest.CaptureFixture[str], rate: object
) -> None:
    code, before = run()
    capsys.readouterr()
    assert (code, run("--seeds", 2, "--paper", "--paper-lr", rate)) == (0, (2, before))
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "--paper-lr=" in told.err


@pytest.mark.parametrize("given", [["--uneven", 0], ["--uneven", -2], ["--seeds", 0]])
def test_no_seed_and_no_photo_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], given: list[object]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*given)
    assert ended.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "is a folder; name a file in it"),
        ("", "no results file"),
        ('{"schema": 2,', "no results file"),
        ("[]", "no results file"),
        ('{"runs": [3]}', "no results file"),
        ("{}", "of another measurement"),
    ],
)
@pytest.mark.usefixtures("untrained")
def test_what_stands_at_out_is_looked_at_first(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, why: str
) -> None:
    out = tmp_path / "taken"
    out.mkdir() if content is None else out.write_text(content)
    run()
    capsys.readouterr()
    for file, line in ((out, why), (tmp_path / "recipe-tiny.json" / "new", "cannot be written")):
        assert run("--out", file)[0] == 2
        told = capsys.readouterr()
        assert (told.out, told.err.count("\n")) == ("", 1)
        assert line in told.err


@pytest.mark.parametrize("lacking", ["settings", "runs", "seed", "val_acc"])
@pytest.mark.usefixtures("untrained")
def test_rows_that_lack_something_are_no_results(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], lacking: str
) -> None:
    _, result = run()
    row = result["runs"]["the recipe"]
    del (row if lacking in row else row["runs"][0])[lacking]
    (tmp_path / "recipe-tiny.json").write_text(json.dumps(result))
    capsys.readouterr()
    assert run() == (2, result)
    said = capsys.readouterr().err
    assert (said.count("\n"), lacking in said) == (1, True)
    assert "recipe-tiny.json: no results file (" in said


def test_each_setting_is_put_back_by_itself_and_once(run: Run) -> None:
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
