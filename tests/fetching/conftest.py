"""A server of archives on this machine that fails as it is told to, and small archives for it."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any

import pytest

from flowerfast.fetching import datasets, download, fetch
from flowerfast.fetching.datasets import DataSet
from tests.training.local_hub import Hub, serving

CLASSES = {"daisy": 3, "rose": 2}


class Archives(Hub):
    """Serves `content` at any path but /missing.

    Attributes:
        asked: Range and If-Range of each request.
        faults: what goes wrong with the next answers: a number, the status; `cut`: half of what is left;
            `whole`: Range is not heeded, half comes; `short`: another length is said; `moved`: a redirect;
            `odd`, `long`, `elsewhere`: headers that are no HTTP.
        etag: of the content.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.content, self.etag = b"", '"one"'
        self.asked: list[tuple[str | None, str | None]] = []
        self.faults: list[str | int] = []


class _Handler(BaseHTTPRequestHandler):
    server: Archives

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server
        wanted, mark = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((wanted, mark))
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int) or self.path == "/missing":
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        if fault == "moved":
            self.send_response(302)
            self.send_header("Location", "/there")
            self.end_headers()
            return
        if fault in _ODD:
            status, name, value = _ODD[fault]
            self.send_response(status)
            self.send_header(name, value)
            self.end_headers()
            return
        start = 0
        if wanted and fault != "whole" and mark in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(rest) - (fault == "short")))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if fault in ("cut", "whole") else rest)


_ODD: dict[str | int | None, tuple[int, str, str]] = {
    "odd": (203, "Content-Length", "abc"),
    "long": (200, "Content-Length", "9" * 5000),
    "elsewhere": (206, "Content-Range", f"bytes {'9' * 5000}-5/7"),
}


def packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive, compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def flowers() -> list[tuple[tarfile.TarInfo, bytes]]:
    """What a sound archive holds."""
    photos = [f"{name}/{i}.jpg" for name, count in CLASSES.items() for i in range(count)]
    files = [(member(f"top/{name}"), Random(name).randbytes(1000)) for name in photos]
    about = (member("top/LICENSE.txt"), b"of Creative Commons\n" * 1000)
    return [(member("top", tarfile.DIRTYPE), b""), about, *files]


Serve = Callable[[bytes], Archives]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Function (archive) → the server that has it, as `flowers`; nobody waits between tries."""
    for key in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(download, "_PAUSES", (0.0, 0.0))
    with serving(Archives()) as server:

        def have(content: bytes) -> Archives:
            server.content = content
            about = DataSet(
                f"{server.address}/flowers.tgz",
                len(content),
                hashlib.sha256(content).hexdigest(),
                "top",
                sum(CLASSES.values()),
            )
            monkeypatch.setitem(datasets.DATASETS, "flowers", about)
            assert fetch.DATASETS is datasets.DATASETS
            return server

        yield have
