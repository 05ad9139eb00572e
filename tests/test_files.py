"""Files that are never half, and never anything but files."""

import json
import os
import stat
from pathlib import Path

import pytest

from flowerfast import files


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path, durable: bool, shared: bool) -> None:
    file = tmp_path / "deep/er/file.txt"
    for text in ("first", "second"):
        with files.replacing(file, durable=durable, shared=shared) as fresh:
            fresh.write_text(text)
            assert not file.exists() or file.read_text() == "first"
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_writer_that_fails_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], begun: bool, old: str | None
) -> None:
    file = tmp_path / "file.txt"
    if old is not None:
        file.write_text(old)

    def write() -> None:
        with files.replacing(file) as fresh:
            if begun:
                fresh.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ([file.name] if old is not None else [])
    assert old is None or file.read_text() == old


def test_a_library_that_writes_for_the_owner_alone_does_not_decide(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "file") as fresh:
        fresh.touch(0o600)
    assert (tmp_path / "file").stat().st_mode & 0o044 == 0o044 & files._MODE


def test_texts_are_utf8_whatever_names_they_hold(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "ü \udce9", durable=True)
    assert (tmp_path / "file").read_bytes() == "ü \\udce9".encode()
    with pytest.raises(OSError, match="file"):
        files.write_text(tmp_path / "file/below", "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Nor waited for: nobody writes to the pipe."""
    file, pipe, link = tmp_path / "file", tmp_path / "pipe", tmp_path / "link"
    file.write_bytes(b"x\r\n")
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    assert files.read_bytes(file) == b"x\r\n"
    assert files.read_text(file) == "x\r\n"
    for path in (pipe, link, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_bytes(path)
    with pytest.raises(IsADirectoryError):
        files.open_regular(tmp_path)
    opened = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="not a regular file"):
        files.open_regular(pipe)
    assert len(os.listdir("/dev/fd")) == opened  # closed again


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be forced to the disk there")
@pytest.mark.parametrize("durable", [False, True])
def test_a_durable_file_is_on_the_disk_before_its_name_and_that_before_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    done: list[str] = []
    names = {tmp_path.stat().st_ino: "above"}
    fsync, rename = os.fsync, os.replace

    def force(file: int) -> None:
        status = os.fstat(file)
        done.append("content" if stat.S_ISREG(status.st_mode) else names.get(status.st_ino, "folder"))
        fsync(file)

    def replace(source: Path, target: Path) -> None:
        done.append("name")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", force)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(tmp_path / "new/a.txt", "x", durable=durable)
    assert done == (["above", "content", "name", "folder"] if durable else ["name"])


def test_json_has_null_for_what_is_no_number() -> None:
    nested = {"a": [1.5, float("nan"), (float("inf"), "NaN")], "b": {"c": -float("inf"), "d": None, "e": 1}}
    expected = {"a": [1.5, None, [None, "NaN"]], "b": {"c": None, "d": None, "e": 1}}
    text = files.to_json(nested, indent=1)
    assert json.loads(text, parse_constant=pytest.fail) == expected
    assert "\n" not in files.to_json(nested)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_regular_file_is_written_into(tmp_path: Path) -> None:
    link, file, pipe = tmp_path / "link", tmp_path / "file", tmp_path / "pipe"
    link.symlink_to(file)
    os.mkfifo(pipe)
    for target in (link, link):
        with files.delivering(target) as fresh:
            fresh.write_text("once")
    assert (link.is_symlink(), file.read_text(), sorted(f.name for f in tmp_path.iterdir())) == (
        True, "once", ["file", "link", "pipe"],
    )  # fmt: skip
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with files.delivering(pipe) as fresh:
        fresh.write_text("once")
    assert os.read(reader, 99) == b"once"
    os.close(reader)
    assert pipe.is_fifo()
