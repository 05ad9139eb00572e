"""Standard output that ends early or is full: no training ends with it, and commands end quietly."""

import errno
import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from flowerfast.commands import cli, output
from flowerfast.commands.display import TrainDisplay

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Ends(io.StringIO):
    """A stream that takes so many lines and then fails."""

    def __init__(self, lines: int, error: OSError) -> None:
        super().__init__()
        self._left, self._error = lines, error

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().write(text)


TRAIN = ["--set", "model.name=test_resnet", "--set", "model.pretrained=false", "--set", "data.image_size=32",
         "--set", "data.workers=1", "--set", "data.kernels=torchvision", "--device", "cpu",
         "--epochs", "2"]  # fmt: skip


@pytest.mark.parametrize("error", [BrokenPipeError(), FULL], ids=["closed", "full"])
def test_training_goes_on_without_anybody_to_tell(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["flowerfast", "train", str(photos), "--out", str(tmp_path / "run"), *TRAIN]
    )
    monkeypatch.setattr("sys.stdout", Ends(1, error))
    if isinstance(error, BrokenPipeError):
        assert cli.run() == 141
    else:
        with pytest.raises(OSError, match="No space left"):
            cli.run()
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run/summary.json").is_file()
    monkeypatch.setattr("sys.stdout", io.StringIO())
    output.out.print()  # what could not be written comes now, not with the next test's words


def test_what_is_lost_is_remembered_and_nothing_more_is_printed() -> None:
    stream = Ends(1, FULL)
    display = TrainDisplay(Console(file=stream, width=100))
    for text in ("one", "two", "three"):
        display.note(text)
    assert display.lost is FULL
    assert stream.getvalue() == "one\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["settings"], ["settings", "--json", "-"]], ids=" ".join)
def test_a_full_disk_behind_standard_output_is_said_in_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flowerfast", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("flowerfast: error: standard output")
    assert done.stderr.count("\n") == 1
    assert "no space left on device" in done.stderr.lower()


@pytest.mark.parametrize("arguments", [["settings"], ["settings", "--json", "-"]], ids=" ".join)
def test_a_reader_that_has_enough_ends_a_command_quietly(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "flowerfast", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_standard_error_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Ends(0, FULL))
    output.complain("one")


def test_what_other_libraries_say_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    last = logging.lastResort
    assert last is not None
    before = last.formatter
    try:
        output.print_text_alone()
        last.handle(logging.LogRecord("timm", logging.WARNING, "", 0, "in %s", ("a\x1b[2J\u202e",), None))
        sys.stderr.write(warnings.formatwarning("b\x9b2J", UserWarning, "c\x1b.py", 1))
    finally:
        last.setFormatter(before)
    said = capsys.readouterr().err
    assert said.startswith("in a\\x1b[2J\\u202e\n")
    assert "c\\x1b.py:1: UserWarning: b\\x9b2J" in said


@pytest.mark.skipif(os.name != "posix", reason="no such shell")
@pytest.mark.parametrize(
    ("closed", "wanted", "code"), [(">&-", "lr", 0), (">&-", "nope", 2), ("2>&-", "nope", 2)]
)
def test_a_stream_that_is_closed_from_the_start_changes_no_exit_code(
    closed: str, wanted: str, code: int
) -> None:
    command = f'"{sys.executable}" -m flowerfast settings {wanted} {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
