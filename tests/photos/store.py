"""A store of objects on localhost that serves ranges over HTTP, counts them, and fails when told to."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Faults = Callable[[int, str], str | None]
"""How a request of this number and path fails: `error`, `drop`, `cut`, `short`, `endless`, `stall`,
`other`."""


class Store(ThreadingHTTPServer):
    """A folder at `url`; use it as a context manager.

    Attributes:
        faults: decides which requests fail, and how.
        asked: (path, bytes given) of each request for content.
        sent: bytes of endless answers.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.asked = folder, list[tuple[str, int]]()
        self.faults: Faults = lambda number, path: None
        self.sent = 0
        self.over, self._lock, self._number = threading.Event(), threading.Lock(), 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self.server_port}/{folder.name}"

    def __enter__(self) -> "Store":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def number(self) -> int:
        """How many requests there were before this one."""
        with self._lock:
            self._number += 1
            return self._number - 1

    def of_shards(self) -> int:
        """How often content of shards was asked for."""
        return sum(path.endswith(".tar") for path, _ in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        file = self._file()
        if file is not None:
            self._head(200, os.path.getsize(file))

    def do_GET(self) -> None:
        file = self._file()
        if file is None:
            return
        content, status, more = file.read_bytes(), 200, {}
        asked = self.headers.get("Range", "")
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1, len(content))
            more, status = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}, 206
            content = content[start:end]
        fault = self.server.faults(self.server.number(), self.path)
        self.server.asked.append((self.path, len(content)))
        if fault == "stall":
            self.server.over.wait(30)
        if fault in ("stall", "drop"):
            self.close_connection = True
            return
        if fault == "error":
            self._head(500, 0)
            return
        if fault == "short":
            content = content[: len(content) // 2]
        if fault == "other":
            content = bytes(byte ^ 255 for byte in content)
        if fault == "endless":
            self._head(status, 1 << 40, more)
            with suppress(OSError):  # the other end has enough
                while not self.server.over.is_set():
                    self.wfile.write(bytes(1 << 16))
                    self.server.sent += 1 << 16
            return
        self._head(status, len(content), more)
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        self.close_connection = fault == "cut"

    def _file(self) -> Path | None:
        file = self.server.folder.parent / self.path.lstrip("/")
        if file.is_file():
            return file
        self._head(404, 0)
        return None

    def _head(self, status: int, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
