"""A hub on this machine, with made weights, that fails as it is told to."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

COMMIT = "5" * 40


class Hub(ThreadingHTTPServer):
    """A server on this machine. `address`: its URL; `over`: set when it ends."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.over = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


_Hub = TypeVar("_Hub", bound=Hub)


@contextmanager
def serving(hub: _Hub) -> Iterator[_Hub]:
    """The hub, which answers for as long as the block takes."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        hub.shutdown()
        thread.join()
        hub.server_close()


class LocalHub(Hub):
    """Serves files of repositories as the hub does.

    Attributes:
        files: content by `OWNER/NAME/FILE`.
        asked: what it was asked for, as `HEAD FILE`.
        fault: what goes wrong, see `_Handler`; None: nothing.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.fault: str | int | None = None


def local_hub() -> AbstractContextManager[LocalHub]:
    """A hub for as long as the block takes."""
    return serving(LocalHub())


class _Handler(BaseHTTPRequestHandler):
    """Of the faults, a number is the status of every answer. `silent`: there is none. `portal`: a page of
    somebody else's. The others concern the content alone: `cut`: half of it, always; `hiccup`: half of it,
    once; `short`: less than was said; `spoilt`: another byte in it; `stalls`: half of it, then nothing.
    """

    protocol_version = "HTTP/1.1"
    server: LocalHub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.path.startswith("/api/"):  # what the client asks for of its own accord
            self._send(404, {}, b"")
            return
        repo, revision, name = re.split(r"/resolve/(\w+)/", self.path.strip("/"), maxsplit=1)
        hub, fault = self.server, self.server.fault
        hub.asked.append(f"{self.command} {name}")
        content = hub.files.get(f"{repo}/{name}") if revision in ("main", COMMIT) else None
        if fault == "silent":
            hub.over.wait()
            self.close_connection = True
        elif fault == "portal":
            self._send(200, {}, b"<html>log in</html>")
        elif isinstance(fault, int):
            self._send(fault, {}, b"")
        elif content is None:
            known = any(file.startswith(f"{repo}/") for file in hub.files)
            self._send(404, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"}, b"")
        elif self.command == "HEAD":
            self._send(200, _about(content), content)
        else:
            self._content(content, fault)

    def _content(self, content: bytes, fault: str | None) -> None:
        about, start = _about(content), 0
        if given := self.headers.get("Range"):
            start = int(given.removeprefix("bytes=").partition("-")[0])
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest, half = content[start:], (len(content) - start) // 2
        if fault == "short":
            rest = rest[:-100]
        if fault == "spoilt":
            rest = rest[:half] + bytes([rest[half] ^ 1]) + rest[half + 1 :]
        if fault not in ("cut", "hiccup", "stalls"):
            self._send(206 if start else 200, about, rest)
            return
        self.send_response(206 if start else 200)
        for header, value in {**about, "Content-Length": str(len(rest))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(rest[:half])
        self.wfile.flush()
        if fault == "stalls":
            self.server.over.wait()
        if fault == "hiccup":
            self.server.fault = None
        self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _about(content: bytes) -> dict[str, str]:
    return {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
