"""The folders that flowerfast keeps things in, and how fast their disks and that of the photos are."""

import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flowerfast.doctor.line import Line
from flowerfast.files import open_regular
from flowerfast.machine import folder_problem, free_disk, user_cache_dir, wanted_cache_dir, within
from flowerfast.photos.label_rows import photos_named
from flowerfast.places import is_table, spelled, url_of

LEAST_FREE = 2**30
"""Bytes: below it a run's weights and caches may find no room."""
SLOW = 20
"""MB/s below which a disk is called slow, unless it gives so many photos/s:"""
ENOUGH = 100
_SECONDS = 0.4  # for reading, and for writing
_BLOCK = 1 << 22
_MOST = 16  # blocks written
_PATIENCE = 15.0  # seconds: a disk that has not answered by then is hanging
ELSEWHERE = "export FLOWERFAST_CACHE=FOLDER, one that can be written"


def cache_lines() -> Iterator[Line]:
    """The cache folder: whether it is the one that is meant, can be written, has room, and is fast."""
    wanted, folder = wanted_cache_dir(), user_cache_dir()
    problem = folder_problem(folder)
    if problem is not None:
        yield Line("cache folder", "fail", f"{problem}: nothing is kept for the next run", ELSEWHERE)
        return
    if folder != wanted:
        why = "this user has no home folder" if wanted is None else folder_problem(wanted)
        yield Line("cache folder", "warn", f"{why}: {folder} is used, which a restart may empty", ELSEWHERE)
    folder.mkdir(parents=True, exist_ok=True)
    free = free_disk(folder)
    written, read = within(_PATIENCE, str(folder), lambda: tried(folder))
    found = f"{folder}: {free / 2**30:.1f} GiB free, writes {written:,.0f} MB/s, reads {read:,.0f} MB/s"
    if free < LEAST_FREE:
        yield Line("cache disk", "warn", found, f"make room there, or {ELSEWHERE}")
    elif min(written, read) < SLOW:
        yield Line(
            "cache disk", "warn", found, "export FLOWERFAST_CACHE=FOLDER, one on a disk of this machine"
        )
    else:
        yield Line("cache disk", "ok", found)


def photo_lines(data: Path) -> Iterator[Line]:
    """How fast the disk of the photos gives them, one after the other, when they are in no memory."""
    if url_of(data) is not None:
        yield Line("photos' disk", "ok", f"{spelled(data)}: not on this machine, not measured")
        return
    files, size, seconds = within(_PATIENCE, str(data), lambda: read_some(data))
    if not files:
        yield Line("photos' disk", "warn", f"{data}: no files there", "give the folder of the photos")
        return
    photos, megabytes = files / seconds, size / 1e6 / seconds
    found = f"{data}: {photos:,.0f} files/s, {megabytes:,.0f} MB/s, one after the other, on one thread"
    if megabytes >= SLOW or photos >= ENOUGH:
        yield Line("photos' disk", "ok", found)
    else:
        pack = f"flowerfast pack {shlex.quote(str(data))} FOLDER, on a disk of this machine"
        mend = f"{pack}, or --set data.cache=auto"
        yield Line("photos' disk", "warn", found, mend)


def tried(folder: Path) -> tuple[float, float]:
    """(written, read) in MB/s of a file in `folder` that is gone after: on the disk, and from it."""
    block = os.urandom(_BLOCK)  # a disk may compress
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        size, started = 0, time.perf_counter()
        while size < _MOST * _BLOCK and (not size or time.perf_counter() - started < _SECONDS):
            size += file.write(block)
            os.fsync(file.fileno())
        written = size / 1e6 / (time.perf_counter() - started)
        _drop(file.fileno())
        file.seek(0)
        got, started = 0, time.perf_counter()
        while piece := file.read(_BLOCK):
            got += len(piece)
            if time.perf_counter() - started > _SECONDS:
                break
        return written, got / 1e6 / (time.perf_counter() - started)


def read_some(data: Path) -> tuple[int, int, float]:
    """(files, bytes, seconds) of files in a folder that were read, for a second at most."""
    files = size = 0
    started = time.perf_counter()
    for path in _named(data) if is_table(data) else _files(data):
        with os.fdopen(open_regular(path), "rb", buffering=0) as file:
            _drop(file.fileno())
            while piece := file.read(_BLOCK):
                size += len(piece)
                if time.perf_counter() - started > 2 * _SECONDS:
                    break
        files += 1
        if time.perf_counter() - started > 2 * _SECONDS:
            break
    return files, size, time.perf_counter() - started


def _named(table: Path) -> Iterator[str]:
    """The photos that a table names and that are there."""
    return (str(path) for path in photos_named(table) if path.is_file())


def _files(folder: Path) -> Iterator[str]:
    """Files of a folder and those below it, as they come: a folder of millions is not listed whole."""
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with suppress(OSError):  # a loop of links
                        if entry.is_file():
                            yield entry.path


def _drop(file: int) -> None:
    """Have a file's content leave the page cache, as far as the system does that."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
