"""A folder as a bucket of S3 on localhost, which counts what it is asked for.

    python -m benchmarks.bucket FOLDER [--latency-ms 20]

It prints its URL; the first part of a path is the bucket, a folder. It answers GET (ranges too), HEAD and
ListObjectsV2, checks no signature, and lets each request wait first, as a store at a distance does. Requests
and the bytes of bodies since the start: GET /counts, which is not counted.
"""

import argparse
import json
import threading
import time
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket(ThreadingHTTPServer):
    """The server. `counts` has requests and bytes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, latency: float) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder, self.latency, self._lock = folder, latency, threading.Lock()
        self.counts = {"requests": 0, "bytes": 0}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, sent: int) -> None:
        """One more request."""
        with self._lock:
            self.counts["requests"] += 1
            self.counts["bytes"] += sent


class _Answer(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body of a small answer in one packet
    server: Bucket

    def do_GET(self) -> None:
        """An object, a part of it, or a list of objects."""
        asked = urlsplit(self.path)
        if asked.path == "/counts":
            self._send(200, json.dumps(self.server.counts).encode(), counted=False)
            return
        time.sleep(self.server.latency)
        query = parse_qs(asked.query, keep_blank_values=True)
        if "list-type" in query:
            self._send(200, self._listed(asked.path, query.get("prefix", [""])[0]))
            return
        file = self._file(asked.path)
        if file is None:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        size = file.stat().st_size
        start, end = self._range(size)
        about = {"ETag": self._etag(file), "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True)}
        if "Range" in self.headers:
            about["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        with file.open("rb") as opened:
            opened.seek(start)
            self._send(206 if "Range" in self.headers else 200, opened.read(end - start), **about)

    def do_HEAD(self) -> None:
        """An object's size."""
        self.do_GET()

    def _range(self, size: int) -> tuple[int, int]:
        """Where what is asked for begins and ends."""
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        if not first:
            return max(0, size - int(last)), size
        return int(first), min(int(last) + 1, size) if last else size

    def _listed(self, path: str, prefix: str) -> bytes:
        """All objects of a bucket whose keys begin so."""
        bucket = self.server.folder / path.strip("/").partition("/")[0]
        files = sorted(file for file in bucket.rglob("*") if file.is_file())
        keys = {file.relative_to(bucket).as_posix(): file for file in files}
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{file.stat().st_size}</Size>"
            f"<ETag>{self._etag(file)}</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, file in keys.items()
            if key.startswith(prefix)
        )
        return (
            f"<ListBucketResult><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>{found}"
            "</ListBucketResult>"
        ).encode()

    def _file(self, path: str) -> Path | None:
        """The object's file, if there is one and it lies in the folder."""
        file = (self.server.folder / unquote(path).lstrip("/")).resolve()
        return file if file.is_file() and file.is_relative_to(self.server.folder.resolve()) else None

    @staticmethod
    def _etag(file: Path) -> str:
        return f'"{file.stat().st_size:x}-{file.stat().st_mtime_ns:x}"'

    def _send(self, code: int, content: bytes, counted: bool = True, **about: str) -> None:
        """Answer, and count it."""
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        for name, value in about.items():
            self.send_header(name, value)
        self.end_headers()
        body = b"" if self.command == "HEAD" else content
        if counted:  # before it goes: who has the answer may ask for the counts
            self.server.count(len(body))
        self.wfile.write(body)

    def handle(self) -> None:
        """A client that is killed hangs up."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: it would say each request."""


def main() -> None:
    """Serve until the end comes from outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    given = parser.parse_args()
    server = Bucket(given.folder, given.latency_ms / 1000)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
