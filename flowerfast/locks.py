"""One process at a time writes to a folder, by a lock that ends with the process however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowerfast.errors import RunFailed, UserError, write_failure

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
"""Locks of files and folders; None: this system, as Windows, has none."""
_TABLE = Path("/proc/locks")
_TRIES = 100
_Made = tuple[Path, os.stat_result]  # a folder, and which one it is
_UNLOCKED = "{}: not locked ({}); see that nothing else writes there"


@contextmanager
def only_writer(folder: Path, other: str) -> Iterator[str | None]:
    """Hold a folder, made if need be, against whoever else would write to it; reading needs no lock.

    The lock (flock) lies on the folder itself, so there is no file of it. It holds on this machine: on a
    network's file system another machine may not see it. A folder that was made here and is empty in the end
    is taken away.

    Args:
        folder: the folder.
        other: what people can do instead, in the imperative: `choose another folder`.

    Yields None, or a line that says why it could not be locked: Windows, a file system without locks.

    Raises UserError when another process holds it, or another thread of this one, and when it cannot be made
    or read; RunFailed when its disk is full, broken or read-only.
    """
    made: list[_Made] = []
    lock: int | None = None
    try:
        try:
            lock, problem = _lock(folder, made, other)
        except OSError as error:
            failed = write_failure(error, folder, 0)
            if failed is not None:
                raise RunFailed(failed.line(f"try again, or {other}")) from error
            raise UserError(f"{folder}: cannot be written ({error.strerror}); {other}") from error
        yield problem
    finally:
        for each, status in made:
            with suppress(OSError):  # it is not empty, or gone
                if os.path.samestat(status, os.lstat(each)):  # else it was moved, and this is another's
                    each.rmdir()
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough where a child process has it too
            os.close(lock)


def is_still(held: os.stat_result, folder: Path) -> bool:
    """Whether a folder that had this status still has its name, and no other has taken it."""
    try:
        return os.path.samestat(held, os.stat(folder))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _lock(folder: Path, made: list[_Made], other: str) -> tuple[int | None, str | None]:
    """(descriptor of the locked folder, None) or (None, why there is no lock); adds what it has made."""
    for left in reversed(range(_TRIES)):
        try:
            _make(folder, made)
            if fcntl is None:
                return None, _UNLOCKED.format(folder, "this system has no such locks")
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # whoever had made it has just taken it away
            if not left:
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(lock)
            os.close(lock)
            if isinstance(error, BlockingIOError):
                made.clear()  # it is the other's now
                raise UserError(
                    f"{folder}: another process{holder} is writing to it; wait for it to end, or {other}"
                ) from None
            return None, _UNLOCKED.format(folder, error.strerror)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock, None
        os.close(lock)  # taken away between the two calls: what bears the name now is another folder
    raise UserError(f"{folder}: other processes make it and take it away; {other}")


def _make(folder: Path, made: list[_Made]) -> None:
    """Make a folder and those above it; `made` gets the ones that were not there, innermost first.

    Raises FileNotFoundError when one is taken away at once.
    """
    for each in reversed((folder, *folder.parents)):
        try:
            if not each.is_dir():
                each.mkdir()
                made.insert(0, (each, os.lstat(each)))
        except FileExistsError:
            if os.path.lexists(each) and not each.is_dir():  # a file, or a link to nowhere
                raise


def _holder(lock: int) -> str:
    """The number of the process that holds a folder, as far as the system tells: ` (pid 12)`, or nothing."""
    status = os.fstat(lock)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in _TABLE.read_text().splitlines():  # 1: FLOCK ADVISORY WRITE 12 08:01:345 0 EOF
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == place and int(fields[4]) > 0:
                return f" (pid {fields[4]})"
    return ""
