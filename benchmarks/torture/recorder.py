"""What a process did to the files of a folder, step by step, and what a crash at any step may leave of it.

Python's audit events come before every operation on names (open, rename, remove, mkdir, link). At each, and
before and after every `fsync` and `pwrite`, the folder is looked at: between two looks there is one operation
on names at most, whoever writes, be it compiled code. So the looks are the cut points.

A kill leaves what a look saw, or less of the file that was growing. A loss of power leaves more to chance: of
each folder, apart from others, the names as they were at any moment since it was last forced to the disk; of
a file that was not forced there after its last change the content of the time when it was, zeros, the first
part of it, or some pages of it.
"""

import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_RECENT = 0.1  # seconds: a clock of file times may tick as slowly as every 10 ms
_PAGE = 4096
FOLDER = -1


@dataclass(frozen=True)
class Look:
    """What a folder held at one moment.

    Attributes:
        folders: of each folder (its path from the root), the names in it and what they are: the number of a
            file, or FOLDER.
        content: of each file, by number.
        forced: of each file the content that is on the disk for certain.
        since: of each folder the look at which its names were last forced there.
        marks: how often `Recorder.mark` had been called.
    """

    folders: dict[str, dict[str, int]]
    content: dict[int, bytes]
    forced: dict[int, bytes]
    since: dict[str, int]
    marks: int


class Recorder:
    """Looks at all below a folder for as long as `recording` lasts."""

    def __init__(self, root: Path) -> None:
        self.looks: list[Look] = []
        self._root, self._lock, self._busy = root, threading.RLock(), False
        self._numbers: dict[int, int] = {}  # of the files there, by inode
        self._stamps: dict[int, tuple[int, int]] = {}
        self._count = self._marks = 0

    def mark(self) -> None:
        """Note that something has been done that no crash from here on may undo."""
        with self._lock:
            self._marks += 1
            self.look()

    def before(self, path: object) -> None:
        """Look, if the operation to come is one below the root; what is not absolute is taken for such."""
        if isinstance(path, (str, bytes, os.PathLike)):
            name = os.fsdecode(path)
            if not os.path.isabs(name) or name.startswith(f"{self._root}{os.sep}"):
                self.look()

    def look(self) -> None:
        """See what is there now."""
        with self._lock:
            if self._busy:
                return
            self._busy = True
            try:
                self._see()
            finally:
                self._busy = False

    def _see(self) -> None:
        last = self.looks[-1] if self.looks else Look({}, {}, {}, {}, 0)
        folders: dict[str, dict[str, int]] = {}
        content = dict(last.content)  # of files that are gone too: their names may come back
        inodes: dict[int, int] = {}
        for place, inner, names in os.walk(self._root):
            here = folders[os.path.relpath(place, self._root)] = dict.fromkeys(inner, FOLDER)
            for name in names:
                file = os.path.join(place, name)
                status = os.stat(file)
                number = inodes.get(status.st_ino, self._numbers.get(status.st_ino))
                if number is None:
                    self._count += 1
                    number = self._count
                inodes[status.st_ino] = here[name] = number
                stamp = status.st_size, status.st_mtime_ns
                recent = time.time() - status.st_mtime < _RECENT
                if recent or self._stamps.get(number) != stamp or number not in last.content:
                    now = Path(file).read_bytes()
                    before = last.content.get(number)
                    content[number] = before if before == now else now
                    self._stamps[number] = stamp
        self._numbers = inodes
        since = {path: last.since.get(path, len(self.looks)) for path in folders}
        look = Look(folders, content, last.forced, since, self._marks)
        if look != last:
            self.looks.append(look)

    def force(self, file: int) -> None:
        """Note that an open file or folder has been forced to the disk."""
        with self._lock:
            self.look()
            status, last = os.fstat(file), self.looks[-1]
            if stat.S_ISDIR(status.st_mode):
                for path in last.folders:
                    if (self._root / path).stat().st_ino == status.st_ino:
                        self.looks.append(replace(last, since={**last.since, path: len(self.looks)}))
            elif (number := self._numbers.get(status.st_ino)) is not None:
                self.looks.append(replace(last, forced={**last.forced, number: last.content[number]}))


_recorder: Recorder | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _recorder is not None and event in _EVENTS:
        _recorder.before(arguments[0])


@contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    """Record what this process does below `root` while the block lasts."""
    global _recorder
    sys.addaudithook(_hook)  # for good: none can be taken away, but it does nothing without a recorder
    recorder, fsync, pwrite = Recorder(root), os.fsync, os.pwrite

    def forcing(file: int) -> None:
        fsync(file)
        recorder.force(file)

    def writing(file: int, data: bytes, at: int) -> int:
        recorder.look()
        return pwrite(file, data, at)

    recorder.look()
    _recorder = recorder
    try:
        with patch.multiple(os, fsync=forcing, pwrite=writing):
            yield recorder
            recorder.look()
    finally:
        _recorder = None


def leave(looks: list[Look], at: int, rng: np.random.Generator, power: bool, out: Path) -> None:
    """Make in `out` what a kill, or a loss of `power`, at a look may have left of the folder."""
    look = looks[at]
    content = dict(look.content)
    if power:
        for number, now in content.items():
            if look.forced.get(number) != now:
                content[number] = _lost(now, look.forced.get(number, b""), rng)
    elif at:
        _shorten(content, looks[at - 1].content, rng)

    def names(path: str) -> dict[str, int]:
        moment = int(rng.integers(look.since.get(path, 0), at + 1)) if power else at
        return looks[moment].folders.get(path, {})

    linked: dict[int, Path] = {}
    paths = ["."]
    for path in paths:  # grows
        (out / path).mkdir(parents=True, exist_ok=True)
        for name, what in names(path).items():
            inside = os.path.normpath(os.path.join(path, name))
            if what == FOLDER:
                paths.append(inside)
            elif what in linked:
                os.link(linked[what], out / inside)
            else:
                linked[what] = out / inside
                linked[what].write_bytes(content[what])


def _shorten(content: dict[int, bytes], before: dict[int, bytes], rng: np.random.Generator) -> None:
    """Take away some of what a file has grown by since the look before, in one case of two."""
    for number, now in content.items():
        earlier = before.get(number, b"")
        if len(now) > len(earlier) and rng.integers(2):
            content[number] = now[: int(rng.integers(len(earlier), len(now)))]


def _lost(now: bytes, forced: bytes, rng: np.random.Generator) -> bytes:
    """What the disk may have of a file whose last changes were not forced to it."""
    way = int(rng.integers(5))
    if way == 0:
        return forced
    if way == 1:
        return bytes(len(now))
    if way == 2:
        part = int(rng.integers(len(now) + 1))
        return now[:part] + bytes(len(now) - part if rng.integers(2) else 0)
    if way == 3:
        before = forced[: len(now)].ljust(len(now), b"\0")
        starts = range(0, len(now), _PAGE)
        return b"".join((now if rng.integers(2) else before)[i : i + _PAGE] for i in starts)
    return now
