"""`flowerfast predict`: answers one by one, in every format, of whatever files."""

import csv
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowerfast.commands import display
from flowerfast.commands.answers import answers
from flowerfast.commands.signals import Interrupted
from flowerfast.errors import UserError, WriteFailed
from flowerfast.pixels import reference
from flowerfast.pixels.reference import resize
from flowerfast.training import trained as module
from flowerfast.training.squares import Square, Squares
from flowerfast.training.trained import Prediction, TrainedModel
from tests.commands.runs import load, sets

Cli = Callable[..., tuple[int, str, str]]
FORMATS = ("json", "jsonl", "csv")


def rows_of(text: str, form: str) -> list[tuple[str, str, str]]:
    """(path, most likely class, error) of each answer."""
    if form == "csv":
        table = csv.DictReader(text.splitlines())
        return [(row["path"], row["name_1"], row["error"]) for row in table]
    rows = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    return [(r["path"], r["top"][0]["name"] if r["top"] else "", r.get("error", "")) for r in rows]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("to", ["-", "new/answers"])
def test_each_format_has_every_file_with_what_is_wrong_with_it(
    cli: Cli, trained: Any, tmp_path: Path, form: str, to: str
) -> None:
    (tmp_path / "junk.jpg").write_text("no photo")
    photos = [trained.photos / "red/00.jpg", trained.photos / "blue/00.jpg"]
    code, out, err = cli("predict", trained.run, photos[0], "junk.jpg", photos[1], f"--{form}", to)
    assert (code, err) == (0, "skipped: junk.jpg: not an image\n1 of 3 files skipped\n")
    text = out if to == "-" else (tmp_path / to).read_text()
    found = rows_of(text, form)
    assert found == [
        (str(photos[0]), "red", ""),
        ("junk.jpg", "", "not an image"),
        (str(photos[1]), "blue", ""),
    ]
    if to != "-":
        assert [line.partition(" ")[0] for line in out.splitlines()] == [f"{photo}:" for photo in photos]
        assert out.splitlines()[0].startswith(f"{photos[0]}: red ")
        assert out.splitlines()[0].count("%") == 3


