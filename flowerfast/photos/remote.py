"""Objects below a URL, by fsspec: read in ranges, and tried again until these are whole; written whole.

https://filesystem-spec.readthedocs.io
"""

import json
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flowerfast.errors import RunFailed, Said, UserError, one_line
from flowerfast.machine import free_disk, logger, within

T = TypeVar("T")

TIMEOUT = 30.0
"""Seconds after which a request without an answer is given up and made again."""
TRIES = 8
"""Of one request at most, before it is said that the store cannot be reached."""
FIRST_WAIT = 0.25
"""Seconds before the second try; before each further one twice as long: half a minute in all."""
_SLOWEST = 100_000  # bytes/s of an upload, which a request may take longer for
_PATIENCE = 120.0  # seconds after which no further try is made
_TOLD_AFTER = 3, 10.0  # tries, or seconds: of single failures, which every store has, nobody need hear
_PIECE = 8 << 20  # bytes of one request for an object that is read whole
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
_FINAL_STATUS = (400, 401, 403, 404, 405, 410, 416)  # of HTTP
_WHOLE, _RANGE = 200, 206  # of HTTP


class NotServed(RunFailed):
    """The store is there and refuses: there is no such object, or it may not be read or written."""


class Remote:
    """Objects below a URL. Threads may share it, processes may not.

    Args:
        url: without a slash at its end.

    Raises UserError when fsspec, or what it needs for such a URL, is not installed, and when there is no such
    kind of URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        if url.startswith(("gs:", "gcs:")):  # what its library logs, with tracebacks, it raises too
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        try:
            from fsspec.core import url_to_fs  # only now: who has folders needs none of it

            self._files, self._root = url_to_fs(url, **_options(url))
        except ImportError as error:
            raise UserError(
                f'{url}: {one_line(error)}; what URLs need is not installed: pip install "flowerfast[remote]"'
            ) from error
        except (ValueError, OSError) as error:  # some look at what is there
            raise UserError(f"{url}: {one_line(error)}; give a folder, or a URL that fsspec opens") from error

    def size(self, name: str) -> int:
        """Bytes of an object. Raises NotServed, RunFailed."""
        return int(self._trying(name, lambda: self._call("info", self._path(name))["size"]))

    def names(self) -> set[str] | None:
        """Names of what lies at the URL, folders too; None: it may not be listed.

        Raises UserError when there is no such bucket, NotServed, RunFailed.
        """

        def look() -> set[str] | None:
            try:
                found = set[str]()
                self._files.invalidate_cache()
                with suppress(FileNotFoundError):
                    found = {*self._call("ls", self._root, detail=False)}
                self._files.invalidate_cache()  # else what is written meanwhile is not there
                if not found and hasattr(self._files, "split_path"):  # what has buckets has it
                    self._call("info", self._files.split_path(self._root)[0])
            except FileNotFoundError as error:
                raise UserError(f"{self.url}: no such bucket; make it, or name another URL") from error
            except Exception as error:
                if _is_forbidden(error):
                    return None
                raise
            return {path.rstrip("/").rpartition("/")[2] for path in found}

        return self._trying("", look)

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes of an object from `start` to `end`.

        Raises NotServed, and RunFailed when they do not come after many tries.
        """

        def get() -> bytes:
            content = self._piece(self._path(name), start, end)
            if len(content) != end - start:
                raise OSError(f"gives {len(content)} bytes where {end - start} were asked for")
            return bytes(content)

        return self._trying(name, get)

    def fetch(self, name: str, file: Path) -> None:
        """Copy a whole object to a file, piece by piece. Raises NotServed, RunFailed, OSError.

        Raises UserError, before anything is copied, when there is no room for it.
        """
        size, free = self.size(name), free_disk(file.parent)
        if size > free:
            raise UserError(
                f"{self.url}/{name}: {size:,} bytes, but {free:,} are free in {file.parent}; see to the URL, "
                "or set data.cache_dir"
            )
        with file.open("wb") as out:
            for start in range(0, size, _PIECE):
                out.write(self.read(name, start, min(start + _PIECE, size)))

    def write(self, file: Path, name: str) -> None:
        """Copy a file to an object, whole. Raises NotServed, and RunFailed when it does not arrive."""
        size = file.stat().st_size

        def put() -> None:
            self._call("put_file", str(file), self._path(name), allowed=TIMEOUT + size / _SLOWEST)
            arrived = self._call("info", self._path(name))["size"]
            if arrived != size:
                raise OSError(f"has {arrived} bytes where {size} were written")

        self._trying(name, put)

    def remove(self, name: str) -> None:
        """Remove an object, if that goes."""
        with suppress(Exception):  # each store has its own
            self._call("rm_file", self._path(name))

    def _piece(self, path: str, start: int, end: int) -> bytes:
        """What comes for a range; of HTTP no more than one byte too many, however many are sent."""
        if not self._files.async_impl:  # cache_type: else blocks around them come too
            return bytes(self._call("cat_file", path, start=start, end=end, cache_type="none"))
        if "http" not in self._files.protocol:
            return bytes(self._call("cat_file", path, start=start, end=end))
        from fsspec.asyn import sync

        async def get() -> bytes:
            session = await self._files.set_session()
            options = {**self._files.kwargs}
            headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{end - 1}"}
            headers["Accept-Encoding"] = "identity"  # a server that compresses gives all, and no range
            content = bytearray()
            async with session.get(self._files.encode_url(path), headers=headers, **options) as answer:
                self._files._raise_not_found_for_status(answer, path)
                if answer.status != _RANGE and (start or answer.status != _WHOLE):
                    raise RunFailed(
                        f"{path}: the server gives no ranges of bytes (HTTP {answer.status} for one); take a "
                        "server that does, or copy the shards to a folder"
                    )
                while len(content) <= end - start and (
                    some := await answer.content.read(end - start + 1 - len(content))
                ):
                    content += some
            return bytes(content)

        content: bytes = sync(self._files.loop, get, timeout=TIMEOUT)
        return content

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _call(self, method: str, *arguments: Any, allowed: float | None = None, **options: Any) -> Any:
        """A method of the file system; one that waits for nothing but the network, for so many seconds."""
        timeout = TIMEOUT if allowed is None else allowed
        if not self._files.async_impl:
            return within(timeout, self.url, partial(getattr(self._files, method), *arguments, **options))
        from fsspec.asyn import sync

        return sync(
            self._files.loop, getattr(self._files, f"_{method}"), *arguments, timeout=timeout, **options
        )

    def _trying(self, name: str, request: Callable[[], T]) -> T:
        """What a request gives, in one of many tries. Any exception is a failure: each store has its own."""
        wait, place, began = FIRST_WAIT, f"{self.url}/{name}", time.monotonic()
        for tried in range(1, TRIES + 1):
            try:
                return request()
            except Said:
                raise
            except Exception as error:
                met = _met(error)
                why = _words(met)
                if isinstance(met.__cause__, ssl.SSLCertVerificationError):
                    raise RunFailed(
                        f"{place}: its certificate is not trusted ({met.__cause__.verify_message}); see to "
                        "the URL, or name a file of authorities to trust in SSL_CERT_FILE"
                    ) from error
                if _is_final(met):
                    raise NotServed(f"{place}: not served ({why}); see to the URL and its access") from error
                passed = time.monotonic() - began
                if tried == TRIES or passed > _PATIENCE:
                    raise RunFailed(
                        f"{place}: tried {tried} times ({why}); see to the connection, then run the "
                        "command again, with --resume if there is a save"
                    ) from error
                if tried >= _TOLD_AFTER[0] or passed > _TOLD_AFTER[1]:
                    logger.warning("flowerfast: %s: %s; trying again", place, why)
            time.sleep(wait)
            wait *= 2
        raise AssertionError  # the last try returns or raises


