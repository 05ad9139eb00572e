"""Where photos lie: in a folder, or at a URL, told from each other by how they are written."""

import os
import re
from pathlib import Path

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)  # of two letters: no drive
_LOCAL = ("file", "local")


def url_of(place: Path | str) -> str | None:
    """The URL that a place is, without a slash at its end; None: the path of a folder.

    A `Path` makes one slash of the two of a URL, which has them again here.
    """
    found = _URL.fullmatch(os.fspath(place))
    if found is None:
        return None
    scheme = found[1].lower()
    return f"{scheme}:{'///' if scheme in _LOCAL else '//'}{found[2].rstrip('/')}"


def in_full(place: Path | str) -> str:
    """A place as it is found from anywhere: a URL as it is, the path of a folder in full, links resolved."""
    return url_of(place) or str(Path(place).resolve())


def spelled(place: Path | str) -> str:
    """A place for people and records, as it was given."""
    return url_of(place) or str(place)
