"""--quiet and --log-json: what is said, where, and what is not."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flowerfast.commands import cli as cli_module
from flowerfast.commands import display
from flowerfast.commands.output import out
from flowerfast.commands.speech import SPEECH
from tests.commands.runs import SHORT, load, sets
from tests.commands.test_streams import FULL, Ends

Cli = Callable[..., tuple[int, str, str]]
PLAIN = sets("train.device=cpu", "data.kernels=torchvision")


def events(printed: str) -> list[dict[str, Any]]:
    """Each line is an event with a name and a time."""
    told = [json.loads(line) for line in printed.splitlines()]
    assert all(
        isinstance(each["event"], str) and datetime.fromisoformat(each["time"]).tzinfo for each in told
    )
    return told


def test_a_quiet_run_says_where_it_is_and_how_good_and_names_bad_files(cli: Cli, photos: Path) -> None:
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    code, printed, err = cli("train", photos, *SHORT, *PLAIN, "--out", "run", "--quiet")
    summary = load(Path("run/summary.json"))
    assert code == 0
    assert printed.startswith(f"run: best validation accuracy {summary['best_val_acc']:.1%} in epoch ")
    assert printed.count("\n") == 1
    assert err == "skipped: blue/01.jpg: not an image\n1 of 36 files skipped\n"
    out.print("loud again")
    assert not SPEECH.is_quiet


def test_a_run_in_events(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_PLAIN_SECONDS", 0.0)
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    code, printed, err = cli("train", photos, *SHORT, *PLAIN, "--out", "run", "--log-json")
    assert (code, err) == (0, "")
    told = events(printed)
    names = [each["event"] for each in told]
    assert (names[0], names[-1]) == ("start", "result")
    assert (told[0]["command"], told[-1]["folder"]) == ("train", "run")
    stored = load(Path("run/summary.json"))
    assert told[-1]["result"] == {key: value for key, value in stored.items() if key != "sha256"}
    (run,) = [each for each in told if each["event"] == "run"]
    assert (run["folder"], run["classes"], run["epochs_done"]) == ("run", ["blue", "green", "red"], 0)
    assert (run["train_samples"], run["val_samples"], run["test_samples"]) == (29, 6, 0)
    assert run["config"]["model"]["name"] == "test_resnet"
    epochs = [each for each in told if each["event"] == "epoch"]
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for epoch, row in zip(epochs, rows, strict=True):
        assert epoch == {**row, **{key: epoch[key] for key in ("event", "time", "best")}}
    assert epochs[0]["best"] is True
    step = next(each for each in told if each["event"] == "step")
    assert {"epoch", "batch", "batches", "images_per_sec", "train_loss", "train_acc"} < set(step)
    assert "skipped: blue/01.jpg: not an image" in [e["text"] for e in told if e["event"] == "warning"]
    assert any(each["text"].startswith("backend: cpu") for each in told if each["event"] == "note")


def test_progress_in_events(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SPEECH, "is_json", True)
    now = iter([0.0, 9.0, 10.0, 19.0, 21.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(now))
    with display.progress_bar(out, "reading\x1b") as bar:
        for done in range(1, 5):
            bar(done, 4)
    told = events(capsys.readouterr().out)
    assert [(each["event"], each["what"], each["done"], each["total"]) for each in told] == [
        ("progress", "reading\x1b", 2, 4), ("progress", "reading\x1b", 4, 4)
    ]  # fmt: skip


def test_a_failure_is_an_event_and_a_line(cli: Cli, photos: Path) -> None:
    code, printed, err = cli(
        "train", photos, *SHORT, *PLAIN, *sets("train.lr=1e30"), "--out", "r", "--log-json"
    )
    last = events(printed)[-1]
    assert (code, last["event"], f"{last['text']}\n") == (1, "error", err)
    code, printed, err = cli("scan", "missing\x1b", "--log-json")
    assert code == 2
    assert [each["event"] for each in events(printed)] == ["start", "error"]
    assert events(printed)[1]["text"] + "\n" == err
    assert "\x1b" not in printed + err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["evaluate", "RUN", "PHOTOS", *PLAIN], "accuracy "),
        (["scan", "PHOTOS"], "PHOTOS: nothing wants a person's eye"),
        (["pack", "PHOTOS", "shards"], "36 photos in 1 shard, "),
        (
            ["tune", "PHOTOS", "--trials", "1", "--out", "t", *SHORT, *PLAIN],
            "best: trial 0, ",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_commands(cli: Cli, trained: Any, tmp_path: Path, arguments: list[str], line: str) -> None:
    names = {"RUN": str(trained.run), "PHOTOS": str(trained.photos)}
    given = [names.get(each, each) for each in arguments]
    code, printed, err = cli(*given, "--quiet")
    assert (code, err, printed.count("\n")) == (0, "", 1)
    assert printed.startswith(line.replace("PHOTOS", names["PHOTOS"]))
    code, printed, err = cli(*given, "--log-json", "--json", "result.json")
    assert (code, err) == (0, "")
    told = events(printed)
    assert (told[0]["event"], told[0]["command"]) == ("start", arguments[0])
    assert told[-1]["event"] == "result"
    assert told[-1]["result"] == load(tmp_path / "result.json")


def test_answers(cli: Cli, trained: Any, tmp_path: Path) -> None:
    (tmp_path / "junk.jpg").write_text("no photo")
    asked = ["predict", trained.run, "junk.jpg", trained.photos / "red/00.jpg", *sets("train.device=cpu")]
    code, printed, err = cli(*asked, "-q")
    assert code == 0
    assert printed.startswith(f"{trained.photos / 'red/00.jpg'}: red ")
    assert err == "skipped: junk.jpg: not an image\n1 of 2 files skipped\n"
    code, printed, err = cli(*asked, "--log-json")
    assert (code, err) == (0, "")
    told = events(printed)
    bad, good = [each for each in told if each["event"] == "prediction"]
    assert (bad["path"], bad["error"]) == ("junk.jpg", "not an image")
    assert good["top"][0]["name"] == "red"
    assert told[-1]["result"] == {"photos": 2, "skipped": 1}


def test_a_command_line_that_means_nothing_is_an_event_too(cli: Cli, photos: Path) -> None:
    code, printed, err = cli("train", photos, "--log-json", "--bogus")
    assert code == 2
    (told,) = events(printed)
    assert told["event"] == "error"
    assert told["text"] == err.rstrip()
    assert cli("train", photos, "--bogus")[1] == ""


@pytest.mark.parametrize(
    "arguments", [["--quiet", "--log-json"], ["--log-json", "--json", "-"]], ids=" ".join
)
def test_what_cannot_be_together_is_refused(cli: Cli, photos: Path, arguments: list[str]) -> None:
    code, printed, err = cli("scan", photos, *arguments)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert arguments[0] in err


def test_nobody_who_reads_events_ends_no_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["train", str(photos), *SHORT, *PLAIN, "--log-json"]
    for lines, error in ((0, BrokenPipeError()), (1, FULL)):
        run = tmp_path / f"run{lines}"
        monkeypatch.setattr("sys.argv", ["flowerfast", *given, "--out", str(run)])
        monkeypatch.setattr("sys.stdout", Ends(lines, error))
        assert cli_module.run() == (141 if lines == 0 else 1)
        assert (run / "summary.json").is_file()


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, coloured in (("OTHER", True), ("NO_COLOR", False)):
        with monkeypatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            patch.setenv(name, "1")
            patch.setenv("FORCE_COLOR", "1")
            patch.setenv("TERM", "xterm-256color")
            with (tmp_path / name).open("w") as file:
                patch.setattr("sys.stdout", file)
                console = type(out)()
                now = iter(range(0, 1000, 2))
                patch.setattr(display.time, "monotonic", lambda now=now: float(next(now)))
                with display.progress_bar(console, "working") as bar:
                    bar(1, 2)
        text = (tmp_path / name).read_text()
        assert "working" in text
        assert ("\x1b[38;5;" in text) == coloured


def test_the_commands_of_the_page(cli: Cli, photos: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    lines = re.findall(r"^flowerfast (?!--).*", page, re.MULTILINE)
    commands = [command.split(" > ")[0].split()[1:] for line in lines for command in line.split(" && ")]
    assert [command[0] for command in commands] == ["train", "scan", "train", "train", "predict"]
    for command in commands:
        given = [word.replace("~/photos", "photos") for word in command]
        more = [*SHORT, *PLAIN, *sets("train.epochs=1")] if command[0] == "train" else []
        code, printed, _ = cli(*given, *more)
        assert code == 0
        assert printed.count("\n") == 1 or events(printed)