def _met(error: BaseException) -> BaseException:
    """What was met: fsspec calls any failure of HTTP a missing file when it asks for a size."""
    cause = error.__cause__
    is_file = isinstance(error, FileNotFoundError) and cause is not None
    return cause if cause is not None and is_file and type(cause).__module__.startswith("aiohttp") else error


def _words(error: Any) -> str:
    """What was met, in one line."""
    if type(error).__name__ == "TooManyRedirects":
        return "it redirects again and again"
    if _status(error):  # what aiohttp says repeats the URL, which may bear a signature
        return f"HTTP {_status(error)} {getattr(error, 'message', '')}".rstrip()
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer for {TIMEOUT:.0f} s"
    return one_line(error)


def _status(error: Any) -> int | None:
    """Of HTTP, as aiohttp, gcsfs and the hub's client have it."""
    of_answer = getattr(getattr(error, "response", None), "status_code", None)
    status = getattr(error, "status", None) or getattr(error, "code", None) or of_answer
    return status if isinstance(status, int) else None


def _is_final(error: BaseException) -> bool:
    """Whether another try would meet the same."""
    kind = type(error).__name__
    refused = kind in ("TooManyRedirects", "OfflineModeIsEnabled") or "Credentials" in kind
    unknown = isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError)  # kind of path
    final = refused or unknown or isinstance(error, _FINAL) or _is_forbidden(error)
    return final or _status(error) in _FINAL_STATUS


def _is_forbidden(error: BaseException) -> bool:
    of_gcsfs = type(error) is OSError and str(error).startswith("Forbidden: ")
    return of_gcsfs or isinstance(error, PermissionError) or _status(error) in (401, 403)


def _options(url: str) -> dict[str, Any]:
    """For fsspec: over HTTP the proxies and passwords that other programs use, unless it is set up else."""
    if not url.startswith(("http://", "https://")):
        return {}
    from fsspec.config import conf

    given = {**conf.get("http", {}), **conf.get("https", {})}.get("client_kwargs", {})
    return {"client_kwargs": {"trust_env": True, **given}}
