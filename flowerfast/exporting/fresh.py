"""A folder that is there whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowerfast.errors import UserError
from flowerfast.files import sync_folder, writing
from flowerfast.machine import folder_problem
from flowerfast.photos.walk import part_of

_OTHER = "name another folder with --out"


def check_fresh(out: Path) -> None:
    """Raise UserError unless a folder can be made there: nothing is there yet, or an empty folder."""
    whole = Path(os.path.realpath(out))
    try:
        str(whole).encode()
    except UnicodeEncodeError:  # neither safetensors nor onnxruntime takes such a path
        raise UserError(f"--out {out}: no valid UTF-8; {_OTHER}") from None
    own = part_of(whole)
    if own is not None:
        raise UserError(f"--out {out}: part of a {own}; {_OTHER}")
    if whole.exists() and not whole.is_dir():
        raise UserError(f"--out {out}: is no folder; {_OTHER}")
    if whole.is_mount():
        raise _mounted(out)
    problem = folder_problem(whole.parent)
    if problem is not None:
        raise UserError(f"--out {out}: cannot be written ({problem}); {_OTHER}")
    if whole.is_dir() and any(whole.iterdir()):
        raise _taken(out)


def _taken(out: Path) -> UserError:
    return UserError(f"--out {out}: exists already; {_OTHER}, or delete it")


def _mounted(out: Path) -> UserError:
    return UserError(f"--out {out}: something is mounted there; name a folder in it")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `out` when the block ends well, and else is gone.

    Raises UserError as `check_fresh` does, WriteFailed when the disk is full, broken or read-only.
    """
    check_fresh(out)
    whole = Path(os.path.realpath(out))
    fresh = whole.with_name(f"{whole.name}.{os.getpid()}.partial")
    try:
        with writing(whole):
            whole.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed and had this number
            fresh.mkdir()
            yield fresh
            with suppress(FileNotFoundError):
                whole.rmdir()  # Windows gives no folder the name of another
            os.rename(fresh, whole)
            sync_folder(whole.parent)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _taken(out) from error
        if isinstance(error, OSError) and error.errno == errno.EBUSY:  # a folder of the same disk
            raise _mounted(out) from error
        raise
