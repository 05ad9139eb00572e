"""A folder has one writer at a time, whoever else tries; reading needs nobody's leave."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from flowerfast import locks
from flowerfast.errors import UserError
from flowerfast.locks import only_writer

pytest.importorskip("fcntl")
OTHER = "choose another"
HOLD = """
import sys
from pathlib import Path
from flowerfast.locks import only_writer
with only_writer(Path(sys.argv[1]), ""):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes to tmp_path/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_until_the_first_is_killed(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError) as caught, only_writer(folder, OTHER):
        pass
    named = f" (pid {holder.pid})" if Path("/proc/locks").exists() else ""
    expected = f"{folder}: another process{named} is writing to it; wait for it to end, or {OTHER}"
    assert str(caught.value) == expected
    assert folder.is_dir()  # it is the other's
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(folder, OTHER) as unlocked:
        assert unlocked is None
        assert list(folder.iterdir()) == []  # no file of the lock


def test_what_takes_the_place_of_a_folder_that_was_made_and_moved_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with only_writer(folder, OTHER):
        folder.rename(tmp_path / "moved")
        folder.mkdir()
    assert folder.is_dir()


def test_what_was_made_and_is_empty_in_the_end_goes_again(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a/b", OTHER):
        assert (tmp_path / "a/b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / "a/b", OTHER):
        (tmp_path / "a/c").mkdir()
    assert [*tmp_path.rglob("*")] == [tmp_path / "a", tmp_path / "a/c"]
    with only_writer(tmp_path / "a/c", OTHER):
        pass
    assert (tmp_path / "a/c").is_dir()  # it was there before


def test_of_many_at_once_one_holds_a_folder_and_it_is_the_one_with_the_name(tmp_path: Path) -> None:
    start = Barrier(8)

    def hold(_: int) -> bool:
        start.wait()
        try:
            with only_writer(tmp_path / "deep/run", OTHER):
                (tmp_path / "deep/run/mine").touch(exist_ok=False)  # nobody else is there
                (tmp_path / "deep/run/mine").unlink()
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            assert any([*threads.map(hold, range(8))])


@pytest.mark.parametrize("what", ["file", "link to nowhere", "below a file"])
def test_what_is_no_folder_cannot_be_held(tmp_path: Path, what: str) -> None:
    place = tmp_path / "place"
    if what == "link to nowhere":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.touch()
    folder = place / "run" if what == "below a file" else place
    with (
        pytest.raises(UserError, match=rf"^{folder}: cannot be written \(.+\); {OTHER}$"),
        only_writer(folder, OTHER),
    ):
        pass


def test_without_locks_it_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(locks.fcntl, "flock", none)
        with only_writer(tmp_path / "run", OTHER) as unlocked:
            assert unlocked is not None
            assert "run: not locked (No locks available); see that nothing else" in unlocked
    monkeypatch.setattr(locks, "fcntl", None)
    with only_writer(tmp_path / "run", OTHER) as unlocked:
        assert unlocked is not None
        assert "run: not locked (this system has no such locks)" in unlocked
