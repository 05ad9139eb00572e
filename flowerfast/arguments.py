"""Arguments of the Python API: what is none that could be meant is refused in one line."""

import os
from operator import index
from pathlib import Path
from typing import Any

from flowerfast.documents import shown
from flowerfast.errors import UserError, one_line


def whole(name: str, value: Any, least: int, below: int = 2**63) -> int:
    """A whole number from `least` to `below` - 1, of Python or numpy. Raises UserError for anything else."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise UserError(f"{name}={shown(value)}: give a whole number")
    if not least <= number < below:
        raise UserError(f"{name}={shown(number)}: give a whole number from {least} to {below - 1}")
    return number


def path(name: str, value: Any) -> Path:
    """A path that the system could take, whether something is there or not. Raises UserError."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        raise UserError(f"{name}={shown(value)}: give a path, as text or pathlib.Path")
    try:
        if not text:
            raise ValueError("an empty path")
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # said by whoever uses it
    except (OSError, ValueError) as error:
        raise UserError(f"{name}={shown(text)}: {one_line(error)}; give another path") from None
    return Path(text)


def of_kind(name: str, value: Any, kind: Any, wanted: str) -> None:
    """Raise UserError unless a value is of a kind, as `isinstance` has it; `wanted` says what to give."""
    if not isinstance(value, kind):
        raise UserError(f"{name}={shown(value)}: give {wanted}")
