"""A public data set as a folder of photos."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flowerfast.arguments import path, progress_bars
from flowerfast.documents import DocumentError, read_json, shown
from flowerfast.errors import RunFailed, UserError
from flowerfast.fetching.datasets import DATASETS, DataSet
from flowerfast.fetching.download import download
from flowerfast.fetching.unpack import unpack
from flowerfast.files import open_regular, to_json, write_text
from flowerfast.locks import only_writer
from flowerfast.machine import ProgressBars, no_bars

MARKER = ".flowerfast-fetched.json"
"""In a folder that was fetched: what it is. Hidden, so that training passes over it."""
_OTHER = "name another folder"


@dataclass(frozen=True)
class Fetched:
    """A data set that is there.

    Attributes:
        folder: its photos, one folder per class.
        classes: photos by class.
        fresh: it has been fetched now; False: it was there already.
    """

    folder: Path
    classes: dict[str, int]
    fresh: bool


def fetch(
    name: str,
    folder: Path | str,
    *,
    url: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    bars: ProgressBars = no_bars,
) -> Fetched:
    """Download a public data set, and unpack it into a folder of class folders.

    The folder gets its name once all is there and checked. Until then what has arrived lies in
    FOLDER.partial, and the same call goes on with it.

    Args:
        name: `flowers`: 3,670 photos of daisies, dandelions, roses, sunflowers and tulips, 229 MB.
        folder: a new or empty one.
        url: another place of the same archive, http://, https:// or file://.
        say: is told from where it comes.
        bars: makes progress bars.

    Raises UserError where the folder cannot be taken or the server not be reached; RunFailed where the
    connection breaks off again and again, or what has arrived is something else; WriteFailed where the disk
    is why.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise UserError(f"fetch {shown(name)}: no such data set; there is {', '.join(DATASETS)}")
    data, bars = DATASETS[name], progress_bars(bars)
    folder, url = path("folder", folder), data.url if url is None else url
    if not isinstance(url, str) or not re.match(r"(https?|file)://\S+$", url, re.IGNORECASE):
        raise UserError(
            f"--url {shown(url)}: give a URL that begins with https://, http:// or file://, a space in it "
            "written as %20"
        )
    whole = Path(os.path.realpath(folder))
    there = _there(whole, name, data)
    if there is not None:
        return Fetched(folder, there, fresh=False)
    work = whole.with_name(f"{whole.name}.partial")
    with only_writer(work, _OTHER):
        if {file.name for file in work.iterdir()} - _PARTS:
            raise UserError(f"{work}: holds something else than a download; {_OTHER}")
        archive = work / _ARCHIVE
        if url.lower().startswith("file:"):
            archive = Path(url2pathname(urlsplit(url).path))
        else:
            say(f"downloading {data.size / 1e6:,.1f} MB from {url}")
            with bars(f"downloading {name}") as bar:
                download(url, archive, data.size, bar)
        _check(archive, url, data, own=archive.parent == work)
        fresh = work / _PHOTOS
        shutil.rmtree(fresh, ignore_errors=True)
        with bars("unpacking") as bar:
            classes = dict(sorted(unpack(archive, fresh, data.top, data.photos, bar).items()))
        about = {"name": name, "url": url, "sha256": data.sha256, "classes": classes}
        write_text(fresh / MARKER, to_json(about, indent=1) + "\n")
        _publish(fresh, whole)
        shutil.rmtree(work, ignore_errors=True)
    return Fetched(folder, classes, fresh=True)


_ARCHIVE, _PHOTOS = "archive", "photos"
_PARTS = {_ARCHIVE, f"{_ARCHIVE}.json", f"{_ARCHIVE}.json.partial", _PHOTOS}


def _there(folder: Path, name: str, data: DataSet) -> dict[str, int] | None:
    """Photos by class of what was fetched before; None: the folder is free. Raises UserError for another."""
    if not folder.name or folder == Path(os.path.realpath(".")):
        raise UserError(f"{folder}: cannot be replaced while one is in it; name a new folder")
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; {_OTHER}")
    if not any(folder.iterdir()):
        return None
    try:
        about = read_json(folder / MARKER)
        if about["sha256"] != data.sha256:
            raise ValueError("another archive")
        classes = {str(each): int(count) for each, count in about["classes"].items()}
    except (OSError, DocumentError, LookupError, TypeError, ValueError, AttributeError):
        raise UserError(f"{folder}: holds something else than {name}; {_OTHER}") from None
    for each, count in classes.items():
        with suppress(OSError):
            if len(os.listdir(folder / each)) >= count:
                continue
        raise UserError(f"{folder}: photos of {each} are missing; delete it to fetch it again, or {_OTHER}")
    return classes


def _check(archive: Path, url: str, data: DataSet, own: bool) -> None:
    """Raise unless the archive is the one that is wanted; of what was downloaded nothing is kept then."""
    try:
        with os.fdopen(open_regular(archive), "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"--url {url}: cannot be read ({error.strerror}); give another") from error
    if found != data.sha256:
        if not own:
            raise UserError(f"--url {url}: not that archive, its checksum (SHA-256) differs; give another")
        archive.unlink()
        raise RunFailed(
            f"{url}: what has arrived is another file, its checksum (SHA-256) differs; nothing of it is "
            "kept: try again, or take it from another place with --url"
        )


def _publish(fresh: Path, folder: Path) -> None:
    """Give the folder its name, in one step."""
    try:
        if os.name == "nt" and folder.is_dir():  # where nothing is renamed to what is there
            folder.rmdir()
        os.rename(fresh, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); {_OTHER}") from error