def test_no_output_is_one_of_the_photos_or_anothers(cli: Cli, trained: Any, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes((trained.photos / "red/00.jpg").read_bytes())
    before = photo.read_bytes()
    for form in FORMATS:
        code, _, said = cli("predict", trained.run, photo, f"--{form}", "photo.jpg")
        said_so = f"flowerfast: error: --{form} photo.jpg: one of the photos; name another file\n"
        assert (code, said) == (2, said_so)
    assert photo.read_bytes() == before


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("other", ["out", "folder/../out", "link/out", "to-out", "hard"])
def test_no_output_is_anothers_by_whatever_name(
    cli: Cli, trained: Any, tmp_path: Path, other: str, there: bool
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "to-out").symlink_to("out")
    if there or other == "hard":
        (tmp_path / "out").write_text("kept")
        (tmp_path / "hard").hardlink_to(tmp_path / "out")
    before = {file: file.read_text() for file in tmp_path.iterdir() if file.is_file()}
    code, _, said = cli("predict", trained.run, trained.photos / "red", "--jsonl", other, "--csv", "out")
    assert (code, "--csv out: named twice" in said) == (2, True)
    assert {file: file.read_text() for file in tmp_path.iterdir() if file.is_file()} == before


def test_names_that_look_like_patterns_and_photos_of_other_kinds(
    cli: Cli, trained: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "[old] rose"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((trained.photos / "red/00.jpg").read_bytes())
    (folder / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    code, out, said = cli("predict", trained.run, "[old] rose/*")
    assert (code, out.startswith("[old] rose/a.jpg: red ")) == (0, True)
    assert said.startswith("skipped: [old] rose/b.HEIC: not an image (convert to JPEG)\n")
    code, out, said = cli("predict", trained.run, "[old] rose", "--csv", "[old] rose")
    assert (code, out) == (2, "")
    assert said == "flowerfast: error: --csv [old] rose: is a folder; name a file in it\n"


def test_the_columns_of_csv(cli: Cli, trained: Any) -> None:
    _, out, _ = cli("predict", trained.run, trained.photos / "red/00.jpg", "--csv", "-", "--top-k", 2)
    (row,) = csv.DictReader(out.splitlines())
    assert [*row] == ["path", "name_1", "probability_1", "name_2", "probability_2", "error"]
    assert 1 >= float(row["probability_1"]) >= float(row["probability_2"]) >= 0


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\nb.jpg", 'a",b.jpg'])
def test_names_with_what_ends_lines_and_cells_come_back_from_csv(
    cli: Cli, trained: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes((trained.photos / "red/00.jpg").read_bytes())
    assert cli("predict", trained.run, tmp_path / name, "--csv", "answers")[0] == 0
    with (tmp_path / "answers").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["path"] == str(tmp_path / name)
    assert row["name_1"] == "red"


def test_a_long_name_is_not_cut_where_nobody_looks(cli: Cli, trained: Any, tmp_path: Path) -> None:
    photo = tmp_path / ("long " * 30) / ("x" * 200 + ".jpg")
    photo.parent.mkdir()
    photo.write_bytes((trained.photos / "red/00.jpg").read_bytes())
    code, out, _ = cli("predict", trained.run, photo)
    assert (code, out.startswith(f"{photo}: red "), out.count("\n")) == (0, True, 1)


def test_a_second_format_for_standard_output_is_refused(cli: Cli, trained: Any) -> None:
    code, out, err = cli("predict", trained.run, trained.photos, "--json", "-", "--csv", "-")
    assert (code, out) == (2, "")
    assert err == "flowerfast: error: --json, --jsonl and --csv: one of them at most to standard output, -\n"


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_cannot_be_written_is_named(cli: Cli, trained: Any, tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("kept")
    code, out, err = cli("predict", trained.run, trained.photos / "red", f"--{form}", "file/inside")
    assert (code, out) == (2, "")
    assert err.startswith(f"flowerfast: error: --{form} file/inside: cannot be written (")
    assert (tmp_path / "file").read_text() == "kept"


def test_answers_are_there_at_once_and_json_is_whole_or_not_at_all(tmp_path: Path) -> None:
    files: dict[str, Path | None] = {form: tmp_path / f"a.{form}" for form in FORMATS}
    (tmp_path / "a.json").write_text("old")

    def stopped() -> None:
        with answers(files, 1) as tell:
            tell(Prediction("a.jpg", (("rose", 0.5),)))
            assert [len((tmp_path / f"a.{form}").read_text().splitlines()) for form in FORMATS] == [1, 1, 2]
            raise UserError("stop")

    with pytest.raises(UserError, match="stop"):
        stopped()
    assert (tmp_path / "a.json").read_text() == "old"
    assert [*tmp_path.glob("*.partial")] == []
    assert rows_of((tmp_path / "a.jsonl").read_text(), "jsonl") == [("a.jpg", "rose", "")]


def test_no_answer_is_kept(trained: Any) -> None:
    model = module.load_run(trained.run, "cpu")
    asked = list[int]()

    def pictures() -> Iterator[np.ndarray]:
        for number in range(100_000):
            asked.append(number)
            yield np.zeros((4, 4, 3), np.uint8)

    answered = model.predict_each(pictures(), batch_size=1)
    assert next(answered).path == "0"
    assert next(answered).path == "1"
    assert asked == [0, 1]


def test_answers_are_written_while_most_photos_are_not_yet_read(
    cli: Cli, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped half way, the answers so far are there, whole; the bar was told of each of them."""
    told, of_files = list[tuple[int, int]](), Squares.of_files
    monkeypatch.setattr(display, "answers_bar", lambda _: nullcontext(lambda *done: told.append(done)))

    def until_stopped(self: Squares, files: list[str]) -> list[Square]:
        if any(file.endswith("stop.jpg") for file in files):
            raise Interrupted(signal.SIGINT)
        return of_files(self, files)

    monkeypatch.setattr(Squares, "of_files", until_stopped)
    photos = [trained.photos / "red/00.jpg"] * 40
    names = [*photos, tmp_path / "stop.jpg", *photos]
    (tmp_path / "stop.jpg").touch()
    files = [part for form in FORMATS for part in (f"--{form}", f"answers.{form}")]
    code, _, said = cli("predict", trained.run, *names, "--batch-size", 8, *files)
    assert (code, said) == (130, "flowerfast: stopped by SIGINT\n")
    assert told == [(number, 81) for number in range(1, 41)]
    assert not (tmp_path / "answers.json").exists()
    for form in ("jsonl", "csv"):
        found = rows_of((tmp_path / f"answers.{form}").read_text(), form)
        assert found == [(str(photo), "red", "") for photo in photos]


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_strip_takes_no_more_than_its_crop(
    trained: Any, tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[int]()

    def measured(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        made.append(height * width)
        assert made[-1] < 1e5, "resized whole it would take gigabytes"
        return resize(pixels, height, width)

    monkeypatch.setattr(reference, "resize", measured)
    model: TrainedModel = module.load_run(trained.run, "cpu")
    pixels = np.full((size[1], size[0], 3), (200, 60, 60), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "strip.png")
    (prediction,) = model.predict(tmp_path / "strip.png")
    assert (prediction.error, prediction.top[0][0], len(made)) == (None, "red", 1)
    assert (model.prepare(pixels).numpy().reshape(3, -1).T == (200, 60, 60)).all()


@pytest.mark.parametrize("form", FORMATS)
def test_answers_whose_reader_has_enough_end_quietly(
    trained: Any, monkeypatch: pytest.MonkeyPatch, cli: Cli, form: str
) -> None:
    class Closed:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr("flowerfast.commands.answers.sys.stdout", Closed())
        assert cli("predict", trained.run, trained.photos / "red", f"--{form}", "-")[0] == 141


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_whole_lines_and_says_what_it_lacks(tmp_path: Path, form: str) -> None:
    resource = pytest.importorskip("resource")
    file, limits = tmp_path / "answers", resource.getrlimit(resource.RLIMIT_FSIZE)
    prediction = Prediction("photo.jpg", (("daisy", 0.75), ("rose", 0.25)))

    def tell_all() -> None:
        with answers({form: file}, 2) as tell:
            for _ in range(100):
                tell(prediction)

    line = r"File too large: .+ free, .+answers"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WriteFailed, match=line):
            tell_all()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*tmp_path.iterdir()] == ([] if form == "json" else [file])
    if form != "json":
        text = file.read_text()
        assert text.endswith("\n")
        assert rows_of(text, form) == [("photo.jpg", "daisy", "")] * len(rows_of(text, form))
        assert 500 < len(text) <= 1000


def test_predict_tells_people_and_scripts(cli: Cli, trained: Any, tmp_path: Path) -> None:
    red, blue = trained.photos / "red", trained.photos / "blue/00.jpg"
    code, out, err = cli("predict", trained.run, red, "--json", "-", "--top-k", 2)
    assert (code, err) == (0, "")
    rows = json.loads(out)  # nothing else is printed
    assert [row["path"] for row in rows] == [str(file) for file in sorted(red.iterdir())]
    assert all(list(row) == ["path", "top"] and len(row["top"]) == 2 for row in rows)
    assert sum(row["top"][0]["name"] == "red" for row in rows) >= 10
    code, table, err = cli("predict", trained.run, red, "--json", "rows.json", "--top-k", 2)
    assert (code, err) == (0, "")
    assert load(tmp_path / "rows.json") == rows
    assert "red" in table
    code, out, _ = cli("predict", trained.run, blue)
    assert (code, "blue" in out) == (0, True)
    code, _, err = cli("predict", trained.run, blue, "--json", "rows.json/inside")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("flowerfast: error: --json rows.json/inside: cannot be written (")
    assert "rows.json is no folder" in err


def test_predict_names_what_it_skips(cli: Cli, trained: Any, tmp_path: Path) -> None:
    (tmp_path / "junk.jpg").write_text("no photo")
    code, out, err = cli("predict", trained.run, "junk.jpg", trained.photos / "red/00.jpg", "--json", "-")
    assert (code, err) == (0, "skipped: junk.jpg: not an image\n1 of 2 files skipped\n")
    bad, good = json.loads(out)
    assert bad == {"path": "junk.jpg", "top": [], "error": "not an image"}
    assert good["top"][0]["name"] == "red"
    code, _, err = cli("predict", trained.run, "junk.jpg")
    assert code == 2
    assert err.splitlines()[-1] == (
        "flowerfast: error: junk.jpg: none of 1 files can be read as a photo; give others"
    )
    code, _, err = cli("predict", trained.run, trained.photos / "red", *sets("data.max_pixels=100"))
    assert (code, "56x48 pixels, more than data.max_pixels=100" in err) == (2, True)
