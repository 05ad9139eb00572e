"""Files that are never half, and never anything but files.

Whoever reads a file that is written here finds the old content or the new one, after a kill at any moment
too. What a full, broken or read-only disk does is told in one line.
"""

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowerfast.errors import write_failure


@contextmanager
def writing(file: Path, needed: int = 0) -> Iterator[None]:
    """Within, a full, broken or read-only disk is a WriteFailed of `file`, whatever a library made of it.

    `needed` is how many bytes the file takes at least, as far as that is known.
    """
    try:
        yield
    except Exception as error:
        failed = write_failure(error, file, needed)
        if failed is None:
            raise
        raise failed from error


@contextmanager
def replacing(file: Path, *, durable: bool = False, shared: bool = False, needed: int = 0) -> Iterator[Path]:
    """Path of a temporary file to write, which takes the place of `file` when the block ends well.

    So whoever reads `file`, or finds it after a kill at any moment, has the old content or the new one.

    Args:
        file: the file to write; its folder is made if need be.
        durable: force the content to the disk before it gets its name, and the name before this returns.
        shared: other processes may write the same file at the same time.
        needed: how many bytes it takes at least, where that is known.

    Raises WriteFailed when the disk is full, broken or read-only, and what else the block raises.
    """
    fresh = file.with_name(f"{file.name}.{os.getpid()}.partial" if shared else f"{file.name}.partial")
    try:
        _make_folder(file.parent, durable)
        fresh.unlink(missing_ok=True)  # left by a kill, or a link: what it is another name of stays as it is
        yield fresh
        if durable:
            with open(fresh, "rb+") as stream:
                os.fsync(stream.fileno())
        os.chmod(fresh, _MODE)  # some libraries write for the owner alone
        os.replace(fresh, file)
        if durable:
            sync_folder(file.parent)
    except BaseException as error:
        with suppress(OSError):
            needed = max(needed, fresh.stat().st_size + 1)
        with suppress(OSError):  # what was wrong first is what counts
            fresh.unlink(missing_ok=True)
        failed = write_failure(error, file, needed)
        if failed is None:
            raise
        raise failed from error


READ_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
)
"""Without O_NONBLOCK whoever opens a pipe waits until somebody writes to it; regular files do not mind."""


def open_regular(path: Path | str) -> int:
    """Descriptor of a regular file, links followed, to be read. Raises OSError, also for anything else.

    A pipe, socket, device or folder may have taken the place of a file at any time, and would be waited for.
    """
    file = os.open(path, READ_FLAGS)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_bytes(file: Path) -> bytes:
    """A whole regular file. Raises OSError."""
    with os.fdopen(open_regular(file), "rb") as stream:
        return stream.read()


def read_text(file: Path) -> str:
    """A whole regular file in UTF-8. Raises OSError, UnicodeDecodeError."""
    return read_bytes(file).decode("utf-8")


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: none there is older than one that is given later elsewhere."""
    if os.name != "posix" or not os.access(folder, os.R_OK):
        return  # Windows has no such call, and it takes a folder that can be read
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that cannot do it
            raise
    finally:
        os.close(opened)


def _make_folder(folder: Path, durable: bool) -> None:
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()] if durable else []
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


@contextmanager
def delivering(file: Path) -> Iterator[Path]:
    """Path to write what somebody wants in `file`, see `replacing`; but what is no regular file stays.

    Links are followed; a device or a pipe is written into.
    """
    if file.exists() and not file.is_file():
        yield file
    else:
        with replacing(Path(os.path.realpath(file)), shared=True) as fresh:  # FILE.partial may be somebody's
            yield fresh


def write_text(file: Path, text: str, *, durable: bool = False, shared: bool = False) -> None:
    """Write a whole text file in UTF-8, see `replacing`. Raises OSError.

    Names that are no valid UTF-8, which Python carries as lone surrogates, come out as backslash escapes.
    """
    with replacing(file, durable=durable, shared=shared, needed=len(text)) as fresh:
        fresh.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(file: Path, content: bytes | memoryview) -> None:
    """Write a whole file, see `replacing`. Raises OSError."""
    with replacing(file, needed=len(content)) as fresh:
        fresh.write_bytes(content)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of plain values that every reader takes: null for numbers that are none (NaN, infinity)."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_MODE = 0o666 & ~_umask()  # read once: for a moment all threads of the process are without one
