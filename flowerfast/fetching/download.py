"""A file from a web server, in as many pieces as the connection allows: what has arrived is kept."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from flowerfast.documents import DocumentError, read_json
from flowerfast.errors import RunFailed, UserError, one_line
from flowerfast.files import write_text, writing
from flowerfast.machine import Progress

_SECONDS = 30.0
"""Without a byte, after which a connection is given up."""
_PAUSES = (1.0, 3.0)
"""Seconds between tries; as many tries, and one, may bring nothing."""
_CHUNK = 1 << 16
_LATER = (408, 425, 429)  # and 5xx: the server may have it the next time
_OTHER = "take it from another place with --url"


class _Broken(Exception):
    """A connection that was not made, or ended too early: worth another try."""


class _Refused(_Broken):
    """There is a server, and it cannot give the file now."""


def download(url: str, file: Path, size: int, progress: Progress | None = None) -> None:
    """Have the file at a URL, of `size` bytes, in `file`; goes on with what an earlier call has left there.

    Beside it lies FILE.json, by which the server knows whether the rest is of the same file.

    Raises UserError where the server is not reached or has no such file, RunFailed where it fails or the
    connection breaks off again and again, WriteFailed where the disk is why.
    """
    tries, reached, show = 0, False, progress or (lambda *_: None)
    while (have := _length(file)) != size:
        if have > size:
            file.unlink()
        try:
            with _ask(url, file, 0 if have > size else have) as answer:
                reached = True
                _keep(answer, url, file, size, show)
            why = "the connection broke off"
        except _Broken as error:
            why, reached = str(error), reached or isinstance(error, _Refused)
        tries = 0 if _length(file) > have else tries + 1
        if tries > len(_PAUSES):
            if not reached:
                raise UserError(f"{url}: cannot be reached ({why}); see to the network, or {_OTHER}")
            raise RunFailed(
                f"{url}: {_length(file):,} of {size:,} bytes have arrived ({why}); the same command goes on, "
                f"or {_OTHER}"
            )
        if tries:
            time.sleep(_PAUSES[tries - 1])


def _ask(url: str, file: Path, have: int) -> HTTPResponse:
    """The server's answer to what is lacking. Raises _Broken, UserError."""
    headers = {"User-Agent": "flowerfast", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark := _mark(url, file):
            headers["If-Range"] = mark
    try:
        answer: HTTPResponse = _opener().open(urllib.request.Request(url, headers=headers), timeout=_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # what is here is no beginning of what is there
            file.unlink(missing_ok=True)
        elif error.code not in _LATER and error.code < 500:
            raise UserError(f"{url}: HTTP {error.code} {error.reason}; {_OTHER}") from error
        raise _Refused(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        raise _Broken(one_line(cause) if isinstance(cause, Exception) else str(cause)) from error
    return answer


def _keep(answer: HTTPResponse, url: str, file: Path, size: int, show: Callable[[int, int], object]) -> None:
    """Write what comes behind what is there, or in its place where the server begins anew."""
    place = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/.+", answer.headers.get("Content-Range", ""))
    start = int(place[1]) if answer.status == 206 and place else 0
    length = re.fullmatch(r"[0-9]{1,18}", answer.headers.get("Content-Length", "").strip())
    if answer.status not in (200, 206):
        raise UserError(f"{url}: not the file that is wanted (HTTP {answer.status}); {_OTHER}")
    if length and start + int(length[0]) != size:
        raise UserError(
            f"{url}: not the file that is wanted ({start + int(length[0]):,} bytes, not {size:,}); {_OTHER}"
        )
    have = _length(file)
    if start not in (0, have):
        raise _Broken("the server sends another part than was asked for")
    mark = answer.headers.get("ETag", "")
    if not mark or mark.startswith("W/"):  # a weak one does not tell bytes apart
        mark = answer.headers.get("Last-Modified", "")
    with writing(file, size):
        write_text(_note(file), json.dumps({"url": url, "mark": mark}))
        with file.open("ab" if start else "wb") as stream:
            have = start
            while chunk := _read(answer):
                have += len(chunk)
                if have > size:
                    raise UserError(
                        f"{url}: not the file that is wanted (more than {size:,} bytes); {_OTHER}"
                    )
                stream.write(chunk)
                show(have, size)


def _read(answer: HTTPResponse) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _Broken(one_line(error)) from error


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and what belongs to it: no redirect leads to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _note(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _mark(url: str, file: Path) -> str:
    """By what the server at this URL has told the file from others; empty: not known."""
    try:
        note: Any = read_json(_note(file))
        mark = note["mark"] if note["url"] == url else ""
    except (OSError, DocumentError, LookupError, TypeError):
        return ""
    return mark if isinstance(mark, str) and mark.isascii() and mark.isprintable() else ""


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
