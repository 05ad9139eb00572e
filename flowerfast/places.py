"""Where photos lie: in a folder, at a URL, or where a table says, told apart by how they are written."""

import os
import re
from pathlib import Path

from flowerfast.errors import UserError, without_passwords

_URL = re.compile(
    r"([a-z][a-z0-9+.-]+):(?:(/+)([^/].*)|/*)", re.IGNORECASE | re.DOTALL
)  # of two letters: no drive
_CHAIN = re.compile(r"[a-z][a-z0-9+.-]*::[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_LOCAL = ("file", "local")
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")  # a name comes first of all
TABLES = (".csv", ".tsv", ".tab", ".parquet", ".pq")
"""How files end that name photos."""


def url_of(place: Path | str) -> str | None:
    """The URL that a place is, without a slash at its end; None: the path of a folder.

    A `Path` makes one slash of the two of a URL, which has them again here. Raises UserError for a URL with a
    password: places are written down, in run folders too; for `s3://` alone, which is `s3:` as a `Path`;
    and for text with three slashes where a bucket comes first, whose name was empty: of a `Path` the next
    folder would be taken for it; and for fsspec's chains of URLs.
    """
    found = _URL.fullmatch(os.fspath(place))
    if found is None and _CHAIN.match(os.fspath(place)):
        raise UserError(f"{place}: a chain of URLs; give the last one alone: what is fetched is kept anyway")
    if found is None:
        return None
    scheme = found[1].lower()
    if found[3] is None:
        raise UserError(
            f"{scheme}://: a URL that ends there; give all of it, or a folder of that name by its full path"
        )
    if len(found[2]) > 2 and scheme in _BUCKETS:
        raise UserError(
            f"{place}: no bucket or host after {scheme}://, of a variable that is not set perhaps; put its "
            "name there"
        )
    url = f"{scheme}:{'///' if scheme in _LOCAL else '//'}{found[3].rstrip('/')}"
    if without_passwords(url) != url:
        raise UserError(
            f"{url}: a password in a URL comes to lie in run folders and logs; leave it out, and put it into "
            "~/.netrc (for http), or where fsspec or the library behind it looks for it"
        )
    return url


def in_full(place: Path | str) -> str:
    """A place as it is found from anywhere: a URL as it is, the path of a folder in full, links resolved.

    A table names photos by its folder: it keeps its name, though it be a link.
    """
    path = Path(place)
    return url_of(place) or str(path.parent.resolve() / path.name if is_table(place) else path.resolve())


def is_table(place: Path | str) -> bool:
    """Whether a place is a table of photos, by its name: a file, if there is one."""
    return url_of(place) is None and str(place).lower().endswith(TABLES) and not os.path.isdir(place)


def no_photos_at(place: Path | str, what: str) -> str:
    """A line on a place that cannot be DATA; other loaders take the names of tar files."""
    if ".tar" in os.path.basename(place).lower():
        return f"{place}: {what}; give the folder that the tar files are in"
    return f"{place}: {what}; give a folder that holds one folder of photos per class"


def spelled(place: Path | str) -> str:
    """A place for people and records, as it was given."""
    return url_of(place) or str(place)
